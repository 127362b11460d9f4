from functools import partial
from typing import Any

import pytest

from service.domain.alerts import Alert, AlertCode
from service.domain.chain import Block, ChainFact, FactKind
from service.domain.errors import StateUnavailable, Unreachable
from service.domain.outcomes import Advance, Notice, Outcome, Wait
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, ProposalState, SafeTransactionState
from service.domain.states import State
from service.steps.await_approval import await_approval
from tests.support.builders import COMPOSE_HASH, DEVICE, NOW, change_request, proposal, safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fakes import FixedClock

ONE = f"0x{1:064x}"
RECHECK = 30.0
OWNERS = ("0x" + "01" * 20, "0x" + "02" * 20, "0x" + "03" * 20)
IDLE = Wait(RECHECK, Reason.WAITING_FOR_OWNERS)
NOT_FINAL = Wait(RECHECK, Reason.WAITING_FOR_FINALITY)


@pytest.fixture
def run(chains: dict[int, FakeChain], clock: FixedClock) -> partial[Outcome]:
    return partial(await_approval, chains=chains, clock=clock, recheck_seconds=RECHECK)


def proposed(state: ProposalState = ProposalState.QUEUED, signed: int = 0, **overrides: Any) -> ChangeRequest:
    transaction = safe_transaction(
        state=SafeTransactionState.QUEUED, confirmations=OWNERS[:signed], threshold=2 if signed else None
    )
    joined = proposal(state, transaction=transaction, detail="words")
    return change_request(State.PROPOSED, **{"proposal": joined, **overrides})


def approve(chain: FakeChain) -> tuple[Block, ChainFact]:
    block = chain.mine((FactKind.HASH_ADDED, COMPOSE_HASH))
    (fact,) = chain.facts(block.number, block.number)
    return block, fact


def executed(block: Block, *facts: ChainFact, **overrides: Any) -> ChangeRequest:
    columns = {
        "evidence_block_hash": block.hash,
        "evidence_block_number": block.number,
        "transaction_hash": facts[0].transaction_hash if facts else None,
        "facts": facts,
    }
    return change_request(State.EXECUTED, **{**columns, **overrides})


