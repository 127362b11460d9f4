"""The outside world of the model: Phala Cloud with several CVMs, the Safe's queue, the chain, a webhook receiver.

Each keeps a ledger of what it accepted, against which the store is judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import SecretStr

from service.domain.chain import FactKind, SafeState
from service.domain.errors import Busy, NotFound, NotVisibleYet, TokenDead, Unreachable
from service.domain.phala_facts import AppliedAtOnce, Cvm, Operation, OperationStatus, Prepared, Running
from service.domain.reasons import Reason
from service.ports import Answer, QueuedTransaction
from service.store.inbound import Told
from tests.support.builders import APP, DEVICE, SAFE
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.heard import told_of
from tests.support.model.interrupts import Interrupted, Interrupts

OWNERS = [FakeSigner(seed) for seed in (11, 12, 13)]
SIGNER = FakeSigner()
NEW_DEVICE = "0x" + "d1" * 32
DEVICES = (DEVICE, DEVICE, NEW_DEVICE)
"""Of the three CVMs; the last one's is not on the allowlist at first."""
TOKEN_PREFIX = "00000000-0000-4000-8000-"
"""How every token of the fake begins; nothing else looks like that."""


class ModelChain(Interrupted, FakeChain):
    """A chain whose Safe owns the app."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        super().__init__()
        owners = tuple(owner.address for owner in OWNERS)
        self.safes[SAFE] = SafeState(SAFE, "1.4.1", owners, 2, 0)
        self.mine((FactKind.DEVICE_ADDED, DEVICE), empty=self.depth)

    def allows(self, compose_hash: str, device_id: str, *, final: bool = False) -> bool:
        """Whether both are allowed at the head, or at the final block."""
        at = self._blocks[-1 - (self.depth if final else 0)].block
        return self._allowed(APP, compose_hash, device_id, at).both

    def was_allowed(self, compose_hash: str, device_id: str) -> bool:
        """Whether both were allowed at some block that is final now."""
        final = self._blocks[: len(self._blocks) - self.depth]
        return any(self._allowed(APP, compose_hash, device_id, mined.block).both for mined in final)

    def nonce(self) -> int:
        """The Safe's, at the head."""
        return max((mined.nonces[SAFE] for mined in self._blocks if SAFE in mined.nonces), default=0)

    def executed(self) -> dict[str, str]:
        """Transactions that the Safe executed in blocks that stand, with their Ethereum transaction."""
        return {one.safe_tx_hash: one.transaction_hash for mined in self._blocks for one in mined.executions}


class ModelQueue(Interrupted, FakeSafeQueue):
    """A Transaction Service that has indexed the chain as it is at the moment it is asked."""

    def __init__(self, interrupts: Interrupts, chain: ModelChain) -> None:
        self.interrupts = interrupts
        owners = [owner.address for owner in OWNERS]
        super().__init__(owners, {SIGNER.address: frozenset(owners)})
        self._chain = chain

    def _of(self, safe: str) -> list[QueuedTransaction]:
        executed = self._chain.executed()
        return [self._indexed(row, executed) for row in super()._of(safe)]

    def get(self, safe: str, safe_tx_hash: str) -> QueuedTransaction | None:
        row = super().get(safe, safe_tx_hash)
        return None if row is None else self._indexed(row, self._chain.executed())

    def _indexed(self, row: QueuedTransaction, executed: Mapping[str, str]) -> QueuedTransaction:
        done = row.safe_tx_hash in executed
        return replace(
            row, is_executed=done, is_successful=done or None, transaction_hash=executed.get(row.safe_tx_hash)
        )

    def waiting(self) -> list[QueuedTransaction]:
        """What can still be executed, lowest nonce first."""
        pending = [row for row in self._of(SAFE) if not row.is_executed and row.nonce >= self._chain.nonce()]
        return sorted(pending, key=lambda row: (row.nonce, row.safe_tx_hash))


@dataclass(frozen=True)
class Accepted:
    """A commit that Phala Cloud took. ``approved``: whether hash and device had been allowed at a final block."""

    vm_uuid: str
    token: SecretStr
    compose_hash: str
    by_service: bool
    approved: bool


