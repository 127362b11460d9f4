"""Updates that a contract may have to approve: prepare, confirm, commit, and the single-field forms.

Every function here names its CVM by keyword (`service.phala.identifiers.CvmIdentifier`) and is a write: it is sent
once. A failure whose ``outcome_unknown`` is true may have taken effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from service.phala.answers import model_from_details
from service.phala.errors import HashRegistrationRequired
from service.phala.identifiers import CvmIdentifier, cvm_segment, path, split
from service.phala.models.updates import (
    CommitAccepted,
    EnvsUpdateInProgress,
    PatchApplied,
    PatchConfirmed,
    PatchPrepared,
    PatchResult,
    PreconditionRequired,
    UpdateInProgress,
)
from service.phala.transport import Functions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack


class CvmPatch(CvmIdentifier, total=False):
    """Fields of `TwoPhaseUpdates.patch_cvm`. What is not given, or None, is left as it is; empty values are sent.

    Attributes:
        docker_compose_file: YAML text; changes the compose hash.
        pre_launch_script: shell text; changes the compose hash.
        allowed_envs: names of environment variables; changes the compose hash.
        public_logs: changes the compose hash, like the next two.
        public_sysinfo: see above.
        public_tcbinfo: see above.
        encrypted_env: hex, as `service.phala.env_encryption.encrypt_env` makes it.
        user_config: JSON text.
        gpus: ``{"count": int, "product_name": str}``, sent as given.
        vcpu: number of virtual CPUs.
        memory: MB.
        disk_size: GB.
        image: name or slug of an OS image.
        shutdown_timeout: seconds, 10 to 1200.
        allow_force_stop: stop hard after the timeout.
    """

    docker_compose_file: str | None
    pre_launch_script: str | None
    allowed_envs: Sequence[str] | None
    public_logs: bool | None
    public_sysinfo: bool | None
    public_tcbinfo: bool | None
    encrypted_env: str | None
    user_config: str | None
    gpus: Mapping[str, Any] | None
    vcpu: int | None
    memory: int | None
    disk_size: int | None
    image: str | None
    shutdown_timeout: int | None
    allow_force_stop: bool | None


#: In the order in which the official SDK writes them.
PATCH_MEMBERS: Final = (
    "docker_compose_file",
    "pre_launch_script",
    "allowed_envs",
    "public_logs",
    "public_sysinfo",
    "public_tcbinfo",
    "encrypted_env",
    "user_config",
    "gpus",
    "vcpu",
    "memory",
    "disk_size",
    "image",
    "shutdown_timeout",
    "allow_force_stop",
)


class TwoPhaseUpdates(Functions):
    """prepare -> register on chain -> commit, and its older forms."""

    def patch_cvm(self, *, prepare_only: bool = False, **patch: Unpack[CvmPatch]) -> PatchResult:
        """``PATCH /cvms/{cvm}``: change any fields of a CVM at once.

        A CVM whose KMS is on chain, and a change that moves its compose hash, are answered with the hash to register
        (`PatchPrepared`). **Everything else is applied at once** (`PatchApplied`), with ``prepare_only`` too: read the
        CVM first (`service.phala.models.cvm.CvmInfo.onchain_kms`).

        Args:
            prepare_only: ask for a one-time commit token (valid for 14 days, void after the next prepare for this CVM),
                to be spent with `commit_cvm_update` once the owners have approved.
            **patch: the CVM and the fields to change, see `CvmPatch` for units.

        Raises:
            PhalaError: 400, 404, 409 (busy or deterministic), 422 and 466 to 468 as their own types, see
                `service.phala.errors`.
        """
        identifier, body = split(patch, PATCH_MEMBERS)
        headers = {"X-Prepare-Only": "true"} if prepare_only else {}
        try:
            answer = self._transport.call("PATCH", path("cvms", cvm_segment(identifier)), json=body, headers=headers)
        except HashRegistrationRequired as error:
            return model_from_details(error, PatchPrepared)
        return answer.model(PatchApplied)

    def confirm_cvm_patch(
        self, *, compose_hash: str, transaction_hash: str, **cvm: Unpack[CvmIdentifier]
    ) -> PatchConfirmed:
        """``PATCH /cvms/{cvm}``, second phase of a patch made without ``prepare_only``: the hash is registered.

        Args:
            compose_hash: as the first phase answered it.
            transaction_hash: 0x-prefixed hash of the transaction that registered it.
            **cvm: the CVM.

        Raises:
            HashRegistrationRequired: 465, the registration is not seen (yet).
            HashInvalidOrExpired: 466, the first phase is more than 14 days old, or unknown.
            TxVerificationFailed: 467.
            HashNotAllowed: 468.
            PhalaError: anything else, see `service.phala.errors`.
        """
        headers = {"X-Compose-Hash": compose_hash, "X-Transaction-Hash": transaction_hash}
        answer = self._transport.call("PATCH", path("cvms", cvm_segment(cvm)), json={}, headers=headers)
        return answer.model(PatchConfirmed)

    def commit_cvm_update(
        self,
        *,
        token: str | SecretStr,
        compose_hash: str = "",
        transaction_hash: str = "",
        **cvm: Unpack[CvmIdentifier],
    ) -> CommitAccepted:
        """``POST /cvms/{cvm}/commit-update``: spend a commit token. The CVM restarts on the approved compose.

        The token is the whole credential: no API key is needed.

        Args:
            token: of the prepare, one use.
            compose_hash: 64 hex digits; empty means the token's.
            transaction_hash: 0x-prefixed; empty or ``already-registered`` if the chain's state alone is to be checked.
            **cvm: the CVM.

        Raises:
            HashRegistrationRequired: 465, not registered as far as the server's node sees.
            HashInvalidOrExpired: 466, the token is unknown, expired, spent, superseded, or of another hash.
            TxVerificationFailed: 467, wrong transaction or not seen yet.
            HashNotAllowed: 468, treat as 465.
            PhalaError: anything else. After ``outcome_unknown`` look at the operations before repeating.
        """
        secret = token.get_secret_value() if isinstance(token, SecretStr) else token
        body = {"token": secret, "compose_hash": compose_hash, "transaction_hash": transaction_hash}
        answer = self._transport.call(
            "POST", path("cvms", cvm_segment(cvm), "commit-update"), json=body, secrets=(secret,)
        )
        return answer.model(CommitAccepted)

    def update_pre_launch_script(
        self,
        *,
        pre_launch_script: str,
        compose_hash: str | None = None,
        transaction_hash: str | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> UpdateInProgress | PreconditionRequired:
        """``PATCH /cvms/{cvm}/pre-launch-script``, the script as raw text; empty text removes it.

        Both phases: the first call may answer `PreconditionRequired`; after registering its ``compose_hash`` repeat the
        call with the same script, ``compose_hash`` and ``transaction_hash``.

        Raises:
            OnChainError: 466 to 468 in the second phase; 465 that names no hash.
            PhalaError: anything else, see `service.phala.errors`.
        """
        return self._update_text(
            "pre-launch-script", "text/plain", pre_launch_script, compose_hash, transaction_hash, cvm
        )

    def update_docker_compose(
        self,
        *,
        docker_compose_file: str,
        compose_hash: str | None = None,
        transaction_hash: str | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> UpdateInProgress | PreconditionRequired:
        """``PATCH /cvms/{cvm}/docker-compose``, the YAML as raw text, in two phases like `update_pre_launch_script`.

        Raises:
            PhalaError: as there; 422 if the compose file is invalid.
        """
        return self._update_text(
            "docker-compose", "text/yaml", docker_compose_file, compose_hash, transaction_hash, cvm
        )

    def _update_text(
        self,
        what: str,
        media_type: str,
        text: str,
        compose_hash: str | None,
        transaction_hash: str | None,
        cvm: CvmIdentifier,
    ) -> UpdateInProgress | PreconditionRequired:
        proof = {"X-Compose-Hash": compose_hash, "X-Transaction-Hash": transaction_hash}
        try:
            answer = self._transport.call(
                "PATCH",
                path("cvms", cvm_segment(cvm), what),
                content=(media_type, text),
                headers={name: value for name, value in proof.items() if value},
            )
        except HashRegistrationRequired as error:
            return model_from_details(error, PreconditionRequired)
        return answer.model(UpdateInProgress)

    def update_cvm_envs(
        self,
        *,
        encrypted_env: str,
        env_keys: Sequence[str] | None = None,
        compose_hash: str | None = None,
        transaction_hash: str | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> EnvsUpdateInProgress | PreconditionRequired:
        """``PATCH /cvms/{cvm}/envs``: replace the encrypted environment.

        Changing ``env_keys`` on a CVM with on-chain KMS takes two phases like `update_pre_launch_script`.

        Args:
            encrypted_env: hex, see `service.phala.env_encryption.encrypt_env`.
            env_keys: the names that may be set.
            compose_hash: second phase only.
            transaction_hash: second phase only.
            **cvm: the CVM.

        Raises:
            PhalaError: see `service.phala.errors`.
        """
        given = {
            "encrypted_env": encrypted_env,
            "env_keys": None if env_keys is None else list(env_keys),
            "compose_hash": compose_hash,
            "transaction_hash": transaction_hash,
        }
        body = {name: value for name, value in given.items() if value is not None}
        try:
            answer = self._transport.call("PATCH", path("cvms", cvm_segment(cvm), "envs"), json=body)
        except HashRegistrationRequired as error:
            return model_from_details(error, PreconditionRequired)
        return answer.model(EnvsUpdateInProgress)
