"""Who has to approve, and what those who sign should know. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from service.domain.chain import AppOwnership, SafeState

_ETHEREUM: Final = 1
"""The one chain whose Transaction Service follows Safes by traces, where the L1 variant is the usual one."""

_NOT_SHOWN: Final = frozenset({"address", "nonce"})
"""The address is the owner's, and the nonce is old before anybody reads it."""


@dataclass(frozen=True, slots=True)
class Approver:
    """The owner of an app contract at one block.

    Attributes:
        app: the app contract.
        safe: the Safe that owns it, ``None`` where the approval is external.
    """

    app: AppOwnership
    safe: SafeState | None

    def as_json(self) -> Mapping[str, Any]:
        """What is stored and shown of it; addresses checksummed."""
        facts = None if self.safe is None else asdict(self.safe)
        safe = None if facts is None else {name: value for name, value in facts.items() if name not in _NOT_SHOWN}
        return {"owner": self.app.owner, "pending_owner": self.app.pending_owner, "safe": safe}

    def warnings(self, chain_id: int) -> tuple[str, ...]:
        """What is no reason to refuse, but should be known before anybody signs; always in the same words."""
        found = list(_about_app(self.app))
        if self.safe is not None:
            found.extend(_about_safe(self.safe, chain_id))
        return tuple(found)


def _about_app(app: AppOwnership) -> list[str]:
    found = []
    if app.requires_tcb_up_to_date:
        found.append(
            "the app contract requires an up-to-date TCB (requireTcbUpToDate): whatever is allowed, the KMS refuses to "
            "boot it on a host whose TCB status is not UpToDate"
        )
    if app.allows_any_device:
        found.append("the app contract allows any device (allowAnyDevice): what is approved may boot on every host")
    if app.pending_owner is not None:
        found.append(
            f"the app contract is being transferred to {app.pending_owner}: once that calls acceptOwnership(), "
            f"{app.owner or 'the present owner'} cannot approve any more"
        )
    return found


def _about_safe(safe: SafeState, chain_id: int) -> list[str]:
    found = []
    if safe.guard is not None:
        found.append(f"the Safe has a transaction guard, {safe.guard}, which may refuse the execution")
    if safe.modules or safe.more_modules:
        listed = [*safe.modules, *(["others"] if safe.more_modules else [])]
        found.append(f"the Safe has modules that can act for it without its owners: {', '.join(listed)}")
    if safe.l2 is None:
        found.append(
            f"the Safe runs an unpublished contract, {safe.singleton or 'its own code'}: that it works like Safe "
            f"{safe.version} is only what it says"
        )
    elif not safe.l2 and chain_id != _ETHEREUM:
        found.append(
            "the Safe is not the L2 variant of its version: where nodes serve no traces, Safe{Wallet} may not see what "
            "it executes"
        )
    return found
