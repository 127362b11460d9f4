"""A worker is frozen with a call on its way; another one does its work; then the call arrives after all."""

from collections.abc import Iterator

import pytest

from sandbox.polling import wait_for
from sandbox.safe_service.control import Control
from tests.chaos.holding import held
from tests.chaos.points import Board, Subject
from tests.chaos.site import Site
from tests.support.stack import Stack, compose

pytestmark = pytest.mark.chaos
LONG = 90.0


@pytest.fixture
def subject(site: Site) -> Iterator[Subject]:
    made = Subject(site, site.world.add_app())
    yield made
    made.close()


def _assert_once(stack: Stack, subject: Subject) -> None:
    completed = stack.wait_for(subject.request_id, "completed", seconds=LONG)
    assert len(stack.accepted_commits(subject.cvm)) == 1
    assert len(stack.proposals(subject.app, completed["compose_hash"])) == 1
    assert wait_for(lambda: subject.open_ends() == 0, LONG), "its proposal or a delivery is still at work"


@pytest.mark.fault(
    "workers",
    "A worker freezes past its lease, and its prepare arrives when another worker has proposed",
    "the late prepare kills the token that is held; at the commit the update is prepared again, the approval stands",
    "15 s, the lease",
)
def test_a_prepare_that_arrives_late_kills_a_token_and_nothing_else(
    site: Site, stack: Stack, board: Board, subject: Subject
):
    with held(site, board, subject, "phala", "PATCH") as call:
        subject.submit(compose("late prepare"))
        call.wait()
        stack.wait_for(subject.request_id, "proposed", seconds=LONG)
        prepares = len(site.world.phala.ledger("prepare", subject.cvm))
    assert wait_for(lambda: len(site.world.phala.ledger("prepare", subject.cvm)) == prepares + 1, LONG)
    stack.execute(stack.sign(subject.request_id))

    _assert_once(stack, subject)


@pytest.mark.fault(
    "workers",
    "A worker freezes past its lease, and its proposal arrives when another worker has posted it",
    "the same transaction twice is one transaction",
    "15 s, the lease",
)
def test_a_proposal_that_arrives_late_is_the_one_that_is_there(
    site: Site, stack: Stack, board: Board, subject: Subject
):
    with held(site, board, subject, "safe_service", "POST /api/v2/safes") as call:
        subject.submit(compose("late proposal"))
        call.wait()
        stack.wait_for(subject.request_id, "proposed", seconds=LONG)
    stack.execute(stack.sign(subject.request_id))

    _assert_once(stack, subject)


@pytest.mark.fault(
    "workers",
    "A worker freezes past its lease, and its commit arrives when another worker has committed",
    "Phala Cloud refuses the spent token (466); the frozen worker writes nothing",
    "15 s, the lease",
)
def test_a_commit_that_arrives_late_is_refused(site: Site, stack: Stack, board: Board, subject: Subject):
    with held(site, board, subject, "phala", "POST /api/v1/cvms/{}/commit-update") as call:
        subject.submit(compose("late commit"))
        stack.approve(subject.request_id)
        call.wait()
        stack.wait_for(subject.request_id, "completed", seconds=LONG)
    assert wait_for(lambda: _refused(site, subject), LONG), "the late commit never arrived"

    _assert_once(stack, subject)


@pytest.mark.fault(
    "workers",
    "A worker freezes past its lease, and its commit arrives just before that of the worker that took over",
    "the second is refused, finds the operation of the first, and adopts it",
    "15 s, the lease",
)
def test_a_commit_that_arrives_just_before_another_is_adopted(site: Site, stack: Stack, board: Board, subject: Subject):
    commit = "POST /api/v1/cvms/{}/commit-update"
    with (
        held(site, board, subject, "phala", commit) as first,
        held(site, board, subject, "phala", commit) as second,
    ):
        subject.submit(compose("two commits"))
        stack.approve(subject.request_id)
        first.wait()
        second.wait()
        first.let_go()
        assert wait_for(lambda: bool(stack.accepted_commits(subject.cvm)), LONG)

    _assert_once(stack, subject)


@pytest.mark.fault(
    "workers",
    "A worker freezes past its lease, and its deletion arrives when the same approval was proposed again",
    "what was deleted by mistake is seen to be missing and posted again",
    "the next look at the queue, and 15 s, the lease",
)
def test_a_deletion_that_arrives_late_takes_out_nothing_for_good(
    site: Site, stack: Stack, board: Board, subject: Subject
):
    subject.submit(compose("late deletion"))
    stack.wait_for(subject.request_id, "proposed")
    with held(site, board, subject, "safe_service", "DELETE") as call:
        subject.states()
        stack.client.post(f"/v1/change-requests/{subject.request_id}/cancel").raise_for_status()
        call.wait()
        assert wait_for(lambda: subject.open_ends() == 0, LONG), "the other worker did not withdraw it"
        stack.wait_for(subject.request_id, "cancelled", seconds=LONG)
        again = Subject(site, subject.app)
        again.submit(compose("late deletion"))
        stack.wait_for(again.request_id, "proposed", seconds=LONG)
        deleted = _deletions(site)
    try:
        assert wait_for(lambda: _deletions(site) > deleted, LONG), "the late deletion never arrived"
        assert wait_for(lambda: _queued(site, again), LONG), "what it deleted was not posted again"
        stack.execute(stack.sign(again.request_id))
        stack.wait_for(again.request_id, "completed", seconds=LONG)
        assert len(stack.accepted_commits(again.cvm)) == 1
    finally:
        again.close()


def _refused(site: Site, subject: Subject) -> bool:
    return any(not one["accepted"] for one in site.world.phala.ledger("commit", subject.cvm))


def _deletions(site: Site) -> int:
    """How many were asked for so far."""
    with Control(site.world.safe_service_url) as control:
        routes = control.ledger()["requests"]
    return sum(count for route, count in routes.items() if route.startswith("DELETE /api/v2/multisig-transactions"))


def _queued(site: Site, subject: Subject) -> bool:
    return any(one.tx.to == subject.app.address for one in site.world.wallet.pending(subject.app.owner, 0))
