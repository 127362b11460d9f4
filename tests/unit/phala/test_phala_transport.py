from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from service.phala import PhalaCloud, errors
from tests.unit.phala.answering import KEY, client_of, json_answer
from tests.unit.phala.every_function import EVERY, GETS, READING_POSTS, TOKEN, WRITES

if TYPE_CHECKING:
    from collections.abc import Iterator

INFO = {"id": "cvm_1", "name": "my-app", "status": "running"}


class Sequence:
    """Plays answers and faults in turn, the last one for ever, and counts."""

    def __init__(self, *turns: httpx.Response | Exception) -> None:
        self.turns = list(turns)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        if isinstance(turn, Exception):
            raise turn
        return turn


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_a_get_is_sent_once_more_on_the_documented_statuses(status: int):
    server = Sequence(httpx.Response(status), json_answer(200, INFO))
    with client_of(server) as client:
        assert client.get_cvm_info(id="my-app").name == "my-app"
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 501])
def test_a_get_is_not_repeated_on_others(status: int):
    server = Sequence(httpx.Response(status))
    with client_of(server) as client, pytest.raises(errors.ApiError):
        client.get_cvm_info(id="my-app")
    assert len(server.requests) == 1


def test_a_get_is_sent_once_more_after_a_network_fault_and_no_more():
    server = Sequence(httpx.ReadTimeout("slow"), json_answer(200, INFO))
    with client_of(server) as client:
        assert client.get_cvm_info(id="my-app").name == "my-app"
    server = Sequence(httpx.ReadTimeout("slow"))
    with client_of(server) as client, pytest.raises(errors.NetworkError) as caught:
        client.get_cvm_info(id="my-app")
    assert len(server.requests) == 2
    assert (caught.value.timed_out, caught.value.retryable, caught.value.outcome_unknown) == (True, True, False)


@pytest.mark.parametrize(
    "fault", [httpx.Response(503), httpx.Response(409), httpx.ReadTimeout("x"), httpx.ConnectError("x")]
)
@pytest.mark.parametrize("function", sorted(WRITES | READING_POSTS))
def test_nothing_but_a_get_is_ever_repeated(function: str, fault: httpx.Response | Exception):
    server = Sequence(fault)
    with client_of(server) as client, pytest.raises(errors.PhalaError):
        getattr(client, function)(**EVERY[function])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "unknown", "timed_out"),
    [
        (httpx.ConnectError("refused"), False, False),
        (httpx.ConnectTimeout("slow"), False, True),
        (httpx.PoolTimeout("busy"), False, True),
        (httpx.ProxyError("no"), False, False),
        (httpx.WriteTimeout("slow"), True, True),
        (httpx.WriteError("reset"), True, False),
        (httpx.ReadTimeout("slow"), True, True),
        (httpx.ReadError("reset"), True, False),
        (httpx.RemoteProtocolError("closed"), True, False),
    ],
)
def test_what_a_network_fault_says_about_a_write(fault: Exception, unknown: bool, timed_out: bool):
    with client_of(Sequence(fault)) as client, pytest.raises(errors.NetworkError) as caught:
        client.commit_cvm_update(id="my-app", token=TOKEN)
    assert (caught.value.outcome_unknown, caught.value.timed_out) == (unknown, timed_out)
    assert caught.value.retryable is not unknown
    assert TOKEN not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_a_server_that_drips_is_given_up():
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.01)  # the slowness is what is tested
            yield b" "

    answer = httpx.Response(202, content=drip())
    with client_of(answer, timeout=0.05) as client, pytest.raises(errors.NetworkError) as caught:
        client.commit_cvm_update(id="my-app", token=TOKEN)
    assert caught.value.timed_out
    assert caught.value.outcome_unknown


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def test_other_users_of_httpx_log_as_before(everything_logged: pytest.LogCaptureFixture):
    with client_of(json_answer(200, INFO)) as client:
        client.get_cvm_info(id="my-app")
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as other:
        other.get("http://other.test/visible")
    assert [record.getMessage() for record in everything_logged.records if record.name == "httpx"] == [
        'HTTP Request: GET http://other.test/visible "HTTP/1.1 200 OK"'
    ]


def test_logging_is_restored_after_a_fault(everything_logged: pytest.LogCaptureFixture):
    with client_of(Sequence(httpx.ConnectError("x"))) as client, pytest.raises(errors.NetworkError):
        client.get_cvm_info(id="my-app")
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as other:
        other.get("http://other.test/visible")
    assert "http://other.test/visible" in everything_logged.text


