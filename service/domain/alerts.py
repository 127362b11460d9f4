"""What members of a proposal are told besides its progress: one code each, with advice. Pure."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class AlertCode(StrEnum):
    """Public code of an alert, stable."""

    WRONG_SIGNATURE = "wrong_signature"
    OWNERS_CHANGED = "owners_changed"
    THRESHOLD_CHANGED = "threshold_changed"
    GUARD_CHANGED = "guard_changed"
    MODULES_CHANGED = "modules_changed"
    PROPOSER_IS_OWNER = "proposer_is_owner"
    PROPOSER_NOT_DELEGATE = "proposer_not_delegate"
    OTHER_AT_NONCE = "other_at_nonce"
    REJECTION_QUEUED = "rejection_queued"
    NONCE_MISSING = "nonce_missing"
    TRANSACTION_REPLACED = "transaction_replaced"
    TRANSACTION_VANISHED = "transaction_vanished"


ALERT_ADVICE: Final[dict[AlertCode, str]] = {
    AlertCode.WRONG_SIGNATURE: "It is not counted. Ask that owner whether they signed; if so, they sign again.",
    AlertCode.OWNERS_CHANGED: "Signatures of former owners no longer count. Check that the change was meant.",
    AlertCode.THRESHOLD_CHANGED: "The approval now needs that many signatures. Check that the change was meant.",
    AlertCode.GUARD_CHANGED: "A guard can refuse the execution. Check that the change was meant.",
    AlertCode.MODULES_CHANGED: "A module can act for the Safe without its owners. Check that the change was meant.",
    AlertCode.PROPOSER_IS_OWNER: (
        "The service signs nothing for this Safe any more. The owners remove its key, and add it as a delegate only."
    ),
    AlertCode.PROPOSER_NOT_DELEGATE: (
        "An owner of the Safe adds the service's key as a delegate again. What is in the queue can still be signed."
    ),
    AlertCode.OTHER_AT_NONCE: "Only one of them can execute: the owners decide which, and sign only that one.",
    AlertCode.REJECTION_QUEUED: "If it executes, the approval is rejected: the owners decide which of them to sign.",
    AlertCode.NONCE_MISSING: (
        "The owners put a transaction at that nonce, an empty one to the Safe itself will do, and execute it first."
    ),
    AlertCode.TRANSACTION_REPLACED: "The approval is proposed again at another nonce: the owners sign that one.",
    AlertCode.TRANSACTION_VANISHED: (
        "The same transaction is proposed again. If it was deleted on purpose, cancel the change request."
    ),
}

ALERTS_PER_CODE: Final = 20
"""No proposal has more of one code: whoever answers for the outside world could make them up without an end."""

AND_MORE: Final = "there are more of these, which are not told any more"


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that wants a person's eyes. ``message`` is one line for people."""

    code: AlertCode
    message: str


def news(alerts: tuple[Alert, ...], known: tuple[Alert, ...]) -> tuple[Alert, ...]:
    """Those of ``alerts`` that ``known`` does not have, each once, as far as there is room for their codes."""
    count = Counter(alert.code for alert in known)
    return tuple(alert for alert in dict.fromkeys(alerts) if alert not in known and count[alert.code] < ALERTS_PER_CODE)


def kept(known: tuple[Alert, ...], told: tuple[Alert, ...]) -> tuple[Alert, ...]:
    """All alerts, the new ones last, with a bound for each code: what is told often hides nothing that is told once.

    The last one there is room for says that it is the last.
    """
    count = Counter(alert.code for alert in known)
    alerts = list(known)
    for alert in told:
        count[alert.code] += 1
        if count[alert.code] < ALERTS_PER_CODE:
            alerts.append(alert)
        elif count[alert.code] == ALERTS_PER_CODE:
            alerts.append(Alert(alert.code, AND_MORE))
    return tuple(alerts)
