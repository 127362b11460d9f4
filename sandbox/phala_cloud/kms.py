"""The keys a KMS holds: an X25519 key per app for env encryption, and the secp256k1 key that signs it."""

import hashlib
import json
import secrets

from coincurve import PrivateKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from eth_utils.crypto import keccak

from sandbox.phala_cloud.database import Database
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Kms

GATEWAY_APP_ID = "0x1111111111111111111111111111111111111111"
_PUBLIC_KEY_BYTES = 32
_IV_BYTES = 12
_SIGNATURE_PREFIX = b"dstack-env-encrypt-pubkey:"


def ensure(database: Database, kms_type: str, chain_id: int | None, contract_address: str | None) -> Kms:
    """The KMS of this chain and contract; made on first use. `chain_id` None is the off-chain one."""
    row = database.one(
        "SELECT * FROM kms WHERE kms_type = ? AND chain_id IS ? AND contract_address IS ?",
        kms_type,
        chain_id,
        contract_address,
    )
    if row is None:
        suffix = secrets.token_hex(4)
        database.insert(
            "kms",
            hashed_id=f"kms_{suffix}",
            slug=f"kms-{kms_type}-{suffix}",
            kms_type=kms_type,
            version="v0.5.4",
            chain_id=chain_id,
            contract_address=contract_address,
            gateway_app_id=None if chain_id is None else GATEWAY_APP_ID,
            seed=secrets.token_bytes(32),
        )
        return ensure(database, kms_type, chain_id, contract_address)
    return Kms(**dict(row))


def find(database: Database, identifier: str) -> Kms | None:
    """By `kms_` id or slug; the bare type (`base`) finds nothing, as at Phala."""
    row = database.one("SELECT * FROM kms WHERE hashed_id = ? OR slug = ?", identifier, identifier)
    return None if row is None else Kms(**dict(row))


def info(kms: Kms) -> Json:
    """The KmsInfo object: every member present, null off chain."""
    return {
        "id": kms.hashed_id,
        "slug": kms.slug,
        "url": kms.url,
        "version": kms.version,
        "chain_id": kms.chain_id,
        "kms_contract_address": kms.contract_address,
        "gateway_app_id": kms.gateway_app_id,
    }


def env_public_key(kms: Kms, app_id: str) -> bytes:
    """The X25519 public key (32 bytes) that env values of this app are encrypted to."""
    return _env_key(kms, app_id).public_key().public_bytes_raw()


def sign_env_public_key(kms: Kms, app_id: str) -> bytes:
    """65 bytes r, s, v (v 0 or 1) over keccak256(prefix, app id bytes, public key bytes)."""
    digest = keccak(_SIGNATURE_PREFIX + bytes.fromhex(app_id) + env_public_key(kms, app_id))
    return _signing_key(kms).sign_recoverable(digest, hasher=None)


def signer(kms: Kms) -> bytes:
    """The compressed secp256k1 public key that the signature recovers to."""
    return _signing_key(kms).public_key.format(compressed=True)


def decrypt_env(kms: Kms, app_id: str, encrypted_env: str) -> dict[str, str] | None:
    """What the CVM sees as its environment; None if the text was not encrypted to this app's key."""
    try:
        blob = bytes.fromhex(encrypted_env)
        ephemeral = X25519PublicKey.from_public_bytes(blob[:_PUBLIC_KEY_BYTES])
        shared = _env_key(kms, app_id).exchange(ephemeral)
        iv_end = _PUBLIC_KEY_BYTES + _IV_BYTES
        plaintext = AESGCM(shared).decrypt(blob[_PUBLIC_KEY_BYTES:iv_end], blob[iv_end:], None)
        return {item["key"]: item["value"] for item in json.loads(plaintext)["env"]}
    except (ValueError, KeyError, TypeError, InvalidTag):
        return None


def _env_key(kms: Kms, app_id: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(
        hashlib.sha256(kms.seed + b"env" + bytes.fromhex(app_id)).digest(),
    )


def _signing_key(kms: Kms) -> PrivateKey:
    return PrivateKey(hashlib.sha256(kms.seed + b"k256").digest())