def test_the_key_is_not_shown():
    for key in (KEY, SecretStr(KEY)):
        with client_of(json_answer(401, {"detail": f"unknown key {KEY}"})) as client:
            assert KEY not in repr(client)
        server = Sequence(json_answer(401, {"detail": f"unknown key {KEY}"}))
        client = PhalaCloud(key, "http://phala.test", transport=httpx.MockTransport(server))
        with client, pytest.raises(errors.AuthError, match=r"unknown key \[secret\]"):
            client.get_cvm_info(id="my-app")
        assert server.requests[0].headers["x-api-key"] == KEY


def test_custom_headers_are_sent_but_cannot_replace_the_key():
    server = Sequence(json_answer(200, INFO))
    headers = {"X-Workspace-Id": "my-team", "x-api-key": "other"}
    with client_of(server, headers=headers) as client:
        client.get_cvm_info(id="my-app")
    sent = server.requests[0].headers
    assert sent.get_list("x-api-key") == [KEY]
    assert sent["x-workspace-id"] == "my-team"


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "with\nnewline"},
        {"api_key": "ключ"},
        {"headers": {"X-A": "a\r\nb"}},
        {"headers": {"X A": "a"}},
        {"base_url": "cloud-api.phala.com"},
        {"base_url": "ftp://x"},
        {"base_url": "http://"},
        {"base_url": "http://user:secret-word@phala.test"},
        {"base_url": "http://phala.test?x=1"},
        {"base_url": "http://[::1"},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_at_once_and_not_quoted(options: dict[str, Any]):
    with pytest.raises(errors.InvalidArgument) as caught:
        PhalaCloud(**options)
    shown = f"{caught.value!r}{caught.value.__cause__!r}"
    assert not any(word in shown for word in ("newline", "ключ", "secret-word"))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("confirm_cvm_patch", {"id": "my-app", "compose_hash": "a\r\nX-Evil: 1", "transaction_hash": "0x"}),
        ("confirm_cvm_patch", {"id": "my-app", "compose_hash": "é", "transaction_hash": "0x"}),
        ("patch_cvm", {"id": "..", "vcpu": 1}),
        ("patch_cvm", {"id": "\ud800", "vcpu": 1}),
        ("patch_cvm", {"id": "my-app", "prepare": True}),
        ("patch_cvm", {"id": "my-app", "gpus": {"count": Ellipsis}}),
        ("update_docker_compose", {"id": "my-app", "docker_compose_file": "\ud800"}),
        ("get_cvm_info", {"id": "x" * 100_000}),
        ("get_cvm_info", {"id": "my-app", "vm_uuid": "x"}),
        ("update_cvm_visibility", {"id": "my-app"}),
        ("update_cvm_visibility", {"id": "my-app", "public_logs": True}),
        ("update_cvm_visibility", {"id": "my-app", "public_logs": True, "public_sysinfo": True, "listed": True}),
        ("update_os_image", {"id": "my-app"}),
        ("refresh_cvm_instance_ids", {"limit": 0}),
        ("refresh_cvm_instance_ids", {"limit": 501}),
        ("provision_cvm_compose_file_update", {"id": "my-app", "app_compose": {}}),
        (
            "provision_cvm_compose_file_update",
            {"id": "my-app", "app_compose": {"docker_compose_file": "é" * 102_000, "pre_launch_script": "x" * 801}},
        ),
        ("commit_cvm_compose_file_update", {"id": "my-app", "compose_hash": ""}),
        ("get_app_env_encrypt_pub_key", {"kms": "k", "app_id": "09cef3"}),
        ("get_app_cvms", {"app_id": ""}),
        ("watch_cvm_state", {"id": "my-app", "target": "running", "interval": 4}),
        ("watch_cvm_state", {"id": "my-app", "target": "running", "timeout": 601}),
        ("watch_cvm_state", {"id": "my-app", "target": "running", "retry_delay": -1}),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_call_that_cannot_be_made_sends_nothing(function: str, arguments: dict[str, Any]):
    server = Sequence(httpx.Response(500))
    with client_of(server) as client, pytest.raises(errors.InvalidArgument):
        getattr(client, function)(**arguments)
    assert server.requests == []