class TestProposed:
    def test_nothing_new(self, run: partial[Outcome]) -> None:
        assert run(proposed()) == IDLE

    def test_without_a_transaction_yet(self, run: partial[Outcome]) -> None:
        assert run(proposed(proposal=proposal(ProposalState.POSTING))) == IDLE

    def test_an_external_approval_is_waited_for_by_its_own_name(self, run: partial[Outcome]) -> None:
        waits = Wait(RECHECK, Reason.WAITING_FOR_EXTERNAL_APPROVAL)
        assert run(proposed(proposal=proposal(ProposalState.EXTERNAL))) == waits

    @pytest.mark.parametrize(
        ("columns", "state"),
        [({"cancel_requested_at": NOW}, State.CANCELLED), ({"deadline_at": NOW}, State.EXPIRED)],
    )
    def test_ends_come_first(
        self, run: partial[Outcome], chain: FakeChain, columns: dict[str, Any], state: State
    ) -> None:
        approve(chain)

        outcome = run(proposed(**columns))

        assert isinstance(outcome, Advance)
        assert outcome.to is state

    def test_a_token_that_ends_is_waited_over_with_a_patch(self, run: partial[Outcome]) -> None:
        assert run(proposed(token_expires_at=NOW)) == IDLE

    def test_a_token_that_ends_without_a_patch_expires(self, run: partial[Outcome]) -> None:
        outcome = run(proposed(token_expires_at=NOW, patch=None))

        assert isinstance(outcome, Advance)
        assert (outcome.to, outcome.reason) == (State.EXPIRED, Reason.TOKEN_EXPIRED)

    def test_the_approval_is_seen_by_its_fact(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)

        outcome = run(proposed(facts=(fact,)))

        assert outcome == Advance(
            State.EXECUTED,
            {
                "transaction_hash": fact.transaction_hash,
                "evidence_block_hash": block.hash,
                "evidence_block_number": block.number,
            },
        )

    def test_the_newest_of_several_registrations_counts(self, run: partial[Outcome], chain: FakeChain) -> None:
        _, first = approve(chain)
        chain.mine((FactKind.HASH_REMOVED, COMPOSE_HASH))
        _, second = approve(chain)

        outcome = run(proposed(facts=(first, second)))

        assert isinstance(outcome, Advance)
        assert outcome.facts["transaction_hash"] == second.transaction_hash

    def test_the_approval_is_seen_in_the_state_without_a_fact(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, _ = approve(chain)

        outcome = run(proposed())

        assert isinstance(outcome, Advance)
        assert outcome.to is State.EXECUTED
        assert outcome.facts["evidence_block_hash"] == block.hash
        assert outcome.facts["transaction_hash"] is None

    def test_the_approval_counts_by_any_route(self, run: partial[Outcome], chain: FakeChain) -> None:
        approve(chain)

        outcome = run(proposed(ProposalState.REJECTED))

        assert isinstance(outcome, Advance)
        assert outcome.to is State.EXECUTED

    def test_a_hash_without_its_device_is_no_approval(self, run: partial[Outcome], chain: FakeChain) -> None:
        chain.mine((FactKind.DEVICE_REMOVED, DEVICE))
        _, fact = approve(chain)

        assert run(proposed(facts=(fact,))) == IDLE

    def test_any_device_is_a_device(self, run: partial[Outcome], chain: FakeChain) -> None:
        chain.mine((FactKind.DEVICE_REMOVED, DEVICE), (FactKind.ANY_DEVICE_SET, "0x" + "0" * 63 + "1"))
        _, fact = approve(chain)

        outcome = run(proposed(facts=(fact,)))

        assert isinstance(outcome, Advance)
        assert outcome.to is State.EXECUTED

    def test_a_fact_of_a_vanished_block_is_no_approval(self, run: partial[Outcome], chain: FakeChain) -> None:
        _, fact = approve(chain)
        chain.reorg(1)

        assert run(proposed(facts=(fact,))) == Wait(5.0, Reason.WAITING_FOR_OWNERS)  # the block may come back unnoticed

        chain.mine(empty=chain.depth)
        assert run(proposed(facts=(fact,))) == IDLE

    def test_a_rejection_ends_it(self, run: partial[Outcome]) -> None:
        outcome = run(proposed(ProposalState.REJECTED))

        assert isinstance(outcome, Advance)
        assert (outcome.to, outcome.reason) == (State.REJECTED, Reason.REJECTED_BY_OWNERS)
        assert outcome.detail == "words"

    def test_a_failed_proposal_ends_it(self, run: partial[Outcome]) -> None:
        outcome = run(proposed(ProposalState.FAILED))

        assert isinstance(outcome, Advance)
        assert (outcome.to, outcome.reason, outcome.detail) == (State.FAILED, Reason.PROPOSAL_REFUSED, "words")

    def test_a_first_approval_is_told(self, run: partial[Outcome]) -> None:
        data = {"approvals": 1, "threshold": 2, "owners": [OWNERS[0]], "missing": []}

        assert run(proposed(signed=1)) == Wait(
            RECHECK,
            Reason.WAITING_FOR_OWNERS,
            facts={"approvals_seen": 1},
            notices=((Notice.APPROVAL_ADDED, data),),
        )

    def test_the_approval_that_reaches_the_threshold_is_told_once(self, run: partial[Outcome]) -> None:
        outcome = run(proposed(signed=2, approvals_seen=1))
        assert isinstance(outcome, Wait)
        assert [notice for notice, _ in outcome.notices] == [Notice.APPROVAL_ADDED, Notice.THRESHOLD_REACHED]

        outcome = run(proposed(signed=3, approvals_seen=2))
        assert isinstance(outcome, Wait)
        assert [notice for notice, _ in outcome.notices] == [Notice.APPROVAL_ADDED]

        assert run(proposed(signed=3, approvals_seen=3)) == IDLE

    def test_an_approval_taken_back_is_news_when_it_comes_again(self, run: partial[Outcome]) -> None:
        outcome = run(proposed(signed=1, approvals_seen=2))

        assert outcome == Wait(RECHECK, Reason.WAITING_FOR_OWNERS, facts={"approvals_seen": 1})

    def test_alerts_of_the_proposal_are_told_once(self, run: partial[Outcome]) -> None:
        alerts = tuple(Alert(AlertCode.OTHER_AT_NONCE, f"another transaction {number}") for number in range(3))
        joined = proposal(ProposalState.POSTING, alerts=alerts)

        outcome = run(proposed(proposal=joined, alerts_seen=1))

        assert isinstance(outcome, Wait)
        assert outcome.facts == {"alerts_seen": 3}
        assert [(notice, told["message"]) for notice, told in outcome.notices] == [
            (Notice.ALERT, "another transaction 1"),
            (Notice.ALERT, "another transaction 2"),
        ]
        assert outcome.notices[0][1].keys() == {"code", "message", "advice"}
        assert run(proposed(proposal=joined, alerts_seen=3)) == IDLE

    def test_a_node_without_the_block_of_the_approval_is_asked_again_soon(
        self, run: partial[Outcome], chain: FakeChain
    ) -> None:
        _, fact = approve(chain)
        chain.rewind(1)

        assert run(proposed(facts=(fact,))) == Wait(5.0, Reason.WAITING_FOR_OWNERS)

    def test_an_approval_taken_away_before_it_was_seen_ends_it(self, run: partial[Outcome], chain: FakeChain) -> None:
        _, added = approve(chain)
        removal = chain.mine((FactKind.HASH_REMOVED, COMPOSE_HASH))
        (removed,) = chain.facts(removal.number, removal.number)
        approved = proposed(ProposalState.APPROVED, facts=(added, removed))
        assert run(approved) == NOT_FINAL

        chain.mine(empty=chain.depth)

        outcome = run(approved)
        assert isinstance(outcome, Advance)
        assert (outcome.to, outcome.reason) == (State.FAILED, Reason.APPROVAL_WITHDRAWN)

    def test_an_approval_of_others_that_is_not_seen_yet_is_waited_for(self, run: partial[Outcome]) -> None:
        assert run(proposed(ProposalState.APPROVED)) == NOT_FINAL

    def test_a_chain_that_does_not_answer_is_left_to_the_runner(self, run: partial[Outcome], chain: FakeChain) -> None:
        chain.fail("view", Unreachable("timeout", reason=Reason.RPC_UNREACHABLE))

        with pytest.raises(Unreachable):
            run(proposed())


class TestExecuted:
    def test_not_final_yet(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)
        chain.mine(empty=chain.depth - 2)

        assert run(executed(block, fact)) == NOT_FINAL

    def test_final_and_allowed(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)
        chain.mine(empty=chain.depth - 1)

        assert run(executed(block, fact)) == Advance(State.REGISTERED)

    def test_cancel_is_still_possible(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)

        outcome = run(executed(block, fact, cancel_requested_at=NOW))

        assert isinstance(outcome, Advance)
        assert outcome.to is State.CANCELLED

    @pytest.mark.parametrize(
        "later",
        [(FactKind.DEVICE_ADDED, DEVICE), (FactKind.ANY_DEVICE_SET, ONE), (FactKind.HASH_ADDED, COMPOSE_HASH)],
    )
    def test_a_no_of_a_node_behind_a_later_addition_is_waited_out(
        self, run: partial[Outcome], chain: FakeChain, later: tuple[FactKind, str]
    ) -> None:
        """The evidence is final, what completed it is not, and the node that tells the head lacks that block."""
        block, added = approve(chain)
        taken = FactKind.HASH_REMOVED if later[0] is FactKind.HASH_ADDED else FactKind.DEVICE_REMOVED
        chain.mine((taken, later[1] if taken is FactKind.HASH_REMOVED else DEVICE), empty=chain.depth)
        completed = chain.mine(later)
        (fact,) = chain.facts(completed.number, completed.number)
        chain.lag = 1

        outcome = run(executed(block, added, facts=(added, fact)))

        assert isinstance(outcome, Wait)
        assert (outcome.reason, outcome.failed_attempt) == (Reason.WAITING_FOR_FINALITY, False)

        chain.reorg(1)
        chain.mine()
        outcome = run(executed(block, added, facts=(added, fact)))

        assert isinstance(outcome, Advance), "what completed it vanished"
        assert (outcome.to, outcome.reason) == (State.FAILED, Reason.APPROVAL_WITHDRAWN)

    @pytest.mark.parametrize("kind", [FactKind.HASH_REMOVED, FactKind.DEVICE_REMOVED])
    def test_a_later_removal_is_no_reason_to_wait(
        self, run: partial[Outcome], chain: FakeChain, kind: FactKind
    ) -> None:
        block, added = approve(chain)
        value = COMPOSE_HASH if kind is FactKind.HASH_REMOVED else DEVICE
        chain.mine((kind, value), empty=chain.depth)
        again = chain.mine((kind, value))
        (removed,) = chain.facts(again.number, again.number)

        outcome = run(executed(block, added, facts=(added, removed)))

        assert isinstance(outcome, Advance)
        assert (outcome.to, outcome.reason) == (State.FAILED, Reason.APPROVAL_WITHDRAWN)

    @pytest.mark.fault(
        "people",
        "Owners take the approval back before the commit",
        "`failed` with `approval_withdrawn`",
        "when that is final",
    )
    def test_an_approval_taken_away_fails(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)
        chain.mine((FactKind.HASH_REMOVED, COMPOSE_HASH), empty=chain.depth)

        outcome = run(executed(block, fact))

        assert isinstance(outcome, Advance)
        assert (outcome.to, outcome.reason) == (State.FAILED, Reason.APPROVAL_WITHDRAWN)

    def test_a_device_added_after_the_hash_becomes_final_first(self, run: partial[Outcome], chain: FakeChain) -> None:
        chain.mine((FactKind.DEVICE_REMOVED, DEVICE))
        block, fact = approve(chain)
        later = chain.mine((FactKind.DEVICE_ADDED, DEVICE), empty=chain.depth - 1)
        assert chain.view().final == block
        head = chain.view().head

        outcome = run(executed(block, fact))

        assert isinstance(outcome, Wait)
        assert outcome.reason is Reason.WAITING_FOR_FINALITY
        assert outcome.facts == {"evidence_block_hash": head.hash, "evidence_block_number": head.number}
        chain.mine(empty=chain.depth)
        assert run(executed(head, fact)) == Advance(State.REGISTERED)
        assert later.number > block.number

    def test_a_vanished_block_goes_back(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)
        chain.reorg(1)

        outcome = run(executed(block, fact))

        assert isinstance(outcome, Advance)
        assert outcome.to is State.PREPARED
        assert outcome.facts == {
            "transaction_hash": None,
            "evidence_block_hash": None,
            "evidence_block_number": None,
        }
        data = {
            "block_number": block.number,
            "block_hash": block.hash,
            "transaction_hash": fact.transaction_hash,
        }
        assert outcome.notices == ((Notice.REORGED, data),)

    def test_a_vanished_block_goes_back_at_finality_too(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)
        chain.reorg(1)
        chain.mine(empty=chain.depth)

        outcome = run(executed(block, fact))

        assert isinstance(outcome, Advance)
        assert outcome.to is State.PREPARED

    def test_a_transaction_mined_again_keeps_its_place(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)
        chain.reorg(1)
        again, new_fact = approve(chain)

        outcome = run(executed(block, fact, new_fact))

        assert isinstance(outcome, Wait)
        assert outcome.seconds == 0.0
        assert outcome.facts == {
            "transaction_hash": new_fact.transaction_hash,
            "evidence_block_hash": again.hash,
            "evidence_block_number": again.number,
        }

    def test_a_node_that_is_behind_proves_nothing(self, run: partial[Outcome], chain: FakeChain) -> None:
        block, fact = approve(chain)
        chain.rewind(1)

        assert run(executed(block, fact)) == NOT_FINAL

    @pytest.mark.fault(
        "chain",
        "A node has no state at the final block",
        "the request waits with `rpc_state_unavailable`",
        "1 to 60 s between tries",
    )
    def test_a_node_without_state_at_the_final_block_is_left_to_the_runner(
        self, run: partial[Outcome], chain: FakeChain
    ) -> None:
        block, fact = approve(chain)
        chain.mine(empty=chain.depth)
        chain.fail("allowed", StateUnavailable("missing trie node"))

        with pytest.raises(StateUnavailable):
            run(executed(block, fact))

    @pytest.mark.parametrize("missing", ["evidence_block_hash", "evidence_block_number"])
    def test_a_row_the_database_would_refuse_is_a_defect(self, run: partial[Outcome], missing: str) -> None:
        with pytest.raises(ValueError, match="without an evidence block"):
            run(executed(Block(1, "0x" + "0" * 64), **{missing: None}))
