"""Phala Cloud's own webhooks, inbound: is this really from them, and what does it say.

Signature: ``sha256=`` and the hex HMAC-SHA256 over ``<timestamp>.<raw body>``, keyed with the UTF-8 bytes of the whole
secret, ``whsec_`` included. The headers with id and event name are not signed: only the body's count.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING, Any, Final

import pydantic
import pydantic_core
from pydantic import SecretStr

from service.phala.errors import (
    WebhookHeadersMissing,
    WebhookMalformed,
    WebhookRejected,
    WebhookSignatureInvalid,
)
from service.phala.models.webhooks import PendingApproval, WebhookEvent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Secrets = str | SecretStr | Sequence[str | SecretStr]

__all__ = [
    "PENDING_APPROVAL",
    "TOLERANCE_SECONDS",
    "PendingApproval",
    "WebhookEvent",
    "WebhookHeadersMissing",
    "WebhookMalformed",
    "WebhookRejected",
    "WebhookSignatureInvalid",
    "parse",
    "verify",
]

PENDING_APPROVAL: Final = "cvm.update.pending_approval"
#: How far the timestamp may be from now, either way.
TOLERANCE_SECONDS: Final = 300

#: What JavaScript's parseInt reads: white space, a sign, digits; whatever follows is ignored (but signed).
_JS_SPACE: Final = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_LEADING_INT: Final = re.compile(rf"[{_JS_SPACE}]*([+-]?[0-9]+)")
_MAX_DIGITS: Final = 20


def verify(
    body: bytes | str,
    *,
    timestamp: str,
    signature: str,
    secrets: Secrets,
    tolerance_seconds: int = TOLERANCE_SECONDS,
    now: float | None = None,
) -> bool:
    """Whether one of the secrets made this signature, close enough to now. Never raises on what arrived.

    Args:
        body: the bytes as received; text is taken as UTF-8. Not re-serialised JSON.
        timestamp: header ``X-Webhook-Timestamp``, decimal seconds since 1970.
        signature: header ``X-Webhook-Signature``.
        secrets: one secret, or several while one is being replaced. All are tried, in constant time each.
        tolerance_seconds: largest difference between the timestamp and now that passes.
        now: seconds since 1970; None reads the clock.
    """
    match = _LEADING_INT.match(timestamp)
    if not match or len(match[1]) > _MAX_DIGITS:
        return False
    moment = int(time.time() if now is None else now)
    if abs(moment - int(match[1])) > tolerance_seconds:
        return False
    message = _bytes(timestamp) + b"." + (_bytes(body) if isinstance(body, str) else body)
    given = _bytes(signature)
    found = False
    for secret in (secrets,) if isinstance(secrets, str | SecretStr) else secrets:
        key = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        expected = "sha256=" + hmac.new(key.encode(), message, hashlib.sha256).hexdigest()
        found |= hmac.compare_digest(expected.encode(), given) and bool(key)
    return found


def parse(
    body: bytes | str,
    headers: Mapping[str, Any],
    secrets: Secrets,
    *,
    tolerance_seconds: int = TOLERANCE_SECONDS,
    now: float | None = None,
) -> WebhookEvent | PendingApproval:
    """Check a webhook and read it. Act on an event id once: deliveries repeat.

    Args:
        body: the bytes as received.
        headers: any mapping of header names (in any case) to a value or a list of values, of which the first counts.
        secrets: as for `verify`.
        tolerance_seconds: as for `verify`.
        now: as for `verify`.

    Returns:
        `PendingApproval` for ``cvm.update.pending_approval``, a `WebhookEvent` for every other event.

    Raises:
        WebhookHeadersMissing: no timestamp or no signature.
        WebhookSignatureInvalid: made by none of the secrets, or out of tolerance.
        WebhookMalformed: signed, but not an event: no JSON, or members missing.
    """
    named = {name.lower(): _first(value) for name, value in headers.items()}
    timestamp, signature = named.get("x-webhook-timestamp"), named.get("x-webhook-signature")
    if not timestamp or not signature:
        raise WebhookHeadersMissing("X-Webhook-Timestamp and X-Webhook-Signature are required")
    if not verify(
        body,
        timestamp=timestamp,
        signature=signature,
        secrets=secrets,
        tolerance_seconds=tolerance_seconds,
        now=now,
    ):
        raise WebhookSignatureInvalid("the signature is not of a known secret, or the timestamp is out of tolerance")
    try:
        value = pydantic_core.from_json(body)
    except ValueError:
        raise WebhookMalformed("the signed body is no JSON") from None
    pending = isinstance(value, dict) and value.get("event") == PENDING_APPROVAL
    try:
        return (PendingApproval if pending else WebhookEvent).model_validate(value)
    except pydantic.ValidationError as exc:
        where = ", ".join(".".join(map(str, fault["loc"])) for fault in exc.errors(include_input=False)[:3])
        raise WebhookMalformed(f"the signed body is no event of the documented form: {where or 'body'}") from None


def _bytes(text: str) -> bytes:
    # what is no valid Unicode has no valid signature either, but must not raise
    return text.encode("utf-8", "surrogatepass")


def _first(value: object) -> str | None:
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return value if isinstance(value, str) else None
