from datetime import timedelta
from functools import partial

import pytest

from service.domain.alerts import Alert, AlertCode
from service.domain.calls import approval_call
from service.domain.chain import FactKind
from service.domain.errors import Unreachable
from service.domain.outcomes import ProposalOutcome
from service.domain.reasons import Reason
from service.domain.schedules import SafePace
from service.domain.signatures import SignatureKind
from service.domain.snapshots import Proposal, ProposalState, SafeSeen, SafeTransactionState
from tests.support.builders import APP, COMPOSE_HASH, NOW, OTHER_HASH, SAFE, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock

OURS = safe_transaction(state=SafeTransactionState.QUEUED, threshold=2)
Owners = tuple[FakeSigner, FakeSigner, FakeSigner]
CONTRACT = "0x" + "00" * 64 + "00" + "00" * 31 + "01" + "ab"
DOWN = Unreachable("HTTP 503", reason=Reason.SAFE_SERVICE_UNREACHABLE)


def queued(**overrides: object) -> Proposal:
    return proposal(ProposalState.QUEUED, **{"transaction": OURS, "news_at": NOW, **overrides})


def sign(queue: FakeSafeQueue, owner: FakeSigner, signature: str | None = None) -> None:
    queue.confirm(OURS.safe_tx_hash, owner.address, signature or owner.sign(OURS.safe_tx_hash))


class TestConfirmations:
    def test_none_yet(self, look: partial[ProposalOutcome], chain: FakeChain, owners: Owners) -> None:
        addresses = tuple(owner.address for owner in owners)

        assert look(queued()) == ProposalOutcome(
            ProposalState.QUEUED,
            60.0,
            signatures={},
            contract_signatures=(),
            threshold=2,
            scan_from=chain.view().final.number + 1,
            safe_seen=SafeSeen(addresses, 2, None, ()),
            news_at=NOW,
            queue_due_at=NOW + timedelta(seconds=60),
            delegate_checked_at=NOW,
        )

    def test_owners_are_counted_in_the_order_of_the_safe(
        self, look: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners
    ) -> None:
        for owner in (owners[2], owners[0]):
            sign(queue, owner)

        told = look(queued())

        assert list(told.signatures or ()) == [owners[0].address, owners[2].address]

    @pytest.mark.fault(
        "Safe Transaction Service",
        "It shows a signature that is not the owner's",
        "not counted; one alert",
        "the same look",
    )
    def test_a_signature_that_is_not_the_owners_alerts_once(
        self, look: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners, signer: FakeSigner
    ) -> None:
        sign(queue, owners[0], owners[0].sign(OTHER_HASH))
        sign(queue, owners[1], signer.sign(OURS.safe_tx_hash))
        sign(queue, owners[2], owners[2].sign(OURS.safe_tx_hash))

        told = look(queued())

        assert told.signatures == {owners[2].address: SignatureKind.EIP712}
        assert [alert.code for alert in told.alerts] == [AlertCode.WRONG_SIGNATURE] * 2
        assert [owner.address in alert.message for owner, alert in zip(owners, told.alerts, strict=False)] == [True] * 2
        assert look(queued(alerts=told.alerts)).alerts == ()

    def test_who_is_no_owner_does_not_count(
        self, look: partial[ProposalOutcome], queue: FakeSafeQueue, signer: FakeSigner
    ) -> None:
        sign(queue, signer)

        assert look(queued()).signatures == {}

    def test_contract_signatures_are_told_and_not_counted(
        self, look: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners
    ) -> None:
        sign(queue, owners[1], CONTRACT)

        told = look(queued())

        assert (told.signatures, told.contract_signatures, told.alerts) == ({}, (owners[1].address,), ())
        assert told.detail is not None
        assert owners[1].address in told.detail

    def test_an_approved_hash_counts_only_if_the_chain_says_so(
        self, look: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue, owners: Owners
    ) -> None:
        sign(queue, owners[0], "0x" + owners[0].address[2:].zfill(64) + "00" * 32 + "01")

        assert (look(queued()).signatures, look(queued()).alerts) == ({}, ())
        chain.approve_hash(owners[0].address, OURS.safe_tx_hash)
        assert look(queued()).signatures == {owners[0].address: SignatureKind.APPROVED_HASH}
        chain.reorg(1)
        assert look(queued()).signatures == {}


