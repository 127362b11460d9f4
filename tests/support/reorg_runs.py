"""Tells a story to the real adapter, the real store and the real steps, and checks what must hold in every story."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from sandbox.chain.safes import SafeTx
from service.adapters.chain import JsonRpcChain
from service.domain.finality import Confirmations
from service.domain.phala_facts import Prepared
from service.domain.reasons import Reason
from service.domain.snapshots import LIVE_PROPOSAL, ProposalState
from service.domain.states import LIVE, State
from service.ports import QueuedTransaction
from service.store import observations
from service.store.columns import Base
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.store.tables import ChainFact, ChangeRequest, Proposal
from service.wiring import Timings, WorkerParts
from tests.support import rows
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.reorg_chain import BranchingChain, DeedCall, InterruptingTransport, Log
from tests.support.reorg_stories import Branch, Content, Deed, Meanwhile, Observe, Serve, Story
from workers import serve

_COMMITTING = [state.value for state in LIVE - {State.COMMITTED}]
_LIVE_PROPOSALS = [state.value for state in LIVE_PROPOSAL]


@dataclass
class Counts:
    """What happened in the stories told so far."""

    schedules: int = 0
    reorgs: int = 0
    facts_orphaned: int = 0
    undone: int = 0
    commits: int = 0
    withdrawn: int = 0
    never_allowed: int = 0


class ChainedQueue(FakeSafeQueue):
    """A Transaction Service that has indexed the chain as it is at the moment it is asked."""

    def __init__(self, truth: BranchingChain, owners: Sequence[str], signer: FakeSigner) -> None:
        super().__init__(owners, {signer.address: frozenset(owners)})
        self._truth = truth
        truth.heard = self._hear

    def _hear(self, safe: str, tx: SafeTx, tx_hash: str) -> None:
        self._safes[tx_hash] = safe
        data = "0x" + tx.data.hex()
        row = QueuedTransaction(tx_hash, tx.nonce, tx.to, data, False, None, None, ())
        self.rows.setdefault(tx_hash, row)

    def _of(self, safe: str) -> list[QueuedTransaction]:
        return [self._indexed(row) for row in super()._of(safe)]

    def get(self, safe_tx_hash: str) -> QueuedTransaction | None:
        row = super().get(safe_tx_hash)
        return None if row is None else self._indexed(row)

    def _indexed(self, row: QueuedTransaction) -> QueuedTransaction:
        executed = self._truth.execution(self._safes[row.safe_tx_hash], row.safe_tx_hash)
        done = executed is not None
        return replace(row, is_executed=done, is_successful=done or None, transaction_hash=executed)


class WitnessingPhala(FakePhala):
    """One CVM that is prepared; asks the node itself at the moment of a commit."""

    def __init__(self, clock: FixedClock, number: int, app: str, salt: str, witness: Callable[[str], None]) -> None:
        super().__init__(clock)
        self._witness = witness
        self._minted = 1000 * number
        self.hash_salt = salt
        self.info = replace(self.info, vm_uuid=f"00000000-0000-4000-8000-{number:012}", app_contract=app)

    def commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        self._witness(transaction_hash)
        return super().commit(vm_uuid, token, compose_hash, transaction_hash)


@dataclass
class Schedule:
    """One change request with an approval of its own."""

    request_id: str
    phala: WitnessingPhala
    call: DeedCall
    logs_seen: list[Log] = field(default_factory=list)


class Run:
    """One story under way."""

    def __init__(
        self, story: Story, database: Database, truth: BranchingChain, transport: InterruptingTransport
    ) -> None:
        self._story = story
        self._database = database
        self._truth = truth
        self._clock = FixedClock()
        self._chain = JsonRpcChain(rows.CHAIN_ID, [truth.rpc_url], Confirmations(story.finality), transport=transport)
        transport.before = self._before_exchange
        self._coming: tuple[int, Branch] | None = None
        self._broken: Exception | None = None
        workspace = self._workspace()
        self._schedules = [self._schedule(workspace, index) for index in range(len(story.by_safe))]
        self._parts = self._worker()

    def _worker(self) -> WorkerParts:
        signer = FakeSigner()
        queue = ChainedQueue(self._truth, [party.account.address for party in self._truth.parties], signer)
        links: dict[str, Any] = {
            "chains": {rows.CHAIN_ID: self._chain},
            "queues": {rows.CHAIN_ID: queue},
            "phala": _Accounts(self._schedules),
            "poster": None,
        }
        timings = Timings(observe=5, safe_poll=60, recheck=600, track=5)
        keeper = LeaseKeeper(self._database)
        return WorkerParts(self._database, self._clock, keeper, signer=signer, timings=timings, **links)

    def _workspace(self) -> str:
        return rows.workspace(
            self._database,
            safes=[(rows.CHAIN_ID, party.safe) for party in self._truth.parties],
            external_apps=[(rows.CHAIN_ID, party.own_app) for party in self._truth.parties],
        )

    def _schedule(self, workspace: str, index: int) -> Schedule:
        """A request that waits for an account, or one whose proposal is still to be made."""
        party, by_safe = self._truth.parties[index], self._story.by_safe[index]
        app = party.safe_app if by_safe else party.own_app
        salt = f"{self._story.seed}/{index}"
        phala = WitnessingPhala(self._clock, index, app, salt, lambda transaction: self._witness(index, transaction))
        prepared = phala.prepare(phala.info.vm_uuid, rows.PATCH)
        assert isinstance(prepared, Prepared)
        columns: dict[str, Any] = {"app_contract": app, "compose_hash": prepared.compose_hash}
        proposal_id = None
        if not by_safe:
            proposal_id = rows.proposal(self._database, workspace, ProposalState.EXTERNAL, **columns)
        request_id = rows.change_request(
            self._database,
            workspace,
            State.PREPARED if by_safe else State.PROPOSED,
            vm_uuid=phala.info.vm_uuid,
            prepared_at=rows.NOW,
            proposal_id=proposal_id,
            due_at=func.now() if by_safe else func.now() + text("interval '600 seconds'"),
            **columns,
        )
        sealed = self._database.sealer.seal(prepared.commit_token, purpose="commit_token", row_id=request_id)
        with self._database.transaction() as session:
            session.get_one(ChangeRequest, request_id).commit_token_sealed = sealed
        return Schedule(request_id, phala, DeedCall(app, party.safe if by_safe else None, prepared.compose_hash))

    # The story

    def tell(self) -> None:
        """Everything that happens in it, then quiet until nothing moves any more."""
        observations.ensure_chains(self._database, [rows.CHAIN_ID])
        self._serve(0)
        for move in self._story.moves:
            match move:
                case Branch():
                    self._come()
                    self._switch(move)
                case Meanwhile():
                    self._come()
                    self._coming = move.exchanges, move.branch
                case Observe():
                    self._observe()
                case Serve():
                    self._serve(move.seconds)
        self._come()
        self._quiet()
        # What was found in the newest state only counts from its block on: let that become final, too.
        self._switch(Branch(0, (Content(()),) * self._story.finality))
        self._quiet()
        if self._broken is not None:
            raise self._broken

    def _quiet(self) -> None:
        """Until every ring is answered and every back-off over."""
        for _ in range(3):
            self._observe()
            self._serve(60)

    def _switch(self, branch: Branch) -> None:
        self._truth.drop(branch.dropped)
        for content in branch.blocks:
            if not branch.at_once and self._coming is None:
                self._observe()
                self._serve(0)
            self._truth.mine(content, self._call_of)

    def _call_of(self, deed: Deed) -> DeedCall:
        return self._schedules[deed.schedule].call

    def _before_exchange(self) -> None:
        if self._coming is not None:
            left, branch = self._coming
            self._coming = (left - 1, branch) if left else None
            if not left:
                try:
                    self._at_once(branch)
                except Exception as error:
                    self._keep(error)
                    raise

    def _keep(self, error: Exception) -> None:
        """What is raised inside a step, which takes it for a defect of its own and goes on, is raised at the end."""
        self._broken = self._broken or error

    def _come(self) -> None:
        """What did not come in the middle of a look comes after it."""
        if self._coming is not None:
            _, branch = self._coming
            self._coming = None
            self._at_once(branch)

    def _at_once(self, branch: Branch) -> None:
        self._switch(replace(branch, at_once=True))

    # The service

    def _observe(self) -> None:
        observations.ring_chain(self._database, rows.CHAIN_ID)
        serve.serve_chain(self._parts, rows.CHAIN_ID)

    def _serve(self, seconds: int) -> None:
        """Let time go by, then serve what is due, as the sweep would have it served."""
        self._clock.advance(seconds=seconds)
        if seconds:
            shift = text(f"interval '{seconds} seconds'")
            with self._database.transaction() as session:
                session.execute(update(ChangeRequest).values(due_at=ChangeRequest.due_at - shift))
                session.execute(update(Proposal).values(due_at=Proposal.due_at - shift))
        for request_id in self._due(ChangeRequest, _COMMITTING):
            serve.serve_request(self._parts, request_id)
        proposals = self._due(Proposal, _LIVE_PROPOSALS)
        for proposal_id in proposals:
            serve.serve_proposal(self._parts, proposal_id)
        for request_id in self._due(ChangeRequest, _COMMITTING) if proposals else ():
            serve.serve_request(self._parts, request_id)

    def _due(self, table: type[ChangeRequest | Proposal], states: list[str]) -> list[str]:
        due = select(table.id).where(table.state.in_(states), table.due_at <= func.clock_timestamp())
        with self._database.transaction() as session:
            return list(session.scalars(due.order_by(table.id)))

    # What must hold

    def _witness(self, index: int, transaction_hash: str) -> None:
        try:
            self._judge(index, transaction_hash)
        except AssertionError as wrong:
            self._keep(wrong)
            raise

    def _judge(self, index: int, transaction_hash: str) -> None:
        """A commit is about to be taken: is it one that the chain allows at this moment?"""
        schedule = self._schedules[index]
        call, truth = schedule.call, self._truth
        head = truth.head
        final = head - self._story.finality
        assert truth.allows(call.app, call.compose_hash, final), "committed though not allowed at the final block"
        assert truth.allows(call.app, call.compose_hash, head), "committed though not allowed at the head"
        row = rows.read(self._database, ChangeRequest, schedule.request_id)
        assert row.evidence_block_number <= final, "committed on a block that is not final"
        assert truth.block_hash(row.evidence_block_number) == row.evidence_block_hash, "committed on a dropped block"
        if transaction_hash != "already-registered":
            logs = truth.logs(call.app, call.compose_hash)
            added = [log for log in logs if log.added and log.transaction_hash == transaction_hash]
            assert added, "committed with a transaction that is not on the chain"
            assert added[0].block_number <= final, "committed with a transaction that is not final"

    def check(self, counts: Counts) -> None:
        """The end of the story is the one that the chain demands."""
        for schedule in self._schedules:
            self._check_schedule(schedule, counts)
        counts.schedules += len(self._schedules)
        counts.reorgs += self._story.reorgs

    def _check_schedule(self, schedule: Schedule, counts: Counts) -> None:
        row = rows.read(self._database, ChangeRequest, schedule.request_id)
        logs = self._truth.logs(schedule.call.app, schedule.call.compose_hash)
        commits = len(schedule.phala.commits)
        removed = any(not log.added for log in logs)
        match row.state:
            case State.COMMITTED:
                assert commits == 1
            case State.FAILED:
                assert row.reason in (Reason.APPROVAL_WITHDRAWN, Reason.PROPOSAL_REFUSED), (row.reason, row.detail)
                assert removed, "failed for a removal that is not on the chain"
                assert commits == 0
                counts.withdrawn += 1
            case State.PROPOSED:
                assert not (logs and logs[-1].added), "an approval was missed"
                assert commits == 0
                counts.never_allowed += 1
            case other:
                raise AssertionError(f"ended in {other}: {row.reason} {row.detail}, {logs}")
        counts.commits += commits
        self._check_events(schedule, counts)
        self._check_facts(schedule, logs, counts)

    def _check_events(self, schedule: Schedule, counts: Counts) -> None:
        events = rows.events(self._database, schedule.request_id)
        assert [event.seq for event in events] == list(range(1, len(events) + 1)), "a gap in the events"
        names = [event.type.removeprefix("change_request.") for event in events]
        states = [name for name in names if name in set(State)]
        undone = list(itertools.pairwise(states)).count(("executed", "prepared"))
        assert names.count("reorged") == undone, f"reorged without being undone, or the other way round: {names}"
        counts.undone += undone

    def _check_facts(self, schedule: Schedule, logs: list[Log], counts: Counts) -> None:
        of_hash = (ChainFact.app_contract == schedule.call.app, ChainFact.value == schedule.call.compose_hash)
        with self._database.transaction() as session:
            facts = list(session.scalars(select(ChainFact).where(*of_hash)))
            request = session.get_one(ChangeRequest, schedule.request_id)
        canonical = {(log.transaction_hash, log.block_hash) for log in logs}
        standing = {(f.transaction_hash, f.block_hash) for f in facts if f.orphaned_at is None}
        orphaned = {(f.transaction_hash, f.block_hash) for f in facts if f.orphaned_at is not None}
        assert standing <= canonical, "a fact stands on a dropped block"
        if request.state == State.PROPOSED:
            # Nobody looks any more at what comes after a request's end, nor at blocks that return then.
            assert not orphaned & canonical, "a fact is orphaned though its block is canonical"
            assert standing == canonical, "a log was never read"
        counts.facts_orphaned += len(orphaned)

    def close(self) -> None:
        """Leave database and chain as they were."""
        with self._database.transaction() as session:
            session.execute(text("SET LOCAL countersign.retention = 'on'"))
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
        self._truth.reset()


class _Accounts:
    """Phala Cloud with all CVMs of a story, for whatever workspace."""

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self._by_vm_uuid = {schedule.phala.info.vm_uuid: schedule.phala for schedule in schedules}

    def of(self, workspace_id: str) -> "_Accounts":
        assert workspace_id
        return self

    def commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        return self._by_vm_uuid[vm_uuid].commit(vm_uuid, token, compose_hash, transaction_hash)
