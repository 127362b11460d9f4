"""Faults of the outside world as the steps see them.

CountersignError
├── Unreachable       timeout, connection, 5xx, 429; with ``outcome_unknown`` when a write may have landed
├── Nonsense          an answer that makes no sense; never trusted, tried again
├── StateUnavailable  the RPC endpoint has no state at that block
├── Busy              another operation runs (a bare 409)
├── NotVisibleYet     465, 467, 468 at commit: Phala Cloud does not see the approval (yet)
├── Unauthorized      the workspace's key is missing, wrong, or lacks the right
├── NotFound          the object does not exist for this key
├── TokenDead         466: unknown, spent, expired or superseded commit token
├── CvmBusy           another live change request holds the CVM
├── CvmBeingFreed     the same, but it is about to end
├── Refused           a deterministic no, with the upstream's own words
├── AddressRefused    a webhook URL leads to where webhooks must not go
└── LeaseLost         another worker took the row over; nothing may be written any more
"""

from service.domain.reasons import Reason


class CountersignError(Exception):
    """Base of all faults the steps handle.

    Attributes:
        retryable: whether the same call can succeed later.
        reason: public code of the fault.
        detail: one line for people; never holds a secret.
        retry_after: seconds the other side asked us to wait, if it did.
        subject: what is wrong, by its name in ``service.domain.workspaces``, if that concerns a whole workspace.
    """

    retryable = False
    reason: Reason = Reason.INTERNAL_ERROR

    def __init__(
        self,
        detail: str,
        *,
        reason: Reason | None = None,
        retry_after: float | None = None,
        subject: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.subject = subject
        if reason is not None:
            self.reason = reason


class Unreachable(CountersignError):
    """No answer, or one that says "later".

    Attributes:
        outcome_unknown: the request may have taken effect; look before repeating it.
    """

    retryable = True

    def __init__(
        self,
        detail: str,
        *,
        reason: Reason,
        outcome_unknown: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
        self.outcome_unknown = outcome_unknown


class Nonsense(Unreachable):
    """An answer of the wrong shape: the outcome of a write is unknown, a read is tried again."""

    def __init__(self, detail: str, *, reason: Reason) -> None:
        super().__init__(detail, reason=reason, outcome_unknown=True)


class StateUnavailable(CountersignError):
    """The RPC endpoint cannot read state at the asked block."""

    retryable = True
    reason = Reason.RPC_STATE_UNAVAILABLE


class Busy(CountersignError):
    """Another operation of the CVM is running."""

    retryable = True
    reason = Reason.PHALA_BUSY


class NotVisibleYet(CountersignError):
    """Phala Cloud does not see the registration on chain (465, 467 or 468 at commit)."""

    retryable = True
    reason = Reason.PHALA_LAGS


class Unauthorized(CountersignError):
    """The key is missing, wrong, or lacks the right.

    Attributes:
        key_refused: the key is of no use at all (401), not only here (403).
    """

    reason = Reason.PHALA_UNAUTHORIZED

    def __init__(self, detail: str, *, key_refused: bool = True, retry_after: float | None = None) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.key_refused = key_refused


class NotFound(CountersignError):
    """The object does not exist, or not for this key."""

    reason = Reason.CVM_NOT_FOUND


class TokenDead(CountersignError):
    """Phala Cloud refuses the commit token (466)."""

    reason = Reason.TOKEN_REFUSED


class CvmBusy(CountersignError):
    """Another live change request holds the CVM; ``detail`` names it."""

    reason = Reason.CVM_BUSY


class CvmBeingFreed(CountersignError):
    """The change request that holds the CVM is about to end; ``detail`` names it."""

    retryable = True
    reason = Reason.WAITING_FOR_PREDECESSOR


class Refused(CountersignError):
    """A deterministic no."""


class AddressRefused(CountersignError):
    """A webhook URL leads to where webhooks must not go; nothing was connected to."""


class LeaseLost(CountersignError):
    """The fence moved on: another worker holds the row."""
