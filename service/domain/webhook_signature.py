"""Signature of outbound webhooks as the Standard Webhooks specification 1.0 defines it. Pure."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix, no secret
SHORTEST_KEY = 24
LONGEST_KEY = 64


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """``v1,<base64>`` HMAC-SHA256 over ``id.timestamp.body``.

    Args:
        secret: ``whsec_`` + base64 of 24 to 64 random bytes.
        message_id: the ``webhook-id`` header.
        timestamp: seconds since the epoch, the ``webhook-timestamp`` header.
        body: the exact bytes sent.

    Raises:
        ValueError: the secret is no base64.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def headers(secret: str, message_id: str, timestamp: int, body: bytes, *, also: Sequence[str] = ()) -> dict[str, str]:
    """The three Standard Webhooks headers of one delivery attempt.

    Args:
        secret: the endpoint's.
        message_id: the event's id.
        timestamp: of this attempt.
        body: the exact bytes sent.
        also: secrets that were replaced and still sign for a while.
    """
    signatures = [sign(key, message_id, timestamp, body) for key in (secret, *also)]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }


def valid_secret(secret: str) -> bool:
    """Whether a secret has the form that the specification asks for."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return secret.startswith(SECRET_PREFIX) and SHORTEST_KEY <= len(key) <= LONGEST_KEY


def secret_of(key: bytes) -> str:
    """A secret from 24 to 64 random bytes."""
    return SECRET_PREFIX + base64.b64encode(key).decode()
