"""Every recorded call of the official SDK, made by this client: the same requests, the same reading of the answers.

Where this client differs on purpose, `DIFFERENT_REQUESTS` and `DIFFERENT_READINGS` say so case by case.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from service.phala import PhalaCloud, errors
from tests.contract.phala.recording import Recorded
from tests.contract.phala.vectors import differences, expand, load, snake

if TYPE_CHECKING:
    from tests.contract.phala.recording import RecordingServer

CASES = [
    pytest.param(case, id=f"{case['function']}: {case['case']}".replace("[", "(").replace("]", ")"))
    for case in load("requests")["cases"]
]
PREFIX = "/api/v1"

#: Requests we send differently on purpose: why, and the requests.
DIFFERENT_REQUESTS: dict[str, tuple[str, list[dict[str, str]]]] = {
    "id form: id with slash and space is not percent-encoded by the SDK": (
        "a path segment is percent-quoted here: an identifier cannot change the target of a call",
        [{"raw_target": "/api/v1/cvms/a%20b%2Fc%3Fd%3D1"}],
    ),
    "seed parameter image": (
        "the documented name of the argument is accepted and sent under the name the server knows",
        [
            {
                "method": "PATCH",
                "raw_target": "/api/v1/cvms/my-app/os-image",
                "body_raw": '{"os_image_name":"dstack-0.5.5"}',
            }
        ],
    ),
    "unknown member is stripped; explicit empty values are sent": (
        "an unknown field is refused, not dropped in silence; the test below shows that the rest is sent alike",
        [],
    ),
}

#: Answers the SDK refuses (by schemas that reject null, or want a member it does not need) and this client reads.
DIFFERENT_READINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "seed parameter image": ("accepted, see above", {}),
    "unknown member is stripped; explicit empty values are sent": ("refused, see above", {}),
    "string cvm_id (API >= 2026-05-22) fails the 0.2.9 schema": ("ids are text or numbers", {"cvm_id": "cvm_0123abcd"}),
    "465 with null commit_token (non-prepare) fails: optional but not nullable": (
        "null counts as absent",
        {"requires_on_chain_hash": True, "commit_token": None, "onchain_status": None},
    ),
    "answer without status": (
        "the commit was accepted, and the correlation id is what counts",
        {"correlation_id": "corr_01HXYZ", "status": None},
    ),
    "null member fails (optional, not nullable)": ("null counts as absent", {"status": "running", "boot_error": None}),
    "null pre_launch_script fails (optional, not nullable)": (
        "null counts as absent",
        {"name": "my-app", "pre_launch_script": None},
    ),
}

#: What the SDK makes up and this client leaves unknown: why, and the members.
LEFT_UNKNOWN: dict[str, tuple[str, set[str]]] = {
    "updateCvmVisibility": (
        "the SDK reports false where the server says nothing, even for a flag just set to true",
        {"in_progress", "listed", "public_sysinfo", "public_logs"},
    ),
}

ERRORS_BY_STATUS = {
    401: errors.AuthError,
    403: errors.AuthError,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.ValidationError,
    465: errors.HashRegistrationRequired,
    466: errors.HashInvalidOrExpired,
    467: errors.TxVerificationFailed,
    468: errors.HashNotAllowed,
}


def call(case: dict[str, Any], server: RecordingServer) -> tuple[Any, list[Any]]:
    """Make the call of a case. Returns the result or the error, and the events of a watch."""
    arguments = {snake(name): value for name, value in expand(case["arguments"]).items()}
    events: list[Any] = []
    if case["function"] == "watchCvmState":
        arguments["on_event"] = events.append
    if case["function"] == "getAppEnvEncryptPubKey":
        arguments["verify"] = False  # the recorded signature is invented
    config = case["client"]
    with PhalaCloud(config.get("apiKey"), server.url + PREFIX, headers=config.get("headers")) as client:
        try:
            return getattr(client, snake(case["function"]))(**arguments), events
        except (errors.PhalaError, TypeError) as error:
            return error, events


@pytest.mark.parametrize("case", CASES)
def test_requests_are_the_sdks(case: dict[str, Any], server: RecordingServer):
    server.play(case["canned_responses"])
    call(case, server)
    expected = [
        {name: request[name] for name in ("method", "raw_target", "headers", "body_raw")}
        for request in case["requests"]
    ]
    if case["case"] in DIFFERENT_REQUESTS:
        _, changed = DIFFERENT_REQUESTS[case["case"]]
        template = expected[0] if expected else {"headers": server.requests[0].headers}
        expected = [{**template, **change} for change in changed]
    assert [request.as_vector() for request in server.requests] == expected


@pytest.mark.parametrize("case", [case for case in CASES if "returned" in case.values[0]])
def test_answers_read_as_by_the_sdk(case: dict[str, Any], server: RecordingServer):
    server.play(case["canned_responses"])
    result, _ = call(case, server)
    if case["case"].startswith("unknown member is stripped"):
        assert isinstance(result, errors.InvalidArgument)
        return
    assert not isinstance(result, Exception), result
    theirs = expand(case["returned"])
    _, unknown = LEFT_UNKNOWN.get(case["function"], ("", set()))
    assert all(theirs.pop(name) is False and getattr(result, name) is None for name in unknown)
    assert differences(result, theirs) == []


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case.values[0]])
def test_errors_carry_the_sdks_facts(case: dict[str, Any], server: RecordingServer):
    server.play(case["canned_responses"])
    theirs = case["error"]
    result, _ = call(case, server)
    if case["case"] in DIFFERENT_READINGS:
        _, facts = DIFFERENT_READINGS[case["case"]]
        assert not isinstance(result, Exception), result
        assert differences(result, facts) == []
    elif theirs["name"] == "MaxRetriesExceededError":
        assert isinstance(result, errors.WatchEnded)
        assert f"({result.attempts})" in theirs["message"]
    elif theirs["name"] == "ZodError" and not case["requests"]:
        # refused before anything was sent; a missing required keyword is Python's own complaint
        assert isinstance(result, errors.InvalidArgument | TypeError)
    elif theirs["name"] == "ZodError":
        assert isinstance(result, errors.BadResponse)
        assert result.outcome_unknown
    else:
        assert_same_facts(result, theirs)


def assert_same_facts(error: Any, theirs: dict[str, Any]) -> None:
    kind = ERRORS_BY_STATUS.get(theirs["status"])
    assert type(error) is (kind or (errors.ServerError if theirs["status"] >= 500 else errors.RequestRefused))
    assert error.status == theirs["status"]
    detail = theirs.get("detail")
    code = detail.get("error_code") if isinstance(detail, dict) else None
    assert error.code == (theirs.get("errorCode") or code)
    assert differences(error.details, expand(theirs.get("structuredDetails", []))) == []
    assert list(error.suggestions) == theirs.get("suggestions", [])
    assert differences(error.links, theirs.get("links", [])) == []
    issues = getattr(error, "issues", ())
    assert [(i.field, i.message, i.type) for i in issues] == [
        (i["field"], i["message"], i["type"]) for i in theirs.get("validationErrors", [])
    ]
    own_words = theirs["message"] == "Unknown API error" or theirs["message"].startswith("[")
    if not own_words:
        assert error.message == theirs["message"]


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0].get("events")])
def test_watch_events_are_the_sdks(case: dict[str, Any], server: RecordingServer):
    server.play(case["canned_responses"])
    _, events = call(case, server)
    assert [event.type for event in events] == [event["type"] for event in case["events"]]
    for ours, theirs in zip(events, case["events"], strict=True):
        if theirs["type"] != "error" or theirs["data"] == {"error": "boom"}:
            assert ours.data == theirs["data"]


def test_a_patch_without_the_unknown_field_is_sent_as_by_the_sdk(server: RecordingServer):
    case = next(c.values[0] for c in CASES if c.values[0]["case"].startswith("unknown member is stripped"))
    server.play(case["canned_responses"])
    known = {name: value for name, value in case["arguments"].items() if name != "listed"}
    result, _ = call({**case, "arguments": known}, server)
    assert differences(result, case["returned"]) == []
    assert [request.body for request in server.requests] == [case["requests"][0]["body_raw"]]


def test_the_listed_differences_all_exist():
    names = {case.values[0]["case"] for case in CASES}
    assert set(DIFFERENT_REQUESTS) <= names
    assert set(DIFFERENT_READINGS) <= names
    assert len(CASES) == 105


def test_a_request_differs_if_one_header_does(server: RecordingServer):
    """The comparison above is able to fail."""
    case = CASES[0].values[0]
    server.play(case["canned_responses"])
    call(case, server)
    changed = replace(server.requests[0], headers={**server.requests[0].headers, "x-phala-version": "2025-10-28"})
    assert isinstance(changed, Recorded)
    assert changed.as_vector() != {name: case["requests"][0][name] for name in changed.as_vector()}
