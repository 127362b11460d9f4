"""Who else is in the queue, and what is missing below ours."""

from functools import partial

import pytest

from service.domain.alerts import AlertCode
from service.domain.calls import approval_call, rejection_call
from service.domain.errors import Nonsense, Refused
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.snapshots import Proposal, ProposalState, SafeTransaction, SafeTransactionState
from tests.support.builders import APP, NOW, OTHER_HASH, SAFE, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner

Look = partial[ProposalOutcome]


def queued(nonce: int = 0, **overrides: object) -> Proposal:
    ours = safe_transaction(nonce=nonce, state=SafeTransactionState.QUEUED)
    return proposal(ProposalState.QUEUED, **{"transaction": ours, "news_at": NOW, **overrides})


def other(nonce: int) -> SafeTransaction:
    return safe_transaction(nonce=nonce, call=approval_call(APP, OTHER_HASH, ()))


def at(queue: FakeSafeQueue, nonce: int) -> Proposal:
    """Ours is queued at another nonce than 0."""
    queue.rows.clear()
    queue.add(safe_transaction(nonce=nonce))
    return queued(nonce)


class TestOthers:
    def test_another_transaction_at_our_nonce_is_told_once(self, look: Look, queue: FakeSafeQueue) -> None:
        queue.add(other(0))

        told = look(queued())

        assert told.state is ProposalState.QUEUED
        assert [alert.code for alert in told.alerts] == [AlertCode.OTHER_AT_NONCE]
        assert other(0).safe_tx_hash in told.alerts[0].message
        assert told.detail == told.alerts[0].message
        assert look(queued(alerts=told.alerts)).alerts == ()

    def test_a_rejection_is_called_one(self, look: Look, queue: FakeSafeQueue) -> None:
        queue.add(safe_transaction(call=rejection_call(SAFE)))

        assert [alert.code for alert in look(queued()).alerts] == [AlertCode.REJECTION_QUEUED]


class TestVanished:
    def test_it_is_posted_again_and_told(self, look: Look, queue: FakeSafeQueue) -> None:
        queue.rows.clear()

        told = look(queued())

        assert (told.state, told.wait_seconds) == (ProposalState.POSTING, 0.0)
        assert told.transaction_state is SafeTransactionState.INTENDED
        assert [alert.code for alert in told.alerts] == [AlertCode.TRANSACTION_VANISHED]

    def test_one_that_the_service_calls_executed_is_waited_for(self, look: Look, queue: FakeSafeQueue) -> None:
        """After a reorg it says so until its next check."""
        queue.execute(safe_transaction().safe_tx_hash, OTHER_HASH)

        told = look(queued())

        assert (told.state, told.transaction_state) == (ProposalState.QUEUED, None)
        assert "the chain does not" in (told.detail or "")


class TestHoles:
    def test_the_highest_unsigned_one_moves_into_the_hole(self, look: Look, queue: FakeSafeQueue) -> None:
        waiting = at(queue, 2)
        queue.add(other(1))

        told = look(waiting)

        assert (told.state, told.wait_seconds) == (ProposalState.POSTING, 0.0)
        assert told.transaction_state is SafeTransactionState.DELETED
        assert [row.nonce for row in queue.rows.values()] == [1]

    def test_a_deletion_whose_answer_is_lost_is_found_done(self, look: Look, queue: FakeSafeQueue) -> None:
        waiting = at(queue, 1)
        lost = Nonsense("cut off", reason=Reason.SAFE_SERVICE_UNREACHABLE)
        queue.fail("delete", lost, after_effect=True)

        assert look(waiting).failed_attempt is True
        told = look(waiting)

        assert told.state is ProposalState.POSTING
        assert queue.rows == {}

    @pytest.mark.parametrize("held", [frozenset({0}), frozenset({0, 5})])
    def test_what_another_proposal_is_about_to_queue_is_no_hole(
        self, look: Look, queue: FakeSafeQueue, held: frozenset[int]
    ) -> None:
        at(queue, 1)

        assert look(queued(1, held_nonces=held)).state is ProposalState.QUEUED

    @pytest.mark.parametrize("executed", [True, False])
    def test_what_the_service_knows_at_a_nonce_is_no_hole(
        self, look: Look, queue: FakeSafeQueue, executed: bool
    ) -> None:
        """The node is behind the service, or the service behind a reorg."""
        waiting = at(queue, 1)
        queue.add(other(0))
        if executed:
            queue.execute(other(0).safe_tx_hash, OTHER_HASH)

        assert (look(waiting).state, look(waiting).alerts) == (ProposalState.QUEUED, ())

    def test_a_signed_one_stays_and_the_missing_nonce_is_told_once(
        self, look: Look, queue: FakeSafeQueue, owners: tuple[FakeSigner, ...]
    ) -> None:
        waiting = at(queue, 1)
        ours = safe_transaction(nonce=1).safe_tx_hash
        queue.confirm(ours, owners[0].address, owners[0].sign(ours))

        told = look(waiting)

        assert told.state is ProposalState.QUEUED
        assert [alert.code for alert in told.alerts] == [AlertCode.NONCE_MISSING]
        assert "nonce 0" in told.alerts[0].message
        queue.calls.clear()
        again = look(queued(1, alerts=told.alerts))
        assert (again.alerts, again.detail) == ((), told.detail)
        assert "at_nonce" not in queue.calls

    def test_one_approved_on_chain_stays(
        self, look: Look, chain: FakeChain, queue: FakeSafeQueue, owners: tuple[FakeSigner, ...]
    ) -> None:
        waiting = at(queue, 1)
        chain.approve_hash(owners[0].address, safe_transaction(nonce=1).safe_tx_hash)

        assert [alert.code for alert in look(waiting).alerts] == [AlertCode.NONCE_MISSING]

    def test_one_below_another_stays(self, look: Look, queue: FakeSafeQueue) -> None:
        """Moving it would only move the hole."""
        waiting = at(queue, 1)
        queue.add(other(2))

        assert [alert.code for alert in look(waiting).alerts] == [AlertCode.NONCE_MISSING]

    def test_one_that_cannot_be_deleted_stays(self, look: Look, queue: FakeSafeQueue) -> None:
        waiting = at(queue, 1)
        queue.fail("delete", Refused("not the proposer"))

        told = look(waiting)

        assert told.state is ProposalState.QUEUED
        assert [alert.code for alert in told.alerts] == [AlertCode.NONCE_MISSING]