class ModelCvm(Interrupted, FakePhala):
    """One CVM. As at the real one: busy while an operation runs, and a hash that runs already is applied at once."""

    def __init__(self, interrupts: Interrupts, clock: FixedClock, chain: ModelChain, number: int) -> None:
        self.interrupts = interrupts
        super().__init__(clock)
        self._chain = chain
        self._minted = 1000 * number
        self.number = number
        self.lags = False
        """Its node has not seen any approval yet."""
        self.told: list[Told] = []
        self.accepted: list[Accepted] = []
        self.applied_again: set[str] = set()
        """Correlation ids of prepares that applied what ran already, by workers who could have seen that it did."""
        uuid = f"0b2ff3a6-6a5c-4f0e-9d5c-{number:012d}"
        self.info = replace(self.info, vm_uuid=uuid, name=f"cvm-{number}", device_id=DEVICES[number])
        self.by_service = True

    @property
    def busy(self) -> bool:
        return bool(self.history) and self.history[-1].status is OperationStatus.IN_PROGRESS

    def _prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        if self.busy:
            raise Busy("409")
        self.unchanged = self.hash_of(patch) == self.info.compose_hash
        answer = super()._prepare(vm_uuid, patch)
        if isinstance(answer, Prepared):
            self._tell(answer)
        elif not self.interrupts.froze:
            self.applied_again.add(answer.correlation_id)
        return answer

    def _tell(self, answer: Prepared) -> None:
        event_id = f"evt_{answer.commit_token.get_secret_value().removeprefix(TOKEN_PREFIX)}"
        self.told.append(told_of(answer, event_id, self.info.vm_uuid, name=self.info.name, at=self.clock.now()))

    def _commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        held = self._tokens.get(token.get_secret_value())
        if held is not None and held.compose_hash == compose_hash and held.expires_at > self.clock.now():
            if self.busy:
                raise Busy("409")
            device = self.info.device_id or DEVICE
            if self.lags or not self._chain.allows(compose_hash, device):
                raise NotVisibleYet("465")
            approved = self._chain.was_allowed(compose_hash, device)
            self.accepted.append(Accepted(vm_uuid, token, compose_hash, self.by_service, approved))
        return super()._commit(vm_uuid, token, compose_hash, transaction_hash)

    def link_clicked(self) -> bool:
        """A person uses the newest commit link; whether it was taken."""
        for token, held in tuple(self._tokens.items()):
            self.by_service = False
            try:
                self._commit(self.info.vm_uuid, SecretStr(token), held.compose_hash, "already-registered")
            except (Busy, NotVisibleYet, TokenDead):
                return False
            finally:
                self.by_service = True
            return True
        return False

    def finish(self, status: OperationStatus, error: str | None = None) -> None:
        super().finish(status, error)
        brought = self.history[-1].compose_hash
        if status is OperationStatus.COMPLETED and brought is not None:
            self.info = replace(self.info, compose_hash=brought)


class ModelPhala:
    """The account of the workspace: every CVM, by whatever it is called."""

    def __init__(self, cvms: Sequence[ModelCvm]) -> None:
        self.cvms = cvms

    def of(self, workspace_id: str) -> "ModelPhala":
        assert workspace_id
        return self

    def _one(self, cvm_id: str) -> ModelCvm:
        for cvm in self.cvms:
            if cvm_id in (cvm.info.name, cvm.info.vm_uuid):
                return cvm
        raise NotFound(f"no CVM {cvm_id}")

    def cvm(self, cvm_id: str) -> Cvm:
        return self._one(cvm_id).cvm(cvm_id)

    def prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        return self._one(vm_uuid).prepare(vm_uuid, patch)

    def commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        return self._one(vm_uuid).commit(vm_uuid, token, compose_hash, transaction_hash)

    def operations(self, vm_uuid: str, since: datetime) -> Sequence[Operation]:
        return self._one(vm_uuid).operations(vm_uuid, since)

    def running(self, vm_uuid: str) -> Running:
        return self._one(vm_uuid).running(vm_uuid)


class ModelReceiver(Interrupted):
    """The one webhook endpoint of the workspace."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        super().__init__()
        self.received: list[str] = []
        """Ids of the events that were taken, as often as they came."""
        self.status = 204

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert url.startswith("https://")
        assert body

        def effect() -> Answer:
            if self.status == 204:
                self.received.append(headers["webhook-id"])
            return Answer(self.status, "", None)

        return self._call("post", effect)


def lost(reason: Reason) -> Unreachable:
    """No answer came; whether the call took effect is not known."""
    return Unreachable("cut off", reason=reason, outcome_unknown=True)
