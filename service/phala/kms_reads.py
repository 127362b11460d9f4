"""Reads of key management services, and of the keys they hand out."""

from __future__ import annotations

from service.phala.env_encryption import verify_env_key
from service.phala.errors import BadResponse, InvalidArgument
from service.phala.identifiers import path
from service.phala.models.keys import AppEnvKey, KmsList
from service.phala.models.kms import KmsInfo
from service.phala.transport import Functions


class KmsReads(Functions):
    """Errors: any of `service.phala.errors`."""

    def get_kms_info(self, *, kms_id: str) -> KmsInfo:
        """``GET /kms/{kms_id}``: one KMS, by id (``kms_...``) or slug. A ``kms_type`` such as ``base`` is neither."""
        return self._transport.call("GET", path("kms", kms_id)).model(KmsInfo)

    def get_kms_list(
        self, *, page: int | None = None, page_size: int | None = None, is_onchain: bool | None = None
    ) -> KmsList:
        """``GET /kms``: all of them, a page at a time; pages count from 1."""
        query = {"page": page, "page_size": page_size, "is_onchain": is_onchain}
        return self._transport.call("GET", path("kms"), query=query).model(KmsList)

    def get_app_env_encrypt_pub_key(
        self, *, kms: str, app_id: str, expected_signer: str | None = None, verify: bool = True
    ) -> AppEnvKey:
        """``GET /kms/{kms}/pubkey/{app_id}``: the key to encrypt an app's environment with; its signature is checked.

        Args:
            kms: id or slug, as a prepared update or a provision names it (``kms_info.slug``).
            app_id: 40 hex digits, with or without 0x.
            expected_signer: the KMS's compressed secp256k1 key in hex, from its contract. Without it the signature is
                only known to be well-formed: whoever answers here could read what is encrypted.
            verify: False hands the key out without looking at its signature.

        Raises:
            InvalidArgument: ``app_id`` has another length.
            SignatureMismatch: the key is not signed, or not by that KMS.
            BadResponse: key or signature is no hex of the right length.
        """
        if len(app_id.removeprefix("0x")) != 40:  # noqa: PLR2004 - hex digits of 20 bytes
            raise InvalidArgument("app_id must have 40 characters, or 42 with 0x")
        answer = self._transport.call("GET", path("kms", kms, "pubkey", app_id))
        key = answer.model(AppEnvKey)
        if not verify:
            return key
        try:
            verify_env_key(key.public_key, key.signature, app_id, expected_signer=expected_signer)
        except InvalidArgument as exc:
            raise BadResponse(str(exc), status=answer.status, request_id=answer.request_id) from None
        return key
