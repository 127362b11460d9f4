"""Bad input: a problem that says what to do and where, and nothing stored."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.examples import SUBMIT_PATCH, SUBMIT_PREPARED
from service.api.problems import PROBLEMS
from tests.support.served_api import Api

PATH = "/v1/change-requests"
PREPARED = SUBMIT_PREPARED["prepared"]
JSON = {"Content-Type": "application/json"}
APP = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
SECRET = "5ec7e700-0000-4000-8000-00000000beef"

POINTED: list[tuple[dict[str, Any], str, str]] = [
    ({"cvm_id": "a", "patch": {"listed": True}}, "#/patch/listed", "PATCH /cvms/{id}/listed"),
    ({"cvm_id": "a", "patch": {"instance_type": "tdx.small"}}, "#/patch/instance_type", "vcpu and memory"),
    ({"cvm_id": "a", "patch": {"vcpus": 1}}, "#/patch/vcpus", "did you mean vcpu?"),
    ({"cvm_id": "a", "patch": {"q": 1}}, "#/patch/q", "unknown member"),
    ({"cvm_id": "a", "patch": {"vcpu": 1}, "titel": "x"}, "#/titel", "did you mean title?"),
    ({"cvm_id": "a", "patch": {"a/b~c d": 1}}, "#/patch/a~1b~0c%20d", "unknown member"),
    ({"cvm_id": "a", "patch": {"gpus": {"gpus": [{"slot": "1"}, {"slot": 2}]}}}, "#/patch/gpus/gpus/1/slot", "string"),
    ({"cvm_id": "a", "patch": {"gpus": {"count": "1"}}}, "#/patch/gpus/count", "integer"),
    ({"cvm_id": "a", "patch": {"gpus": {}}}, "#/patch/gpus/count", "is required"),
    ({"cvm_id": "a", "patch": {"allowed_envs": ["A", 1]}}, "#/patch/allowed_envs/1", "string"),
    ({"cvm_id": "a", "patch": {"shutdown_timeout": 9}}, "#/patch/shutdown_timeout", "10"),
    ({"cvm_id": "a", "patch": {"user_config": "\0"}}, "#/patch/user_config", "NUL"),
    ({"cvm_id": "a", "patch": {}}, "#/patch", "at least one member"),
    ({"cvm_id": "a", "patch": []}, "#/patch", "a JSON object"),
    ({"cvm_id": "a/b", "patch": {"vcpu": 1}}, "#/cvm_id", "letters, digits"),
    ({"prepared": [PREPARED]}, "#/prepared", "a JSON object"),
    ({"prepared": {**PREPARED, "kms_info": 1}}, "#/prepared/kms_info", "a JSON object"),
    ({"cvm_id": "a", "patch": {"vcpu": 1}, "title": "a\nb"}, "#/title", "one line"),
    ({"prepared": {**PREPARED, "compose_hash": "0x" + "a" * 63}}, "#/prepared/compose_hash", "it has 63"),
    ({"prepared": {**PREPARED, "app_id": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"}}, "#/prepared/app_id", "EIP-55"),
    (
        {"prepared": {**PREPARED, "app_id": f"oeth:{APP}"}},
        "#/prepared/app_id",
        "'oeth' is chain 10, but the update is for",
    ),
    ({"prepared": {**PREPARED, "app_id": f"nowhere:{APP}"}}, "#/prepared/app_id", "neither configured nor well known"),
    ({"prepared": {**PREPARED, "app_id": f"Base:{APP}"}}, "#/prepared/app_id", "a chain's short name"),
    ({"prepared": {**PREPARED, "app_id": f"base:{APP[:-1]}D"}}, "#/prepared/app_id", "EIP-55"),
    ({"prepared": {**PREPARED, "commit_token": SECRET[:-1]}}, "#/prepared/commit_token", "UUID"),
    ({"prepared": {**PREPARED, "commit_token": None}}, "#/prepared/commit_token", "string"),
    ({"prepared": {k: v for k, v in PREPARED.items() if k != "device_id"}}, "#/prepared/device_id", "is required"),
    ({"prepared": {**PREPARED, "chain_id": "8453"}}, "#/prepared/chain_id", "integer"),
]


@pytest.mark.parametrize(("body", "pointer", "detail"), POINTED, ids=[pointer for _, pointer, _ in POINTED])
def test_a_wrong_member_is_pointed_at(idle_api: Api, body: dict[str, Any], pointer: str, detail: str):
    answer = idle_api.acme.post(PATH, json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    (part,) = problem["errors"]
    assert part["pointer"] == pointer
    assert detail in part["detail"]
    assert problem["type"] == "/problems/invalid_request"
    assert problem["detail"] == f"{pointer}: {part['detail']}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert idle_api.acme.get(PATH).json()["items"] == []


def test_everything_wrong_is_listed_at_once_up_to_a_bound(idle_api: Api):
    body = {"cvm_id": "", "patch": {f"unknown{n}": 1 for n in range(100)}}
    errors = idle_api.acme.post(PATH, json=body).json()["errors"]
    assert errors[0]["pointer"] == "#/cvm_id"
    assert len(errors) == 20


def test_what_was_sent_is_never_repeated(idle_api: Api):
    wrong = {**PREPARED, "commit_token": SECRET + "!", "api_commit_url": [SECRET], "compose_hash": SECRET}
    answer = idle_api.acme.post(
        PATH, json={"prepared": wrong, "patch": {"encrypted_env": SECRET, "user_config": [SECRET]}}
    )
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 5
    assert "5ec7e700" not in answer.text


def test_a_long_unknown_name_is_clipped(idle_api: Api):
    answer = idle_api.acme.post(PATH, json={"cvm_id": "a", "patch": {"n" * 100_000: 1}})
    assert answer.status_code == 422
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    "title",
    ["\x1b[31mred", "\x9b31mred", "next\x85line", "line\u2028break", "a\u202egnp.exe", "\u2066isolated", "\x7f"],
    ids=ascii,
)
def test_a_title_cannot_steer_a_terminal_or_turn_text_around(idle_api: Api, title: str):
    answer = idle_api.acme.post(PATH, json={"cvm_id": "a", "patch": {"vcpu": 1}, "title": title})
    assert (answer.status_code, [part["pointer"] for part in answer.json()["errors"]]) == (422, ["#/title"])


@pytest.mark.parametrize("title", ["Ausgabe 1.4 - für Köln", "גרסה 1.4", "リリース", "👩‍🚀 1.4", "e\u0301"])
def test_a_title_may_be_in_any_language(api: Api, title: str):
    answer = api.acme.post(PATH, json={"cvm_id": "a", "patch": {"vcpu": 1}, "title": title})
    assert (answer.status_code, answer.json()["title"]) == (202, title)


@pytest.mark.parametrize("query", ["state=failed&state=completed", "limit=1&limit=1"])
def test_a_parameter_given_twice_is_refused(idle_api: Api, query: str):
    answer = idle_api.acme.get(f"{PATH}?{query}")
    (part,) = answer.json()["errors"]
    assert (answer.status_code, part["parameter"]) == (422, query.partition("=")[0])
    assert "once" in part["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b'{"cvm_id": "a\xff"}',
        b'{"title": "\\ud800"}',
        b'{"patch": {"vcpu": NaN}}',
        b'{"patch": {"vcpu": ' + b"9" * 10_000 + b"}}",
        b"[" * 100_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"cvm_id": "a"} {}',
        b'{"title": "raw \n newline"}',
    ],
    ids=lambda content: content[:20].decode("latin-1"),
)
def test_what_is_no_json_is_malformed(idle_api: Api, content: bytes):
    answer = idle_api.acme.post(PATH, content=content, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed_json")


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b'"text"', b"1", b"true"])
def test_a_body_must_be_an_object(idle_api: Api, content: bytes):
    answer = idle_api.acme.post(PATH, content=content, headers=JSON)
    (part,) = answer.json()["errors"]
    assert (answer.status_code, part["pointer"]) == (422, "#")
    assert part["detail"] in ("is required", "must be a JSON object")


@pytest.mark.parametrize(
    "media_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/problem+json"]
)
def test_a_body_must_be_declared_as_json(idle_api: Api, media_type: str | None):
    headers = {"Content-Type": media_type} if media_type else {}
    answer = idle_api.acme.post(PATH, content=json.dumps(SUBMIT_PATCH), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported_media_type")
    assert idle_api.acme.get(PATH).json()["items"] == []


def test_a_media_type_may_have_parameters(api: Api):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert api.acme.post(PATH, content=json.dumps(SUBMIT_PATCH), headers=headers).status_code == 202


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["\0", "0x" + "a" * 64, "a" * 300, 10**400, -(10**18), 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    (),
    ("cvm_id",),
    ("title",),
    ("deadline_seconds",),
    ("prepared",),
    *(("prepared", member) for member in PREPARED),
    ("patch",),
    *(("patch", member) for member in ("docker_compose_file", "allowed_envs", "gpus", "vcpu", "disk_size", "other")),
]


@pytest.mark.fault("clients", "A client sends any nonsense", "a problem that says what is wrong, never 500", "at once")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=ANYTHING)
def test_no_body_makes_the_service_fail(api: Api, place: tuple[str, ...], value: object):
    whole = json.loads(json.dumps({"body": {**SUBMIT_PREPARED, "cvm_id": "a", "patch": {"vcpu": 1}}}))
    at: Any = whole
    for part in ("body", *place)[:-1]:
        at = at[part]
    at[("body", *place)[-1]] = value
    answer = api.acme.post(PATH, content=json.dumps(whole["body"]), headers=JSON)
    assert answer.status_code in (202, 400, 409, 422), answer.text
    if answer.status_code != 202:
        assert answer.json()["type"] in {kind.uri for kind in PROBLEMS}
