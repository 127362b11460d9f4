"""Phala Cloud in memory."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr

from service.domain.errors import NotFound, TokenDead
from service.domain.patch import moves_hash
from service.domain.phala_facts import (
    AppliedAtOnce,
    Cvm,
    Hook,
    HookDelivery,
    Operation,
    OperationStatus,
    PendingUpdate,
    Prepared,
    Running,
)
from service.domain.recovery import PENDING_APPROVAL
from tests.support.builders import APP, CHAIN_ID, DEVICE, VM_UUID
from tests.support.fakes import Faulty, FixedClock


@dataclass
class _Token:
    patch: Mapping[str, Any]
    compose_hash: str
    expires_at: datetime


class FakePhala(Faulty):
    """One CVM at Phala Cloud: one live token, operations that finish when told to."""

    def __init__(self, clock: FixedClock) -> None:
        super().__init__()
        self.clock = clock
        self.info = Cvm(
            vm_uuid=VM_UUID,
            name="my-app",
            app_contract=APP,
            chain_id=CHAIN_ID,
            device_id=DEVICE,
            compose_hash="0x" + "11" * 32,
            status="running",
        )
        self.hash_salt = ""
        """A server-side change of injected fields: the same patch gives another hash."""
        self.unchanged = False
        """Every patch holds what runs already, so that no hash moves."""
        self.confusion: dict[str, Any] = {}
        """Members of a prepared answer that are wrong."""
        self.runs = Running(
            attested_hash=self.info.compose_hash, reported_hash=self.info.compose_hash, status="running"
        )
        self.history: list[Operation] = []
        self.commits: list[tuple[str, str, str]] = []
        self.hooks: list[Hook] = []
        self.sent: dict[str, list[HookDelivery]] = {}
        """What was sent to each webhook, newest first."""
        self.delivers = True
        """Whether receivers answer; else Phala Cloud has given up at once."""
        self._tokens: dict[str, _Token] = {}
        self._minted = 0

    def cvm(self, cvm_id: str) -> Cvm:
        def effect() -> Cvm:
            if cvm_id not in (self.info.name, self.info.vm_uuid):
                raise NotFound(f"no CVM {cvm_id}")
            return self.info

        return self._call("cvm", effect)

    def hash_of(self, patch: Mapping[str, Any]) -> str:
        text = json.dumps([self.hash_salt, dict(patch)], sort_keys=True)
        return "0x" + hashlib.sha256(text.encode()).hexdigest()

    def prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        return self._call("prepare", lambda: self._prepare(vm_uuid, patch))

    def _prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        self._check(vm_uuid)
        if self.info.app_contract is None or self.unchanged or not moves_hash(patch):
            return AppliedAtOnce(self._start(None))
        self._minted += 1
        token = f"00000000-0000-4000-8000-{self._minted:012d}"
        compose_hash = self.hash_of(patch)
        self._tokens = {token: _Token(patch, compose_hash, self.clock.now() + timedelta(days=14))}
        for hook in self.hooks:
            if hook.enabled and PENDING_APPROVAL in hook.events:
                self.send(hook.id)
        answer = Prepared(
            compose_hash=compose_hash,
            app_contract=self.info.app_contract,
            device_id=self.info.device_id or DEVICE,
            chain_id=self.info.chain_id,
            commit_token=SecretStr(token),
        )
        return replace(answer, **self.confusion)

    def commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        return self._call("commit", lambda: self._commit(vm_uuid, token, compose_hash, transaction_hash))

    def _commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        self._check(vm_uuid)
        held = self._tokens.get(token.get_secret_value())
        if held is None or held.expires_at <= self.clock.now() or held.compose_hash != compose_hash:
            raise TokenDead("the commit token is invalid or expired")
        del self._tokens[token.get_secret_value()]
        self.commits.append((token.get_secret_value(), compose_hash, transaction_hash))
        return self._start(compose_hash)

    def operations(self, vm_uuid: str, since: datetime) -> Sequence[Operation]:
        def effect() -> Sequence[Operation]:
            self._check(vm_uuid)
            return [operation for operation in reversed(self.history) if operation.started_at >= since]

        return self._call("operations", effect)

    def running(self, vm_uuid: str) -> Running:
        def effect() -> Running:
            self._check(vm_uuid)
            return self.runs

        return self._call("running", effect)

    def webhooks(self) -> Sequence[Hook]:
        return self._call("webhooks", lambda: list(self.hooks))

    def hook_deliveries(self, hook_id: str, since: datetime) -> Sequence[HookDelivery]:
        return self._call(
            "hook_deliveries", lambda: [one for one in self.sent.get(hook_id, []) if one.created_at >= since]
        )

    def resend(self, hook_id: str, event_id: str) -> None:
        def effect() -> None:
            known = {one.event_id: one for one in self.sent.get(hook_id, [])}
            if event_id not in known:
                raise NotFound(f"no delivery {event_id}")
            self.send(hook_id, known[event_id].original_id)

        self._call("resend", effect)

    def pending_updates(self, app_contract: str) -> Sequence[PendingUpdate]:
        def effect() -> Sequence[PendingUpdate]:
            live = {token.compose_hash for token in self._tokens.values() if token.expires_at > self.clock.now()}
            mine = app_contract == self.info.app_contract
            return [PendingUpdate(self.info.vm_uuid, one) for one in sorted(live - {self.info.compose_hash}) if mine]

        return self._call("pending_updates", effect)

    def send(self, hook_id: str, original_id: str | None = None, event_type: str = PENDING_APPROVAL) -> str:
        """Send an event, or one again; its id."""
        sent = self.sent.setdefault(hook_id, [])
        event_id = f"evt_{hook_id}_{len(sent) + 1}"
        outcome = {"delivered": self.delivers, "failed": not self.delivers}
        sent.insert(
            0, HookDelivery(event_id, original_id or event_id, event_type, created_at=self.clock.now(), **outcome)
        )
        return event_id

    def finish(self, status: OperationStatus, error: str | None = None) -> None:
        """End the newest operation; a completed one makes the CVM run its hash."""
        newest = replace(self.history[-1], status=status, error=error)
        self.history[-1] = newest
        if status is OperationStatus.COMPLETED and newest.compose_hash is not None:
            self.runs = Running(newest.compose_hash, newest.compose_hash, "running")

    def _start(self, compose_hash: str | None) -> str:
        correlation_id = f"op-{len(self.history) + 1}"
        started = self.clock.now()
        self.history.append(Operation(correlation_id, OperationStatus.IN_PROGRESS, started, compose_hash, None))
        return correlation_id

    def _check(self, vm_uuid: str) -> None:
        if vm_uuid != self.info.vm_uuid:
            raise NotFound(f"no CVM {vm_uuid}")


class FakeAccounts:
    """Every workspace has the same account."""

    def __init__(self, phala: FakePhala) -> None:
        self._phala = phala

    def of(self, workspace_id: str) -> FakePhala:
        assert workspace_id
        return self._phala