class TestWithoutTheQueue:
    def test_who_approves_on_chain_is_seen_and_the_fault_is_told(
        self, look: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue, owners: Owners
    ) -> None:
        queue.fail("pending", DOWN)
        for owner in owners[:2]:
            chain.approve_hash(owner.address, OURS.safe_tx_hash)
        signed = {owners[2].address: SignatureKind.ETH_SIGN}
        known = safe_transaction(
            state=SafeTransactionState.QUEUED, threshold=2, confirmations=tuple(signed), signature_kinds=signed
        )

        told = look(queued(transaction=known, attempts=3))

        assert told.signatures == {owner.address: SignatureKind.APPROVED_HASH for owner in owners[:2]} | signed
        assert (told.detail, told.failed_attempt) == ("HTTP 503", True)
        assert told.queue_due_at == NOW + timedelta(seconds=10)

    def test_it_is_asked_when_it_wants_to_be_asked(
        self, look: partial[ProposalOutcome], queue: FakeSafeQueue, chain: FakeChain, clock: FixedClock, owners: Owners
    ) -> None:
        queue.fail("pending", Unreachable("HTTP 429", reason=Reason.SAFE_SERVICE_UNREACHABLE, retry_after=7200))
        told = look(queued())
        assert told.queue_due_at == NOW + timedelta(hours=2)
        waiting = queued(queue_due_at=told.queue_due_at, attempts=1, detail=told.detail)
        queue.calls.clear()
        chain.approve_hash(owners[0].address, OURS.safe_tx_hash)

        later = look(waiting)

        assert queue.calls == []
        assert (later.queue_due_at, later.detail, later.failed_attempt) == (told.queue_due_at, "HTTP 429", None)
        clock.advance(hours=2)
        assert look(waiting).failed_attempt is False

    def test_an_owner_who_is_gone_does_not_count(
        self, look: partial[ProposalOutcome], chain: FakeChain, owners: Owners
    ) -> None:
        signed = {owner.address: SignatureKind.EIP712 for owner in owners}
        known = safe_transaction(state=SafeTransactionState.QUEUED, confirmations=tuple(signed), signature_kinds=signed)
        chain.set_safe(owners=(owners[0].address,), threshold=1)

        told = look(queued(transaction=known, queue_due_at=NOW + timedelta(hours=1)))

        assert told.signatures == {owners[0].address: SignatureKind.EIP712}


class TestTheDelegate:
    def test_one_that_is_none_any_more_alerts(
        self, look: partial[ProposalOutcome], queue: FakeSafeQueue, clock: FixedClock, owners: Owners
    ) -> None:
        seen = SafeSeen(tuple(owner.address for owner in owners), 2, None, ())
        checked = queued(delegate_checked_at=NOW, safe_seen=seen)
        queue.delegates.clear()
        assert (look(checked).alerts, look(checked).delegate_checked_at) == ((), None)
        clock.advance(days=1)

        told = look(checked)

        assert [alert.code for alert in told.alerts] == [AlertCode.PROPOSER_NOT_DELEGATE]
        assert told.delegate_checked_at == clock.now()

    def test_it_is_asked_for_at_once_when_owners_changed(
        self, look: partial[ProposalOutcome], queue: FakeSafeQueue, owners: Owners
    ) -> None:
        queue.delegates.clear()
        before = SafeSeen(tuple(owner.address for owner in owners[:2]), 2, None, ())

        told = look(queued(delegate_checked_at=NOW, safe_seen=before))

        assert [alert.code for alert in told.alerts] == [AlertCode.OWNERS_CHANGED, AlertCode.PROPOSER_NOT_DELEGATE]


