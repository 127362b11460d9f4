"""Signature of outbound webhooks as the Standard Webhooks specification 1.0 defines it. Pure."""

import base64
import hashlib
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix, no secret


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


def headers(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three Standard Webhooks headers of one delivery attempt."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, message_id, timestamp, body),
    }
