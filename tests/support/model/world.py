"""One workspace with three CVMs of an app, its workers, and everybody around them who does what they like."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import select

from service.domain.audit import Chains
from service.domain.calls import SafeCall, approval_call, rejection_call
from service.domain.chain import FactKind
from service.domain.conflicts import OnConflict
from service.domain.errors import CountersignError, LeaseLost
from service.domain.gates import NEEDS_A_PERSON, CommitPolicy
from service.domain.phala_facts import AppliedAtOnce, OperationStatus
from service.ports import QueuedTransaction
from service.store import freezes, inbound, observations, outbox, refreshing, requests, wishes
from service.store.columns import Base, one_of
from service.store.database import Database, Prepared
from service.store.leases import LeaseKeeper
from service.store.requests import PreparedUpdate, Submission
from service.store.tables import Proposal, SafeTransaction
from service.wiring import Timings, WorkerParts
from tests.support import rows
from tests.support.builders import CHAIN_ID, SAFE, safe_transaction
from tests.support.fakes import FixedClock
from tests.support.model.interrupts import Fate, Interrupts, WorkerDied, WorkersClock
from tests.support.model.outside import OWNERS, SIGNER, ModelChain, ModelCvm, ModelPhala, ModelQueue, ModelReceiver
from workers import serve

PATCHES: Final = tuple({"docker_compose_file": f"services:\n  web:\n    image: nginx:{n}\n"} for n in (1, 2))
LEASED: Final = ("change_requests", "proposals", "chain_cursors", "webhook_endpoints")
SECRET: Final = "whsec_" + "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="
LONGER_THAN_A_LEASE: Final = 16
NEVER: Final = 1e12

Refusals = (
    requests.CvmHeld,
    requests.TokenAlreadySubmitted,
    wishes.AlreadyEnded,
    wishes.CommitStarted,
    refreshing.AnotherUpdate,
    refreshing.NoPatch,
    refreshing.NothingPrepared,
)


class World:
    """The store is real, and so are the steps; time passes when it is told to.

    ``transitions`` counts what reached the store: each submission, wish, heard prepare and webhook batch, and each
    lease with its step and its outcome.
    """

    def __init__(self, database: Database, *, hears: bool) -> None:
        self.database = database
        self.hears = hears
        self.clock = FixedClock()
        self.interrupts = Interrupts()
        self.transitions = 0
        self.chains = Chains()
        self.followed = 0
        """Position of the newest event that was followed in its chain."""
        self.chain = ModelChain(self.interrupts)
        self.queue = ModelQueue(self.interrupts, self.chain)
        self.cvms = [ModelCvm(self.interrupts, self.clock, self.chain, number) for number in range(3)]
        self.receiver = ModelReceiver(self.interrupts)
        self.removed: set[str] = set()
        self.begun: list[str] = []
        """Requests whose commit had begun when commits were frozen the last time."""
        self.cancelled: set[str] = set()
        """Requests whose cancel was accepted."""
        self.workspace = rows.workspace(database, webhooks=[("https://receiver.example/hook", SecretStr(SECRET))])
        observations.ensure_chains(database, [CHAIN_ID])
        self.parts = self._worker()

    def _worker(self) -> WorkerParts:
        outside: dict[str, Any] = {
            "clock": WorkersClock(self.interrupts, self.clock),
            "chains": {CHAIN_ID: self.chain},
            "queues": {CHAIN_ID: self.queue},
            "phala": ModelPhala(self.cvms),
            "poster": self.receiver,
        }
        timings = Timings(observe=5, safe_poll=60, recheck=600, track=5, webhook_disable=NEVER)
        return WorkerParts(
            self.database, keeper=LeaseKeeper(self.database), signer=SIGNER, timings=timings, **outside
        )  # fmt: skip

    def move_to(self, database: Database) -> None:
        """Workers and API go on with another database; the outside stays as it is."""
        self.database = database
        self.parts = self._worker()

    def close(self) -> None:
        """Leave the database empty."""
        with self.database.engine.begin() as connection:
            emptied = "; ".join(str(table.delete()) for table in reversed(Base.metadata.sorted_tables))
            connection.exec_driver_sql(f"SET LOCAL countersign.retention = 'on'; {emptied}")

    # the API

    def submit(
        self,
        cvm: int,
        patch: Mapping[str, Any] | None,
        prepared: PreparedUpdate | None,
        days: int,
        on_conflict: OnConflict = OnConflict.REFUSE,
        *,
        held: bool = False,
        later: float | None = None,
    ) -> None:
        """Submit a change request, which is ``held`` until somebody releases it, or so many seconds."""
        not_before = None if later is None else self.clock.now() + timedelta(seconds=later)
        submission = Submission(
            workspace_id=self.workspace,
            cvm_id=self.cvms[cvm].info.vm_uuid,
            patch=None if patch is None else dict(patch),
            prepared=prepared,
            title=None,
            allow_without_approval=False,
            warnings=(),
            deadline_seconds=days * 86400,
            on_conflict=on_conflict,
            commit_policy=CommitPolicy.HOLD if held else None,
            not_before=not_before,
        )
        self._ask(lambda: requests.submit(self.database, submission, self.clock.now(), rows.ACTOR))

    def cancel(self, request_id: str) -> None:
        now = self.clock.now()
        if self._ask(lambda: wishes.wish_cancel(self.database, self.workspace, request_id, now, rows.ACTOR)):
            self.cancelled.add(request_id)

    def release(self, request_id: str) -> None:
        self._ask(lambda: wishes.release(self.database, self.workspace, request_id, self.clock.now(), rows.ACTOR))

    def freeze(self) -> None:
        """No commit may begin from now on."""
        self.transitions += 1
        freezes.freeze(self.database, self.workspace, "a reason", self.clock.now(), rows.ACTOR)
        self.begun = self._ids(_BEGUN)

    def unfreeze(self) -> None:
        self.transitions += 1
        freezes.unfreeze(self.database, self.workspace, rows.ACTOR)

    def held(self) -> list[str]:
        """Change requests whose commits wait for a person."""
        return self._ids(_HELD)

    def refresh(self, request_id: str) -> None:
        now = self.clock.now()
        self._ask(lambda: refreshing.wish_refresh(self.database, self.workspace, request_id, now, rows.ACTOR))

    def hand_in(self, request_id: str, prepared: PreparedUpdate) -> None:
        now = self.clock.now()
        self._ask(
            lambda: refreshing.hand_in(self.database, self.workspace, request_id, prepared, None, now, rows.ACTOR)
        )  # fmt: skip

    def _ask(self, call: Callable[[], object]) -> bool:
        """Ask the API; whether it said yes."""
        self.transitions += 1
        try:
            call()
        except Refusals:
            return False
        return True

    # Phala Cloud

    def prepare_elsewhere(self, cvm: int, patch: Mapping[str, Any]) -> PreparedUpdate | None:
        """Somebody prepares; ``None`` when Phala Cloud says no, or applies it at once."""
        try:
            answer = self.cvms[cvm]._prepare(self.cvms[cvm].info.vm_uuid, patch)
        except CountersignError:
            return None
        if isinstance(answer, AppliedAtOnce):
            return None
        assert answer.chain_id is not None
        return PreparedUpdate(
            answer.chain_id, answer.app_contract, answer.device_id, answer.compose_hash, answer.commit_token
        )

    def hear(self, cvm: int, newest: int) -> None:
        """A webhook arrives: the newest but so many, perhaps again."""
        told = self.cvms[cvm].told
        if self.hears and newest < len(told):
            self.transitions += 1
            inbound.hear(self.database, self.workspace, told[-1 - newest], self.clock.now())

    def finish(self, cvm: int, status: OperationStatus) -> None:
        if self.cvms[cvm].busy:
            self.cvms[cvm].finish(status)

    # the owners

    def sign(self, which: int, owner: int) -> None:
        waiting = self.queue.waiting()
        if waiting:
            row, signer = waiting[which % len(waiting)], OWNERS[owner]
            if signer.address not in [address for address, _ in row.confirmations]:
                self.queue.confirm(row.safe_tx_hash, signer.address, signer.sign(row.safe_tx_hash))

    def execute(self, which: int) -> None:
        """One of what waits at the Safe's nonce."""
        now = [row for row in self.queue.waiting() if row.nonce == self.chain.nonce()]
        if now:
            row = now[which % len(now)]
            self.chain.execute(row.safe_tx_hash, row.nonce, *self._logs_of(row))

    def _logs_of(self, row: QueuedTransaction) -> Sequence[tuple[FactKind, str]]:
        """What the calls of one of our approvals write."""
        query = (
            select(Proposal)
            .join(SafeTransaction, SafeTransaction.proposal_id == Proposal.id)
            .where(SafeTransaction.safe_tx_hash == row.safe_tx_hash, SafeTransaction.kind == "approval")
        )
        with self.database.reads() as session:
            proposal = session.scalars(query).first()
        if proposal is None:
            return ()
        call = approval_call(proposal.app_contract, proposal.compose_hash, tuple(proposal.devices))
        assert (call.to, call.data) == (row.to, row.data), "what is executed is what was proposed"
        devices = [(FactKind.DEVICE_ADDED, device) for device in proposal.devices]
        return [*devices, (FactKind.HASH_ADDED, proposal.compose_hash)]

    def propose_rejection(self, which: int) -> None:
        waiting = self.queue.waiting()
        if waiting:
            self.queue.add(safe_transaction(nonce=waiting[which % len(waiting)].nonce, call=rejection_call(SAFE)))

    def use_nonce(self) -> None:
        """Another transaction takes the Safe's nonce, without the queue."""
        nonce = self.chain.nonce()
        self.chain.execute(f"0x{nonce:064x}", nonce)

    def propose_other(self, above: int) -> None:
        nonce = self.chain.nonce() + above
        call = SafeCall("0x" + "66" * 20, f"0x{nonce:08x}", 0)
        self.queue.add(safe_transaction(nonce=nonce, call=call))

    def delete(self, which: int) -> None:
        waiting = self.queue.waiting()
        if waiting:
            self.queue.lose(waiting[which % len(waiting)].safe_tx_hash)

    def allow_elsewhere(self, compose_hash: str, device_id: str) -> None:
        """By another route: a batch of another interface, say."""
        self.chain.mine((FactKind.DEVICE_ADDED, device_id), (FactKind.HASH_ADDED, compose_hash))

    def remove(self, compose_hash: str) -> None:
        self.removed.add(compose_hash)
        self.chain.mine((FactKind.HASH_REMOVED, compose_hash))

    # time and workers

    def let_pass(self, seconds: float) -> None:
        """Time, for workers and for the database."""
        if seconds:
            self.transitions += 1
            self.clock.advance(seconds=seconds)
            self.database.execute(_LATER, {"seconds": float(seconds)})

    def live(self) -> list[str]:
        """Live change requests, oldest first."""
        return self._ids(_LIVE)

    def due_requests(self) -> list[str]:
        return self._ids(_DUE_REQUESTS)

    def due_proposals(self) -> list[str]:
        return self._ids(_DUE_PROPOSALS)

    def _ids(self, query: Prepared) -> list[str]:
        return [str(row[0]) for row in self.database.execute(query, {})]

    def sweep(self) -> None:
        """Every row that is due is served once."""
        for request_id in self.due_requests():
            self.serve_request(request_id)
        for proposal_id in self.due_proposals():
            self.serve_proposal(proposal_id)

    def serve(self, row_id: str) -> None:
        """A change request or a proposal."""
        (self.serve_request if row_id.startswith("cr_") else self.serve_proposal)(row_id)

    def serve_request(self, request_id: str) -> None:
        self._serve(lambda: serve.serve_request(self.parts, request_id))

    def serve_proposal(self, proposal_id: str) -> None:
        self._serve(lambda: serve.serve_proposal(self.parts, proposal_id))

    def observe(self) -> None:
        """A block, and a look at the chain."""
        self.chain.mine()
        observations.ring_chain(self.database, CHAIN_ID)
        self._serve(lambda: serve.serve_chain(self.parts, CHAIN_ID))

    def deliver(self) -> None:
        for endpoint_id in outbox.ring_due(self.database, 10):
            self._serve(lambda one=endpoint_id: serve.serve_endpoint(self.parts, one))  # type: ignore[misc]

    def _serve(self, one_step: Callable[[], object]) -> None:
        self.transitions += 1
        outer, self.interrupts.froze = self.interrupts.froze, False
        with contextlib.suppress(LeaseLost, WorkerDied):
            one_step()
        self.interrupts.disarm()
        self.interrupts.froze = outer

    def interrupted(self, fate: Fate, at: int | str, meanwhile: Callable[[], None], *, after: bool) -> None:
        """Have the worker of the next step die at a call, or freeze past its lease while other things happen."""

        def frozen() -> None:
            self.let_pass(LONGER_THAN_A_LEASE)
            meanwhile()

        self.interrupts.arm(fate, at, frozen, after=after)


