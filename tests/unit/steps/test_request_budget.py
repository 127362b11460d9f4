"""A month of simulated time: what open proposals cost the quota of the Safe Transaction Service."""

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.domain.schedules import SafePace
from service.domain.snapshots import Proposal, ProposalState
from service.steps.post import post
from service.steps.preflight import SOME_HASH, app_of, preflight
from service.steps.signatures import signatures
from service.steps.withdraw import withdraw
from tests.support.builders import APP, proposal, workspace
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock, RecordingProposalIntents
from tests.support.stored_proposals import stored

QUOTA = 5000
MONTH = timedelta(days=30)


class Month:
    """Proposals that are made in the first hour, get a few signatures, and are withdrawn at the end."""

    def __init__(self, chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner, count: int) -> None:
        self.chain = chain
        self.queue = queue
        self.signer = signer
        self.clock = FixedClock()
        self._world: dict[str, Any] = {"chain": chain, "queue": queue, "clock": self.clock}
        self.pace = SafePace(60.0, count, QUOTA)
        self.proposals = [proposal(id=f"prop_{n}", compose_hash=f"0x{n + 1:064x}") for n in range(count)]

    def run(self) -> int:
        begin = self.clock.now()
        due = {
            index: begin + timedelta(seconds=360 * index / len(self.proposals)) for index in range(len(self.proposals))
        }
        signings = self._signings(begin)
        while True:
            index = min(due, key=lambda each: due[each])
            if due[index] >= begin + MONTH:
                break
            self.clock.advance(seconds=max(0.0, (due[index] - self.clock.now()).total_seconds()))
            while signings and signings[0][0] <= self.clock.now():
                self._sign(*signings.pop(0)[1:])
            due[index] = self._serve(index)
        for index in range(len(self.proposals)):
            self._withdraw(index)
        return len(self.queue.calls)

    def _signings(self, begin: datetime) -> list[tuple[datetime, int, int]]:
        """Three owners of each sign on different days."""
        days = (0.2, 2.0, 9.0)
        return sorted(
            (begin + timedelta(days=day + 0.3 * index / len(self.proposals)), index, owner)
            for index in range(len(self.proposals))
            for owner, day in enumerate(days)
        )

    def _sign(self, index: int, owner: int) -> None:
        transaction = self.proposals[index].transaction
        assert transaction is not None
        key = FakeSigner(11 + owner)
        self.queue.confirm(transaction.safe_tx_hash, key.address, key.sign(transaction.safe_tx_hash))

    def _serve(self, index: int) -> datetime:
        before = self.proposals[index]
        if before.state is ProposalState.POSTING:
            self._preflight(before)
            intents = RecordingProposalIntents(before)
            outcome = post(before, signer=self.signer, intents=intents, origin="Countersign", **self._world)
            self.proposals[index] = stored(before, outcome, intents.transaction)
        else:
            outcome = signatures(before, proposer=self.signer.address, pace=self.pace, **self._world)
            self.proposals[index] = stored(before, outcome)
        assert self.proposals[index].state is ProposalState.QUEUED
        # Looks in between ask the chain only, and cost nothing.
        return outcome.queue_due_at or self.clock.now()

    def _preflight(self, each: Proposal) -> None:
        """As often as a change request asks: before its prepare, and before it joins."""
        head = self.chain.view().head
        for compose_hash in (SOME_HASH, each.compose_hash):
            preflight(
                workspace(),
                APP,
                app_of(APP, self.chain, head),
                compose_hash,
                (),
                chain=self.chain,
                queue=self.queue,
                proposer=self.signer.address,
                at=head,
            )

    def _withdraw(self, index: int) -> None:
        each = replace(self.proposals[index], state=ProposalState.WITHDRAWING, members=())
        outcome = withdraw(
            each,
            chain=self.chain,
            queue=self.queue,
            signer=self.signer,
            intents=RecordingProposalIntents(each),
            origin="Countersign",
        )
        assert outcome.state is ProposalState.WITHDRAWN


@pytest.mark.parametrize("count", [10, 100])
def test_open_proposals_stay_within_the_quota(
    chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner, count: int
) -> None:
    spent = Month(chain, queue, signer, count).run()

    assert spent <= QUOTA, Counter(queue.calls)
    assert spent > QUOTA / 3, "the quota is there to be used"
