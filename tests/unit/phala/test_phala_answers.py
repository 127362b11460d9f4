"""What becomes of answers that are not what the API promises."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.phala import PhalaCloud, errors
from tests.unit.phala.answering import KEY, client_of, json_answer
from tests.unit.phala.every_function import EVERY, GETS, READING_POSTS, TOKEN, WRITES

if TYPE_CHECKING:
    from collections.abc import Callable

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)


def member_names(value: Any) -> set[str]:
    """Names of all members at any depth."""
    if isinstance(value, dict):
        return set(value).union(*map(member_names, value.values()))
    return set().union(*map(member_names, value)) if isinstance(value, list) else set()


RECORDED = Path(__file__).parents[2] / "vectors" / "phala" / "requests.json"
MEMBERS = st.sampled_from(
    sorted(member_names([case["canned_responses"] for case in json.loads(RECORDED.read_text())["cases"]]))
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(MEMBERS | ANY_TEXT, children, max_size=6),
    max_leaves=25,
)
BODIES = (
    JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
    | st.sampled_from([b"", b" ", b"<html>Bad gateway</html>", b"null", b"[]", b"{}", b"event: state\ndata: {}\n\n"])
)
MEDIA_TYPES = st.sampled_from(
    ["application/json", "text/html", "text/plain; charset=latin-1", "", "text/event-stream", ";;"]
)
STATUSES = st.sampled_from(
    [200, 202, 204, 301, 400, 401, 403, 404, 409, 422, 429, 465, 466, 467, 468, 500, 502, 503, 599]
)


@settings(max_examples=1500, deadline=None)
@given(
    function=st.sampled_from(sorted(EVERY)),
    status=STATUSES,
    media_type=MEDIA_TYPES,
    body=BODIES,
    headers=st.dictionaries(
        st.sampled_from(["x-request-id", "retry-after", "content-encoding", "location"]),
        st.sampled_from(["", "1", "gzip", "deflate", "http://[", "9" * 40, "soon"]),
    ),
)
def test_nonsense_never_leaves_the_tree(
    function: str, status: int, media_type: str, body: bytes, headers: dict[str, str]
):
    def answer(_request: httpx.Request) -> httpx.Response:
        raw = httpx.ByteStream(body)  # not decoded by the test's own transport
        return httpx.Response(status, stream=raw, headers={"content-type": media_type, **headers})

    with client_of(answer) as client:
        error = failure_of(client, function)
    if error is not None:
        shown = f"{error} {error!r} {error.__cause__!r}"
        assert KEY not in shown
        assert TOKEN not in shown
        assert len(shown) < 6000
        assert not (error.retryable and error.outcome_unknown)


def failure_of(client: PhalaCloud, function: str) -> errors.PhalaError | None:
    """The error of the call, if it is one of the tree. Any other fails the test."""
    try:
        getattr(client, function)(**EVERY[function])
    except errors.PhalaError as error:
        return error
    return None


def test_the_list_of_functions_is_complete():
    public = {
        name
        for name, _ in inspect.getmembers(PhalaCloud, inspect.isfunction)
        if not name.startswith("_") and name not in ("close", "iter_cvm_operations")
    }
    assert public == set(EVERY)


USELESS = [
    ("text/html", b"<html>we are down</html>", r"HTML|html"),
    ("application/json", b"", "empty body"),
    ("application/json", b'{"cut', "no JSON"),
    ("application/json", b'{"other": "shape"}', "another"),
    ("application/json", b"7", "another"),
    ("application/json", b"[" * 100_000, "no JSON"),
]
NOT_READ = {
    "watch_cvm_state",
    "update_cvm_resources",
    "update_os_image",
    "commit_cvm_compose_file_update",
    "resend_webhook_delivery",
}
TEXTS = {"get_cvm_docker_compose", "get_cvm_pre_launch_script"}  # which may be empty
ALL_OPTIONAL = {  # an object without known members is an empty answer
    "get_commit_token_info",
    "get_pending_updates",
    "get_app_device_allowlist",
    "get_app_kms_info",
    "get_pending_update_preview",
    "get_cvm_user_config",
}


@pytest.mark.parametrize(
    ("function", "media_type", "body", "words"),
    [
        (function, *useless)
        for function in sorted(set(EVERY) - NOT_READ)
        for useless in USELESS
        if not (function in TEXTS and not useless[1]) and not (function in ALL_OPTIONAL and b"shape" in useless[1])
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_2xx_of_no_use_says_so(function: str, media_type: str, body: bytes, words: str):
    answer = httpx.Response(200, content=body, headers={"content-type": media_type})
    with client_of(answer) as client, pytest.raises(errors.BadResponse, match=words) as caught:
        getattr(client, function)(**EVERY[function])
    assert caught.value.status == 200
    assert caught.value.outcome_unknown is (function in WRITES)


@pytest.mark.parametrize("function", sorted(EVERY))
def test_a_huge_answer_is_cut_off(function: str):
    def endless() -> Any:
        while True:
            yield b"x" * 65536

    answer = httpx.Response(200, content=endless(), headers={"content-type": "application/json"})
    with (
        client_of(answer, max_response_bytes=100_000) as client,
        pytest.raises(errors.PhalaError, match=r"bytes|does not end"),
    ):
        getattr(client, function)(**EVERY[function])


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, {"detail": "no"}, errors.RequestRefused, False),
        (401, {"detail": "no"}, errors.AuthError, False),
        (403, {"detail": "no"}, errors.AuthError, False),
        (404, {"detail": "no"}, errors.NotFound, False),
        (408, {"detail": "no"}, errors.RequestRefused, True),
        (409, {"detail": "busy"}, errors.Conflict, True),
        (409, {"error_code": "ERR-01-004", "message": "duplicate name"}, errors.Conflict, False),
        (409, {"error_code": "ERR-03-007"}, errors.Conflict, False),
        (422, {"detail": []}, errors.ValidationError, False),
        (429, {"detail": "slow"}, errors.RequestRefused, True),
        (465, {"detail": "no"}, errors.HashRegistrationRequired, True),
        (466, {"detail": "no"}, errors.HashInvalidOrExpired, False),
        (467, {"detail": "no"}, errors.TxVerificationFailed, True),
        (468, {"detail": "no"}, errors.HashNotAllowed, True),
        (500, None, errors.ServerError, True),
        (503, None, errors.ServerError, True),
    ],
)
def test_kinds_and_whether_a_retry_helps(status: int, body: Any, kind: type[errors.ApiError], retryable: bool):
    with client_of(json_answer(status, body)) as client:
        with pytest.raises(kind) as read:
            client.get_cvm_info(id="my-app")
        with pytest.raises(kind) as written:
            client.commit_cvm_update(id="my-app", token=TOKEN)
    assert (read.value.status, read.value.retryable, read.value.outcome_unknown) == (status, retryable, False)
    assert written.value.outcome_unknown is (status == 500)
    assert written.value.retryable is (retryable and status != 500)
    if isinstance(read.value, errors.Conflict):
        assert read.value.busy is retryable


def test_a_structured_error_in_full():
    body = {
        "error_code": "ERR-03-001",
        "message": "not found",
        "request_id": "req_body",
        "details": [{"field": "cvm_id", "value": {"any": 1}, "message": "hidden"}, {"value": 1}, "x", {"field": "f"}],
        "suggestions": ["look", 7],
        "links": [{"label": "Docs", "url": "https://docs.example"}, {"label": 1}],
    }
    for wrapped in (body, {"detail": body, "request_id": "req_body"}):
        answer = json_answer(404, wrapped, **{"x-request-id": "req_header"})
        with client_of(answer) as client, pytest.raises(errors.NotFound) as caught:
            client.get_cvm_info(id="my-app")
        error = caught.value
        assert (error.code, error.message, error.request_id) == ("ERR-03-001", "not found", "req_body")
        assert error.detail("cvm_id") == {"any": 1}
        assert error.detail("unknown") is None
        assert [d.field for d in error.details] == ["cvm_id", "f"]
        assert error.suggestions == ("look",)
        assert error.links == (errors.ErrorLink("Docs", "https://docs.example"),)
        assert "ERR-03-001" in repr(error)


def test_the_request_id_of_the_header_and_the_wait_of_a_429():
    answer = json_answer(429, {"detail": "slow"}, **{"x-request-id": "req_1", "retry-after": "17"})
    with client_of(answer) as client, pytest.raises(errors.RequestRefused) as caught:
        client.get_cvm_info(id="my-app")
    assert (caught.value.request_id, caught.value.retry_after) == ("req_1", 17.0)


def prepared(**changes: Any) -> dict[str, Any]:
    facts = {
        "compose_hash": "ab" * 32,
        "app_id": "cd" * 20,
        "device_id": "ef" * 32,
        "kms_info": {"chain_id": 8453, "kms_contract_address": "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"},
        "commit_token": TOKEN,
        "commit_url": f"https://cloud.test/confirm-update?token={TOKEN}",
        "api_commit_url": f"https://api.test/commit-update?token={TOKEN}",
        "onchain_status": {"compose_hash_allowed": False, "device_id_allowed": True, "is_allowed": False},
    } | changes
    details = [{"field": name, "value": value} for name, value in facts.items() if value is not ...]
    return {"error_code": "ERR-01-005", "message": "register", "details": details}


def patch(body: Any) -> Any:
    with client_of(json_answer(465, body)) as client:
        return client.patch_cvm(id="my-app", docker_compose_file="x", prepare_only=True)


def test_a_prepared_patch_hides_its_credentials():
    result = patch(prepared())
    assert result.requires_on_chain_hash is True
    assert result.commit_token.get_secret_value() == TOKEN
    assert TOKEN in result.api_commit_url.get_secret_value()
    assert result.onchain_status.device_id_allowed
    assert TOKEN not in repr(result) + str(result) + str(result.model_dump()) + result.model_dump_json()


def test_of_a_field_given_twice_the_last_one_counts_and_order_is_free():
    body = prepared()
    body["details"] = [{"field": "compose_hash", "value": "00" * 32}, *reversed(body["details"])]
    assert patch(body).compose_hash == "ab" * 32


@pytest.mark.parametrize("missing", ["device_id", "kms_info"])
def test_a_465_that_lacks_a_fact_is_a_bad_answer(missing: str):
    with pytest.raises(errors.BadResponse, match=missing) as caught:
        patch(prepared(**{missing: ...}))
    assert TOKEN not in repr(caught.value)
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize("body", [{"detail": "register first"}, prepared(compose_hash=...), prepared(app_id="")])
def test_a_465_without_a_hash_or_an_app_is_thrown_and_hides_the_token(body: Any):
    with pytest.raises(errors.HashRegistrationRequired) as caught:
        patch(body)
    assert TOKEN not in repr(caught.value) + str(caught.value.details)


def test_what_the_server_repeats_of_our_secrets_is_blanked():
    body = {
        "detail": [{"loc": ["body", TOKEN], "msg": f"bad {TOKEN} with {KEY}", "type": "x", "input": {"token": TOKEN}}]
    }
    with client_of(json_answer(422, body)) as client, pytest.raises(errors.ValidationError) as caught:
        client.commit_cvm_update(id="my-app", token=TOKEN)
    assert str(caught.value) == "Validation failed: bad [secret] with [secret]"
    assert TOKEN not in str(caught.value.issues)


def test_a_read_by_post_is_no_write():
    for function, arguments in (GETS | READING_POSTS).items():
        with client_of(json_answer(500, None)) as client, pytest.raises(errors.ServerError) as caught:
            getattr(client, function)(**arguments)
        assert caught.value.retryable


def test_every_error_class_is_in_the_drawn_tree():
    def below(kind: type[errors.PhalaError]) -> set[str]:
        return {kind.__name__}.union(*(below(sub) for sub in kind.__subclasses__()))

    drawn = errors.__doc__ or ""
    assert all(f" {name} " in drawn or f"\n    {name} " in drawn for name in below(errors.PhalaError))


def operations_pages(pages: dict[str | None, dict[str, Any]]) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: json_answer(200, pages[request.url.params.get("cursor")])


def operation(name: str) -> dict[str, Any]:
    return {
        "correlation_id": name,
        "operation_type": "compose_update",
        "status": "completed",
        "started_at": "2026-01-01T00:00:00",
    }


def test_operations_are_walked_page_by_page_and_a_repeated_cursor_ends_it():
    pages = {
        None: {"items": [operation("a"), operation("b")], "next_cursor": "two", "total": 3},
        "two": {"items": [operation("c")], "next_cursor": "two", "total": 3},
    }
    with client_of(operations_pages(pages)) as client:
        seen = [item.correlation_id for item in client.iter_cvm_operations(id="my-app")]
        first = client.get_cvm_operations(id="my-app")
    assert seen == ["a", "b", "c"]
    assert first.next_cursor == "two"
    assert first.items[0].started_at.utcoffset() is not None
