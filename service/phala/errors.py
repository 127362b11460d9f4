"""What can go wrong with Phala Cloud, as one tree. Nothing outside it leaves the client.

::

    PhalaError                        base: status, code, request_id, retryable, outcome_unknown
    ├── InvalidArgument               refused here, nothing was sent (also a ValueError)
    ├── NetworkError                  no whole answer: refused, reset, timed out
    ├── BadResponse                   an answer that cannot be read: HTML, empty, huge, wrong shape, 3xx
    ├── WatchEnded                    the attempts of a state watch are used up
    ├── SignatureMismatch             a KMS signature does not verify
    ├── WebhookRejected               an inbound webhook that must not be acted on
    │   ├── WebhookHeadersMissing     no timestamp or no signature header
    │   ├── WebhookSignatureInvalid   wrong signature, or a timestamp out of tolerance
    │   └── WebhookMalformed          signed well, but not an event
    └── ApiError                      a non-2xx answer; also details, suggestions, links, retry_after
        ├── ValidationError           422, with issues where the server lists them
        ├── AuthError                 401, 403
        ├── NotFound                  404
        ├── Conflict                  409: `busy` (another operation runs), else deterministic
        ├── OnChainError              the on-chain part of an update
        │   ├── HashRegistrationRequired  465: register the compose hash first
        │   ├── HashInvalidOrExpired      466: token or hash invalid, expired, superseded: prepare again
        │   ├── TxVerificationFailed      467: the transaction does not verify (yet)
        │   └── HashNotAllowed            468: the contract says no (yet)
        ├── RequestRefused            every other 4xx
        └── ServerError               5xx

A *structured* error (``ERR-mm-nnn``) may arrive with any status: `ApiError.code` is then set, and `details`,
`suggestions` and `links` carry what the server gave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import SecretStr

#: Detail fields that are credentials (or URLs holding one): their values are wrapped before anyone can print them.
SECRET_FIELDS = frozenset({"commit_token", "commit_url", "api_commit_url", "token"})


@dataclass(frozen=True)
class ErrorDetail:
    """One entry of a structured error: ``field`` and ``value`` as sent, ``message`` if there was one.

    The value of a credential field (see `SECRET_FIELDS`) is a ``SecretStr``.
    """

    field: str
    value: object = None
    message: str | None = None


@dataclass(frozen=True)
class ErrorLink:
    """A page the server points at."""

    label: str
    url: str


@dataclass(frozen=True)
class ValidationIssue:
    """One issue of a 422: dotted field path, message, pydantic error type. The rejected input is not kept."""

    field: str
    message: str
    type: str


class PhalaError(Exception):
    """Base of everything this client raises.

    Attributes:
        status: HTTP status of the answer, None if there was none.
        code: ``ERR-mm-nnn`` of a structured error, else None.
        request_id: the server's id of the request, if it gave one.
        retryable: sending this very call again can help and can do no harm. False where
            `outcome_unknown` is true.
        outcome_unknown: the call was a write, and it may have taken effect although it failed (timed out
            after being sent, 5xx, unreadable answer). Look before repeating it.
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id
        self.outcome_unknown = outcome_unknown
        wanted = self.default_retryable if retryable is None else retryable
        self.retryable = wanted and not outcome_unknown

    def __repr__(self) -> str:
        facts = {"status": self.status, "code": self.code, "request_id": self.request_id}
        shown = "".join(f", {name}={value!r}" for name, value in facts.items() if value is not None)
        return f"{type(self).__name__}({self.message!r}{shown})"


class InvalidArgument(PhalaError, ValueError):
    """The call cannot be made as asked; nothing was sent."""


class NetworkError(PhalaError):
    """No whole answer came. ``timed_out`` says whether time ran out."""

    default_retryable = True

    def __init__(self, message: str, *, timed_out: bool = False, outcome_unknown: bool = False) -> None:
        super().__init__(message, outcome_unknown=outcome_unknown)
        self.timed_out = timed_out


class BadResponse(PhalaError):
    """An answer arrived that is not what the API promises."""


class WatchEnded(PhalaError):
    """A watched CVM did not reach its target within the attempts allowed. ``attempts`` were made."""

    default_retryable = True

    def __init__(self, message: str, *, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


class SignatureMismatch(PhalaError):
    """A key's signature is malformed, or made by another signer than the expected one."""


class WebhookRejected(PhalaError):
    """An inbound webhook that must not be acted on."""


class WebhookHeadersMissing(WebhookRejected):
    """The timestamp or the signature header is absent or empty."""


class WebhookSignatureInvalid(WebhookRejected):
    """No known secret made this signature, or the timestamp is out of tolerance."""


class WebhookMalformed(WebhookRejected):
    """The signature verifies, but the body is not an event of the documented form."""


class ApiError(PhalaError):
    """A non-2xx answer.

    Attributes:
        details: field/value facts of a structured error, in the order sent.
        suggestions: the server's advice, as text.
        links: the pages it points at.
        retry_after: seconds, from a ``Retry-After`` header that held a number.
    """

    def __init__(  # noqa: PLR0913 - the facts of an answer
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        outcome_unknown: bool = False,
        details: tuple[ErrorDetail, ...] = (),
        suggestions: tuple[str, ...] = (),
        links: tuple[ErrorLink, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            message,
            status=status,
            code=code,
            request_id=request_id,
            retryable=retryable,
            outcome_unknown=outcome_unknown,
        )
        self.details = details
        self.suggestions = suggestions
        self.links = links
        self.retry_after = retry_after

    def detail(self, field: str) -> object:
        """Value of the last detail of that field, None if there is none. Credentials come as ``SecretStr``."""
        return next((d.value for d in reversed(self.details) if d.field == field), None)


class ValidationError(ApiError):
    """422. ``issues`` is empty where the server gave a structured error instead of a list."""

    issues: tuple[ValidationIssue, ...] = ()


class AuthError(ApiError):
    """401 no or bad key; 403 not in this workspace, or not permitted."""


class NotFound(ApiError):
    """404: not there, or hidden from this key."""


class Conflict(ApiError):
    """409. A bare one means that another operation runs; one with a code is deterministic."""

    @property
    def busy(self) -> bool:
        """Another operation runs on this CVM: the same call can succeed later."""
        return self.code is None


class OnChainError(ApiError):
    """465 to 468: the chain's part of an update is missing, stale or refused."""


class HashRegistrationRequired(OnChainError):
    """465 (ERR-01-005): the compose hash is not registered on chain, as far as the server's node sees."""

    default_retryable = True


class HashInvalidOrExpired(OnChainError):
    """466 (ERR-01-006): token or hash unknown, expired, superseded, or bound to another compose."""


class TxVerificationFailed(OnChainError):
    """467 (ERR-01-007): wrong transaction, not mined, or the server's node lags."""

    default_retryable = True


class HashNotAllowed(OnChainError):
    """468 (ERR-01-008): the contract does not allow the hash, as far as the server's node sees."""

    default_retryable = True


class RequestRefused(ApiError):
    """Any other 4xx."""


class ServerError(ApiError):
    """5xx: trouble at the API, its KMS, its chain node, or a proxy in between."""

    default_retryable = True


def secret_value(field: str, value: object) -> object:
    """Wrap the value of a credential field so that it cannot be printed by accident."""
    return SecretStr(value) if field in SECRET_FIELDS and isinstance(value, str) else value
