"""The official SDK and this client make the same calls to one server; the requests are compared.

A new release of ``@phala/cloud`` that speaks differently fails here, case by case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from service.phala import PhalaCloud, errors
from tests.contract.phala.nodejs import run_node
from tests.contract.phala.recording import RecordingServer, recording_server
from tests.contract.phala.test_phala_request_vectors import DIFFERENT_REQUESTS
from tests.contract.phala.vectors import expand, load, snake

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.node

CASES = load("requests")["cases"]
NAMES = [f"{case['function']}: {case['case']}".replace("[", "(").replace("]", ")") for case in CASES]


def base(server: RecordingServer, who: str, number: int) -> str:
    return f"{server.url}/{who}-{number}/api/v1"


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[RecordingServer, list[Any]]]:
    """One server, to which the SDK has already made every call."""
    with recording_server() as server:
        calls = []
        for number, case in enumerate(CASES):
            for who in ("sdk", "ours"):
                server.play_below(f"{who}-{number}", case["canned_responses"])
            calls.append(
                {
                    "function": case["function"],
                    "arguments": expand(case["arguments"]),
                    "client": case["client"],
                    "baseURL": base(server, "sdk", number),
                }
            )
        yield server, run_node("sdk_calls.mjs", calls)


def call_ours(server: RecordingServer, number: int) -> str | None:
    """Make the call; the class of its error, if there was one."""
    case = CASES[number]
    arguments = {snake(name): value for name, value in expand(case["arguments"]).items()}
    if case["function"] == "getAppEnvEncryptPubKey":
        arguments["verify"] = False
    config = case["client"]
    with PhalaCloud(config.get("apiKey"), base(server, "ours", number), headers=config.get("headers")) as client:
        try:
            getattr(client, snake(case["function"]))(**arguments)
        except (errors.PhalaError, TypeError) as error:
            return type(error).__name__
    return None


@pytest.mark.parametrize("number", range(len(CASES)), ids=NAMES)
def test_both_send_the_same(number: int, live: tuple[RecordingServer, list[Any]]):
    server, outcomes = live
    case = CASES[number]
    failed = call_ours(server, number)
    theirs = [request.as_vector() for request in server.requests_below(f"sdk-{number}")]
    ours = [request.as_vector() for request in server.requests_below(f"ours-{number}")]
    if case["case"] in DIFFERENT_REQUESTS:
        _, changed = DIFFERENT_REQUESTS[case["case"]]
        assert theirs != ours
        assert [{**request, **change} for request, change in zip(ours, changed, strict=True)] == ours
        return
    assert ours == theirs
    status = outcomes[number].get("error", {}).get("status")
    if status:  # the SDK read an error out of the answer: so did we
        assert failed not in (None, "BadResponse", "TypeError")


def test_the_sdk_that_ran_is_the_one_the_vectors_were_made_with(live: tuple[RecordingServer, list[Any]]):
    """Otherwise make new vectors: the recorded calls and the installed SDK must be one."""
    server, _ = live
    for number, case in enumerate(CASES):
        sent = [request.as_vector() for request in server.requests_below(f"sdk-{number}")]
        recorded = [
            {name: r[name] for name in ("method", "raw_target", "headers", "body_raw")} for r in case["requests"]
        ]
        assert sent == recorded, NAMES[number]
