"""Phala Cloud's webhooks: our own prepares are recognised, those of others adopted, followed, or proposed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.phala_cloud.deliveries import RETRY_AFTER_SECONDS
from sandbox.phala_cloud.webhooks import PENDING_APPROVAL
from service.domain.reasons import Reason
from tests.support.official_cli import OfficialCli
from tests.support.stack import Json, Stack, compose, first_cvm


@pytest.fixture
def told(stack: Stack) -> Iterator[Stack]:
    """A stack to which Phala Cloud tells of every prepare; a secret that is being replaced is still configured."""
    with stack.told_by_phala():
        yield stack
        stack.world.phala.settings(clock_offset=0)


def _requests(stack: Stack, cvm: str) -> list[Json]:
    """Change requests of a CVM, oldest first."""
    answer = stack.client.get("/v1/change-requests", params={"cvm_id": cvm})
    assert answer.status_code == 200, answer.text
    return list(reversed(answer.json()["items"]))


def test_an_echo_is_recognised_and_the_same_update_adopted(told: Stack):
    cvm = first_cvm(told.world.add_app())
    request_id = told.submit(cvm, compose("adopted"))
    first = told.wait_for(request_id, "proposed")

    again = told.prepare_elsewhere(cvm, compose("adopted"))

    assert again["compose_hash"] == first["compose_hash"]
    told.wait_until(lambda: "token_refreshed" in told.event_names(request_id))
    told.execute(told.sign(request_id))
    told.wait_for(request_id, "completed")
    assert [request["id"] for request in _requests(told, cvm)] == [request_id]
    assert len(told.accepted_commits(cvm)) == 1
    assert len(told.world.phala.ledger("prepare", cvm)) == 2, "the adopted token was good"


def test_a_prepare_that_nobody_submitted_is_proposed_until_a_newer_one_takes_its_place(told: Stack):
    cvm = first_cvm(told.world.add_app())
    prepared = told.prepare_elsewhere(cvm, compose("by webhook"))
    told.wait_until(lambda: len(_requests(told, cvm)) == 1)
    (older,) = _requests(told, cvm)
    assert (older["intake"], older["compose_hash"]) == ("webhook", prepared["compose_hash"])
    told.wait_for(older["id"], "proposed")
    assert told.post(prepared=prepared).status_code == 409

    told.prepare_elsewhere(cvm, compose("by another webhook"))

    superseded = told.wait_for(older["id"], "superseded")
    assert superseded["reason"]["code"] == Reason.SUPERSEDED_BY_PREPARE
    told.wait_until(lambda: len(_requests(told, cvm)) == 2)
    newer = _requests(told, cvm)[1]["id"]
    told.approve(newer)
    told.wait_for(newer, "completed")


def _attempts(stack: Stack, cvm: str) -> list[Json]:
    """Attempts to tell of prepares of a CVM, oldest first."""
    return [one for one in stack.world.phala.ledger("delivery", cvm) if one["event"] == PENDING_APPROVAL]


@pytest.mark.node
@pytest.mark.fault(
    "webhooks in",
    "The API is away until Phala Cloud has given up on its webhooks",
    "the prepares are found in Phala Cloud's list and asked for again; ours is still ours, the others are proposed",
    "one `COUNTERSIGN_RECOVER_SECONDS`",
)
def test_what_was_told_in_vain_is_recovered_and_our_own_prepare_is_still_ours(told: Stack, tmp_path: Path):
    """Nobody hears of two prepares, ours and that of Phala's command line, until Phala Cloud has given up on both."""
    ours, theirs = both = [first_cvm(told.world.add_app()) for _ in range(2)]
    with told.phala_down():
        request_id = told.submit(ours, compose("ours"))
        told.deployment.process("serve").stop()
    cli = OfficialCli(tmp_path, told.world.phala_url, told.world.setup.phala_api_key)
    prepared = json.loads(cli.deploy(theirs, "--prepare-only", compose=compose("theirs")).stdout)
    for tried, pause in enumerate(RETRY_AFTER_SECONDS, start=1):
        told.wait_until(lambda tried=tried: [len(_attempts(told, cvm)) for cvm in both] == [tried] * 2)
        told.world.phala.advance_clock(pause)
    # The fourth attempt was the last one; the fifth was asked for, and comes too early as well.
    told.wait_until(lambda: [len(_attempts(told, cvm)) for cvm in both] == [5] * 2)
    assert {attempt["response_status"] for cvm in both for attempt in _attempts(told, cvm)} == {0}

    told.restart("serve")
    told.world.phala.advance_clock(RETRY_AFTER_SECONDS[0])

    told.wait_until(lambda: len(_requests(told, theirs)) == 1)
    (recovered,) = _requests(told, theirs)
    assert (recovered["intake"], recovered["compose_hash"]) == ("webhook", prepared["compose_hash"])
    told.wait_for(recovered["id"], "proposed")
    told.approve(request_id)
    told.wait_for(request_id, "completed")
    assert [request["id"] for request in _requests(told, ours)] == [request_id]
    assert len(told.world.phala.ledger("prepare", ours)) == 1
    assert [[one["response_status"] for one in _attempts(told, cvm)] for cvm in both] == [[0] * 5 + [204]] * 2