def test_listed_has_an_endpoint_of_its_own():
    server = Sequence(json_answer(200, INFO))
    with client_of(server) as client:
        assert client.update_cvm_visibility(id="my-app", listed=False).name == "my-app"
    assert (server.requests[0].url.path, server.requests[0].content) == (
        "/api/v1/cvms/my-app/listed",
        b'{"listed":false}',
    )


def test_names_of_the_documentation_are_accepted():
    server = Sequence(json_answer(200, {}))
    with client_of(server) as client:
        client.update_os_image(id="my-app", image="dstack-0.5.5")
        client.commit_cvm_compose_file_update(id="my-app", compose_hash="ab", transaction_hash="0x12")
        with pytest.raises(errors.BadResponse):
            client.refresh_cvm_instance_ids(ids=["a"])
    assert [request.content for request in server.requests] == [
        b'{"os_image_name":"dstack-0.5.5"}',
        b'{"compose_hash":"ab"}',
        b'{"cvm_ids":["a"]}',
    ]


def test_update_env_vars_is_never_part_of_the_document():
    server = Sequence(json_answer(200, {"compose_hash": "ab"}))
    document = {"docker_compose_file": "x", "update_env_vars": False, "salt": None, "unknown": 1}
    with client_of(server) as client:
        client.provision_cvm_compose_file_update(id="my-app", app_compose=document)
        client.provision_cvm_compose_file_update(id="my-app", app_compose=document, update_env_vars=True)
    assert [request.content for request in server.requests] == [
        b'{"docker_compose_file":"x","salt":null,"unknown":1}',
        b'{"docker_compose_file":"x","salt":null,"unknown":1,"update_env_vars":true}',
    ]


def test_redirects_are_not_followed_and_cookies_not_kept():
    moved = httpx.Response(307, headers={"location": "http://elsewhere.test/", "set-cookie": "a=b; Path=/"})
    server = Sequence(moved, json_answer(200, INFO))
    with client_of(server) as client:
        with pytest.raises(errors.BadResponse, match="redirects"):
            client.get_cvm_info(id="my-app")
        client.get_cvm_info(id="my-app")
    assert [request.url.host for request in server.requests] == ["phala.test", "phala.test"]
    assert "cookie" not in server.requests[1].headers


def test_the_environment_counts_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PHALA_CLOUD_API_KEY", "phak_from_env")
    monkeypatch.setenv("PHALA_CLOUD_API_PREFIX", "http://env.test/api/v9/")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    server = Sequence(json_answer(200, INFO))
    transport = httpx.MockTransport(server)
    with PhalaCloud(transport=transport) as plain, PhalaCloud.from_env(transport=transport) as chosen:
        assert plain.base_url == "https://cloud-api.phala.com/api/v1"
        plain.get_cvm_info(id="my-app")
        chosen.get_cvm_info(id="my-app")
    assert "x-api-key" not in server.requests[0].headers
    assert server.requests[1].headers["x-api-key"] == "phak_from_env"
    assert str(server.requests[1].url) == "http://env.test/api/v9/cvms/my-app"


def test_one_client_serves_many_threads():
    def echo(request: httpx.Request) -> httpx.Response:
        return json_answer(200, {**INFO, "name": request.url.path.rsplit("/", 1)[1]})

    names = [f"app-{number}" for number in range(200)]
    with client_of(echo) as client, ThreadPoolExecutor(16) as pool:
        assert [info.name for info in pool.map(lambda name: client.get_cvm_info(id=name), names)] == names


def test_lists_and_moments_in_a_query():
    server = Sequence(json_answer(200, {"items": []}))
    with client_of(server) as client:
        client.get_cvm_operations(
            id="my-app", limit=5, start_time=datetime(2026, 1, 1, tzinfo=UTC), operation_types=["a", "b"]
        )
    assert dict(server.requests[0].url.params.multi_items()) | {"operation_types": "b"} == {
        "limit": "5",
        "start_time": "2026-01-01T00:00:00+00:00",
        "operation_types": "b",
    }
    assert server.requests[0].url.params.get_list("operation_types") == ["a", "b"]


def test_every_get_is_a_get():
    for function, arguments in GETS.items():
        server = Sequence(httpx.Response(404))
        with client_of(server) as client, pytest.raises(errors.NotFound):
            getattr(client, function)(**arguments)
        assert [request.method for request in server.requests] == ["GET"]
