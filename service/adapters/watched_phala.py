"""The ``Phala`` port with an eye on what Phala Cloud says about the workspace's key."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, Protocol

from pydantic import SecretStr

from service.domain.errors import CountersignError, Unauthorized, Unreachable
from service.domain.phala_facts import (
    AppliedAtOnce,
    Cvm,
    Hook,
    HookDelivery,
    Operation,
    PendingUpdate,
    Prepared,
    Running,
)
from service.domain.workspaces import PHALA_KEY_ITSELF, right_subject
from service.ports import Phala

_READ: Final = "read"
_UPDATE: Final = "update"


class Standing(Protocol):
    """Who is told."""

    def refused(self, subject: str, detail: str) -> None:
        """The key was refused, in general or for one CVM."""

    def accepted(self, subject: str) -> None:
        """It was not."""


class WatchedPhala:
    """Passes every call on, and tells what the answer says about the key. Silence says nothing."""

    def __init__(self, inner: Phala, standing: Standing) -> None:
        """Take the port to call and whom to tell."""
        self._inner = inner
        self._standing = standing

    def cvm(self, cvm_id: str) -> Cvm:
        """See the port."""
        with self._watched(_READ, cvm_id):
            return self._inner.cvm(cvm_id)

    def prepare(self, vm_uuid: str, patch: Mapping[str, Any]) -> Prepared | AppliedAtOnce:
        """See the port."""
        with self._watched(_UPDATE, vm_uuid):
            return self._inner.prepare(vm_uuid, patch)

    def commit(self, vm_uuid: str, token: SecretStr, compose_hash: str, transaction_hash: str) -> str:
        """See the port."""
        with self._watched(_UPDATE, vm_uuid):
            return self._inner.commit(vm_uuid, token, compose_hash, transaction_hash)

    def operations(self, vm_uuid: str, since: datetime) -> Sequence[Operation]:
        """See the port."""
        with self._watched(_READ, vm_uuid):
            return self._inner.operations(vm_uuid, since)

    def running(self, vm_uuid: str) -> Running:
        """See the port."""
        with self._watched(_READ, vm_uuid):
            return self._inner.running(vm_uuid)

    def webhooks(self) -> Sequence[Hook]:
        """See the port."""
        with self._watched():
            return self._inner.webhooks()

    def hook_deliveries(self, hook_id: str, since: datetime) -> Sequence[HookDelivery]:
        """See the port."""
        with self._watched():
            return self._inner.hook_deliveries(hook_id, since)

    def resend(self, hook_id: str, event_id: str) -> None:
        """See the port."""
        with self._watched():
            self._inner.resend(hook_id, event_id)

    def pending_updates(self, app_contract: str) -> Sequence[PendingUpdate]:
        """See the port."""
        with self._watched():
            return self._inner.pending_updates(app_contract)

    @contextmanager
    def _watched(self, right: str | None = None, cvm: str = "") -> Iterator[None]:
        """Around a call that needs a right for a CVM; of other rights nothing is noted: no request waits for them."""
        subjects = [PHALA_KEY_ITSELF, *([] if right is None else [right_subject(right, cvm)])]
        try:
            yield
        except Unauthorized as no:
            refused = subjects[:1] if no.key_refused else subjects[1:]
            for subject in refused:
                self._standing.refused(subject, no.detail)
            raise
        except Unreachable:
            raise
        except CountersignError:  # an answer to a key that was taken
            self._accepted(subjects)
            raise
        self._accepted(subjects)

    def _accepted(self, subjects: Sequence[str]) -> None:
        for subject in subjects:
            self._standing.accepted(subject)