_IS_DUE: Final = "due_at <= clock_timestamp() AND (lease_until IS NULL OR lease_until < clock_timestamp())"
_BORN: Final = "FROM change_requests r JOIN events e ON e.change_request_id = r.id AND e.seq = 1"
_LIVE: Final = Prepared(f"SELECT r.id {_BORN} WHERE due_at IS NOT NULL ORDER BY e.position", {})
_BEGUN: Final = Prepared("SELECT id FROM change_requests WHERE commit_attempted_at IS NOT NULL", {})
_HELD: Final = Prepared(
    f"SELECT r.id {_BORN} WHERE {one_of('r.reason', NEEDS_A_PERSON)} AND due_at IS NOT NULL ORDER BY e.position", {}
)
_DUE_REQUESTS: Final = Prepared(f"SELECT r.id {_BORN} WHERE {_IS_DUE} ORDER BY e.position", {})
_DUE_PROPOSALS: Final = Prepared(f"SELECT id FROM proposals WHERE {_IS_DUE} ORDER BY created_at", {})  # noqa: S608 - our own names


_SECONDS: Final = "make_interval(secs => %(seconds)s)"


def _earlier(table: str, *timers: str) -> str:
    moved = ", ".join(f"{name} = {name} - {_SECONDS}" for name in timers)
    return f"of_{table} AS (UPDATE {table} SET {moved} WHERE due_at IS NOT NULL)"  # noqa: S608 - likewise


_TIMERS: Final = [_earlier(table, "due_at", "lease_until", "rung_at") for table in LEASED]
_LATER: Final = Prepared(f"WITH {', '.join([*_TIMERS, _earlier('webhook_deliveries', 'due_at')])} SELECT 1", {})
