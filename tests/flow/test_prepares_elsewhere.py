"""Phala Cloud's webhooks: our own prepares are recognised, those of others adopted, followed, or proposed."""

from collections.abc import Iterator

import pytest

from service.domain.reasons import Reason
from tests.support.stack import Json, Stack, compose, first_cvm


@pytest.fixture
def told(stack: Stack) -> Iterator[Stack]:
    """A stack to which Phala Cloud tells of every prepare; a secret that is being replaced is still configured."""
    with stack.told_by_phala():
        yield stack


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