class TestPace:
    PACE = SafePace(60.0, open_proposals=10, requests_per_month=5000)

    def test_the_queue_is_asked_less_and_less(self, look: partial[ProposalOutcome], clock: FixedClock) -> None:
        waits = []
        for age in (0, 1800, 5 * 3600, 20 * 3600, 5 * 86400):
            told = look(queued(news_at=clock.now() - timedelta(seconds=age)), pace=self.PACE)
            assert told.queue_due_at is not None
            waits.append((told.wait_seconds, (told.queue_due_at - clock.now()).total_seconds()))
        assert waits == [(60, 60), (60, 300), (120, 900), (120, 3600), (300, 4 * 3600)]

    def test_news_makes_it_quick_again(
        self, look: partial[ProposalOutcome], chain: FakeChain, clock: FixedClock, owners: Owners
    ) -> None:
        old = queued(news_at=clock.now() - timedelta(days=5), queue_due_at=clock.now() + timedelta(hours=3))
        quiet = look(old, pace=self.PACE)
        assert (quiet.queue_due_at, quiet.news_at) == (old.queue_due_at, old.news_at)
        chain.approve_hash(owners[0].address, OURS.safe_tx_hash)

        told = look(old, pace=self.PACE)

        assert (told.news_at, told.queue_due_at) == (clock.now(), clock.now() + timedelta(seconds=60))


class TestExecuted:
    DONE = safe_transaction(state=SafeTransactionState.EXECUTED)

    def test_the_queue_is_not_asked_any_more(
        self, look: partial[ProposalOutcome], chain: FakeChain, queue: FakeSafeQueue
    ) -> None:
        chain.mine(nonce=1, empty=chain.depth)
        chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))

        assert look(queued(transaction=self.DONE)) == ProposalOutcome(ProposalState.QUEUED, 60.0)
        assert queue.calls == []

    def test_a_node_that_is_behind_proves_nothing(self, look: partial[ProposalOutcome]) -> None:
        assert look(queued(transaction=self.DONE)) == ProposalOutcome(ProposalState.QUEUED, 60.0)

    def test_what_was_taken_away_again_fails(self, look: partial[ProposalOutcome], chain: FakeChain) -> None:
        chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH), nonce=OURS.nonce + 1)
        chain.mine((FactKind.HASH_REMOVED, COMPOSE_HASH))
        assert look(queued(transaction=self.DONE)).state is ProposalState.QUEUED

        chain.mine(empty=chain.depth)

        detail = "the Safe executed it at nonce 0, and what it allowed was taken away again"
        assert look(queued(transaction=self.DONE)) == ProposalOutcome(ProposalState.FAILED, None, detail)


def test_without_members_it_is_withdrawn(look: partial[ProposalOutcome]) -> None:
    assert look(queued(members=())) == ProposalOutcome(ProposalState.WITHDRAWING, 0.0)


@pytest.mark.parametrize("state", [None, SafeTransactionState.REPLACED, SafeTransactionState.DELETED])
def test_without_a_live_transaction_it_is_posted(
    look: partial[ProposalOutcome], state: SafeTransactionState | None
) -> None:
    transaction = None if state is None else safe_transaction(state=state)

    assert look(queued(transaction=transaction)) == ProposalOutcome(ProposalState.POSTING, 0.0)


@pytest.mark.parametrize(
    "forged",
    [
        {"call": approval_call(APP, OTHER_HASH, ())},
        {"call": approval_call("0x" + "77" * 20, COMPOSE_HASH, ())},
        {"safe": "0x" + "66" * 20},
        {"safe_tx_hash": OTHER_HASH},
    ],
)
def test_a_stored_transaction_that_is_not_the_proposals_fails(
    look: partial[ProposalOutcome], queue: FakeSafeQueue, forged: dict[str, object]
) -> None:
    assert look(queued(transaction=safe_transaction(**forged))).state is ProposalState.FAILED  # type: ignore[arg-type]
    assert queue.calls == []


def test_a_safe_that_is_gone_fails(look: partial[ProposalOutcome], chain: FakeChain) -> None:
    chain.safes.clear()

    outcome = look(queued())

    assert outcome.state is ProposalState.FAILED
    assert SAFE in (outcome.detail or "")


def test_no_more_alerts_are_kept_than_there_is_room_for(look: partial[ProposalOutcome], queue: FakeSafeQueue) -> None:
    many = tuple(Alert(AlertCode.OTHER_AT_NONCE, str(number)) for number in range(100))
    queue.add(safe_transaction(call=approval_call(APP, OTHER_HASH, ())))

    assert look(queued(alerts=many)).alerts == ()
