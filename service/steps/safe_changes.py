"""What changed about a Safe while an approval waits."""

from service.domain.alerts import Alert, AlertCode
from service.domain.chain import SafeState
from service.domain.snapshots import SafeSeen


def seen(safe: SafeState) -> SafeSeen:
    """What to remember of a Safe until the next look."""
    return SafeSeen(safe.owners, safe.threshold, safe.guard, None if safe.more_modules else safe.modules)


def safe_changes(before: SafeSeen | None, safe: SafeState, proposer: str) -> tuple[Alert, ...]:
    """Alerts about changes since the last look, and about what must not be.

    Args:
        before: the last look, ``None`` for the first.
        safe: the Safe now.
        proposer: checksummed address of the service's own key.
    """
    alerts = _compared(before, seen(safe)) if before is not None else []
    if proposer in safe.owners:
        message = f"the service's key {proposer} has become an owner of {safe.address}"
        alerts.append(Alert(AlertCode.PROPOSER_IS_OWNER, message))
    return tuple(alerts)


def _compared(before: SafeSeen, now: SafeSeen) -> list[Alert]:
    alerts = []
    owners = _difference(before.owners, now.owners)
    if owners:
        alerts.append(Alert(AlertCode.OWNERS_CHANGED, f"owners changed: {owners}"))
    if before.threshold != now.threshold:
        message = f"threshold changed: {before.threshold} -> {now.threshold}"
        alerts.append(Alert(AlertCode.THRESHOLD_CHANGED, message))
    if before.guard != now.guard:
        message = f"guard changed: {before.guard or 'none'} -> {now.guard or 'none'}"
        alerts.append(Alert(AlertCode.GUARD_CHANGED, message))
    if before.modules is not None and now.modules is not None:
        modules = _difference(before.modules, now.modules)
        if modules:
            alerts.append(Alert(AlertCode.MODULES_CHANGED, f"modules changed: {modules}"))
    return alerts


def _difference(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """``added 0x.., removed 0x..``; empty when only the order is another."""
    added, removed = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    return ", ".join([*(f"added {one}" for one in added), *(f"removed {one}" for one in removed)])
