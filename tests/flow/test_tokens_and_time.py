"""Approvals take weeks: commit tokens are renewed, and who cannot be renewed is told before the end, once."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from service.domain.reasons import Reason
from tests.support.stack import Json, Stack, compose, first_cvm

_TIMES = ("created_at", "updated_at", "state_entered_at", "prepare_attempted_at", "prepared_at", "token_expires_at")
_SERVED = "SELECT due_at IS NULL OR (due_at > clock_timestamp() AND lease_until IS NULL) FROM change_requests"


def _let_pass(stack: Stack, request_id: str, days: float) -> None:
    """Move a waiting change request so many days into the past, and wait until a worker has looked at it."""
    moved = ", ".join(f"{column} = {column} - %(ago)s" for column in (*_TIMES, "deadline_at"))
    due = f"UPDATE change_requests SET {moved}, due_at = clock_timestamp(), rung_at = NULL WHERE id = %(id)s"  # noqa: S608 - our own names
    with psycopg.connect(stack.deployment.database_url, autocommit=True) as connection:
        connection.execute(due, {"ago": timedelta(days=days), "id": request_id})
        stack.wait_until(lambda: connection.execute(f"{_SERVED} WHERE id = %s", [request_id]).fetchone() == (True,))


def _named(stack: Stack, request_id: str, name: str) -> list[Json]:
    return [event for event in stack.events(request_id) if event["type"] == f"change_request.{name}"]


def _token_lasts(stack: Stack, request_id: str) -> timedelta:
    return datetime.fromisoformat(stack.get(request_id)["token_expires_at"]) - datetime.now(UTC)


def test_a_token_is_renewed_by_wish_and_before_it_ends(stack: Stack):
    cvm = first_cvm(stack.world.add_app())
    request_id = stack.submit(cvm, compose("renewed"))
    stack.wait_for(request_id, "proposed")

    answer = stack.client.post(f"/v1/change-requests/{request_id}/refresh")

    assert answer.status_code == 202, answer.text
    stack.wait_until(lambda: len(_named(stack, request_id, "token_refreshed")) == 1)
    _let_pass(stack, request_id, days=10)
    assert len(_named(stack, request_id, "token_refreshed")) == 1
    _let_pass(stack, request_id, days=2)
    assert len(_named(stack, request_id, "token_refreshed")) == 2
    assert _token_lasts(stack, request_id) > timedelta(days=13)

    stack.execute(stack.sign(request_id))
    stack.wait_for(request_id, "completed")
    assert len(stack.world.phala.ledger("prepare", cvm)) == 3
    assert len(stack.accepted_commits(cvm)) == 1, "Phala Cloud takes the newest token only"
    assert _named(stack, request_id, "expiring") == []


@pytest.mark.fault(
    "Phala Cloud",
    "The token ends before the owners execute",
    "renewed by the patch; the approval stands",
    "the next look",
)
def test_an_approval_executed_after_the_token_ended_is_committed_with_a_fresh_one(stack: Stack):
    cvm = first_cvm(stack.world.add_app())
    request_id = stack.submit(cvm, compose("late"))
    stack.wait_for(request_id, "proposed")
    approval = stack.sign(request_id)

    with stack.phala_down():
        _let_pass(stack, request_id, days=15)
        assert _token_lasts(stack, request_id) < timedelta(0)
        stack.execute(approval)
        stack.wait_for(request_id, "registered")

    stack.wait_for(request_id, "completed")
    assert len(_named(stack, request_id, "token_refreshed")) == 1
    assert len(stack.world.phala.ledger("prepare", cvm)) == 2
    assert len(stack.accepted_commits(cvm)) == 1


@pytest.mark.fault(
    "Phala Cloud",
    "The token ends and nothing can renew it",
    "`expiring` at 3 days, 1 day, 6 hours; then `expired`",
    "14 days after its prepare",
)
def test_a_token_that_cannot_be_renewed_is_told_of_once_at_each_mark_and_ends_its_request(stack: Stack):
    cvm = first_cvm(stack.world.add_app())
    answer = stack.post(prepared=stack.prepare_elsewhere(cvm, compose("handed in")))
    assert answer.status_code == 202, answer.text
    request_id = answer.json()["id"]
    stack.wait_for(request_id, "proposed")

    told = []
    for days in (10.5, 1, 0.5, 1.25, 0.25):  # 3.5, 2.5, 2, 0.75 and 0.5 days are left
        _let_pass(stack, request_id, days)
        told.append(len(_named(stack, request_id, "expiring")))
    assert told == [0, 1, 1, 2, 2]
    _let_pass(stack, request_id, days=0.75)

    expired = stack.wait_for(request_id, "expired")
    assert expired["reason"]["code"] == Reason.TOKEN_EXPIRED
    assert len(_named(stack, request_id, "expiring")) == 2
    assert len(stack.world.phala.ledger("prepare", cvm)) == 1
    assert stack.accepted_commits(cvm) == []
