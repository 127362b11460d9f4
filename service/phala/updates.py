"""Updates without a token: resources, visibility, OS image, instance ids, and the two-step compose file.

Every function that changes something is sent once. A failure whose ``outcome_unknown`` is true may have taken effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from service.phala.errors import InvalidArgument
from service.phala.identifiers import CvmIdentifier, compose_file_segment, cvm_segment, path, split
from service.phala.models.cvm import LegacyCvm
from service.phala.models.images import AvailableOsImage, OsImages
from service.phala.models.updates import ComposeFileProvision, InstanceIdRefresh, InstanceIdRefreshes
from service.phala.transport import Functions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

#: Bytes of UTF-8 that docker_compose_file and pre_launch_script may have together.
MAX_COMPOSE_BYTES: Final = 204_800
_MAX_REFRESHES: Final = 500
#: In the order in which the official SDK writes them; members it does not know follow.
_COMPOSE_MEMBERS: Final = (
    "allowed_envs",
    "docker_compose_file",
    "features",
    "name",
    "manifest_version",
    "kms_enabled",
    "public_logs",
    "public_sysinfo",
    "tproxy_enabled",
    "storage_fs",
    "pre_launch_script",
    "env_pubkey",
    "salt",
)


def _given(**members: object) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}


class Updates(Functions):
    """Single-purpose updates. Errors: any of `service.phala.errors`; after a bare 409 (`Conflict.busy`) try later."""

    def update_cvm_resources(
        self,
        *,
        vcpu: int | None = None,
        memory: int | None = None,
        disk_size: int | None = None,
        instance_type: str | None = None,
        allow_restart: bool | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> None:
        """``PATCH /cvms/{cvm}/resources``. Deprecated by the server: `patch_cvm` does the same.

        Args:
            vcpu: number of virtual CPUs.
            memory: MB.
            disk_size: GB.
            instance_type: for example ``tdx.small``.
            allow_restart: the change may restart the CVM.
            **cvm: the CVM.
        """
        identifier, _ = split(cvm, ())
        members = _given(
            vcpu=vcpu, memory=memory, disk_size=disk_size, instance_type=instance_type, allow_restart=allow_restart
        )
        # the official SDK repeats the identifier in the body, and the server has never seen it otherwise
        body = _given(**identifier) | members
        self._transport.call("PATCH", path("cvms", cvm_segment(identifier), "resources"), json=body)

    def update_cvm_visibility(
        self,
        *,
        public_sysinfo: bool | None = None,
        public_logs: bool | None = None,
        public_tcbinfo: bool | None = None,
        listed: bool | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> LegacyCvm:
        """``PATCH /cvms/{cvm}/visibility``, or ``PATCH /cvms/{cvm}/listed`` for the listing.

        These are two endpoints, so one call changes either the flags or the listing. On a CVM with on-chain KMS the
        flags change the compose hash: use `patch_cvm` there, which can be prepared and approved.

        Args:
            public_sysinfo: required with ``public_logs``.
            public_logs: required with ``public_sysinfo``.
            public_tcbinfo: left as it is if not given.
            listed: show the CVM in public lists; given alone.
            **cvm: the CVM.

        Raises:
            InvalidArgument: neither the two required flags nor ``listed`` alone.
        """
        flags = _given(public_sysinfo=public_sysinfo, public_logs=public_logs, public_tcbinfo=public_tcbinfo)
        if listed is not None:
            if flags:
                raise InvalidArgument("listed is changed by a call of its own: two endpoints cannot change as one")
            what, body = "listed", _given(listed=listed)
        elif public_sysinfo is None or public_logs is None:
            raise InvalidArgument("public_sysinfo and public_logs are both required (or listed alone)")
        else:
            what, body = "visibility", flags
        return self._transport.call("PATCH", path("cvms", cvm_segment(cvm), what), json=body).model(LegacyCvm)

    def update_os_image(
        self, *, os_image_name: str | None = None, image: str | None = None, **cvm: Unpack[CvmIdentifier]
    ) -> None:
        """``PATCH /cvms/{cvm}/os-image``: boot another OS image.

        Args:
            os_image_name: name or slug, one of `get_available_os_images`.
            image: another name of the same argument.
            **cvm: the CVM.

        Raises:
            InvalidArgument: no image given.
            RequestRefused: 400, the image is not available for this CVM.
        """
        chosen = os_image_name or image
        if not chosen:
            raise InvalidArgument("os_image_name is required")
        self._transport.call("PATCH", path("cvms", cvm_segment(cvm), "os-image"), json={"os_image_name": chosen})

    def get_available_os_images(self, **cvm: Unpack[CvmIdentifier]) -> tuple[AvailableOsImage, ...]:
        """``GET /cvms/{cvm}/available-os-images``: what this CVM can boot, newest first."""
        answer = self._transport.call("GET", path("cvms", cvm_segment(cvm), "available-os-images"))
        return answer.model(tuple[AvailableOsImage, ...])

    def get_os_images(
        self, *, page: int | None = None, page_size: int | None = None, is_dev: bool | None = None
    ) -> OsImages:
        """``GET /os-images``: all OS images, a page at a time; pages count from 1."""
        query = {"page": page, "page_size": page_size, "is_dev": is_dev}
        return self._transport.call("GET", path("os-images"), query=query).model(OsImages)

    def refresh_cvm_instance_id(
        self, *, overwrite: bool | None = None, dry_run: bool | None = None, **cvm: Unpack[CvmIdentifier]
    ) -> InstanceIdRefresh:
        """``PATCH /cvms/{cvm}/instance-id``: look up the instance id and record it. No new id is made.

        Args:
            overwrite: replace a recorded id that differs.
            dry_run: only say what would happen.
            **cvm: the CVM.
        """
        body = _given(overwrite=overwrite, dry_run=dry_run)
        answer = self._transport.call("PATCH", path("cvms", cvm_segment(cvm), "instance-id"), json=body)
        return answer.model(InstanceIdRefresh)

    def refresh_cvm_instance_ids(
        self,
        *,
        cvm_ids: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        running_only: bool | None = None,
        missing_only: bool | None = None,
        overwrite: bool | None = None,
        dry_run: bool | None = None,
        limit: int | None = None,
    ) -> InstanceIdRefreshes:
        """``PATCH /cvms/instance-ids``: the same for many CVMs.

        Args:
            cvm_ids: these; all of the workspace if not given.
            ids: another name of the same argument.
            running_only: the server assumes true.
            missing_only: the server assumes true.
            overwrite: replace recorded ids that differ.
            dry_run: only say what would happen.
            limit: at most so many CVMs, 1 to 500 (the server assumes 100).

        Raises:
            InvalidArgument: ``limit`` out of range.
        """
        if limit is not None and not 1 <= limit <= _MAX_REFRESHES:
            raise InvalidArgument(f"limit must be 1 to {_MAX_REFRESHES}")
        chosen = cvm_ids if cvm_ids is not None else ids
        body = _given(
            cvm_ids=None if chosen is None else list(chosen),
            running_only=running_only,
            missing_only=missing_only,
            overwrite=overwrite,
            limit=limit,
            dry_run=dry_run,
        )
        return self._transport.call("PATCH", path("cvms", "instance-ids"), json=body).model(InstanceIdRefreshes)

    def provision_cvm_compose_file_update(
        self,
        *,
        app_compose: Mapping[str, Any],
        update_env_vars: bool | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> ComposeFileProvision:
        """``POST /cvms/{cvm}/compose_file/provision``: have the server make an app-compose document and hash it.

        Give ``update_env_vars`` the same value here and in `commit_cvm_compose_file_update`: otherwise the committed
        document has another hash than the one approved, without any error, and the CVM does not boot. Identifiers are
        not normalised by these two functions, and ``name`` is not accepted.

        Args:
            app_compose: the document; ``docker_compose_file`` is required, unknown members are sent too.
            update_env_vars: the commit will replace the allowed environment variables.
            **cvm: the CVM.

        Raises:
            InvalidArgument: no ``docker_compose_file``, or more than 200 KiB of it and the script.
            ValidationError: 422, the compose file is invalid.
        """
        compose = {name: value for name, value in app_compose.items() if name != "update_env_vars"}
        _check_compose_size(compose)
        known = {name: compose[name] for name in _COMPOSE_MEMBERS if name in compose}
        body = known | compose | _given(update_env_vars=update_env_vars)
        target = path("cvms", compose_file_segment(cvm), "compose_file", "provision")
        return self._transport.call("POST", target, json=body).model(ComposeFileProvision)

    def commit_cvm_compose_file_update(
        self,
        *,
        compose_hash: str,
        encrypted_env: str | None = None,
        env_keys: Sequence[str] | None = None,
        update_env_vars: bool | None = None,
        transaction_hash: str | None = None,  # noqa: ARG002 - accepted because the documentation names it
        **cvm: Unpack[CvmIdentifier],
    ) -> None:
        """``PATCH /cvms/{cvm}/compose_file``: run a provisioned compose file. The CVM restarts.

        Args:
            compose_hash: as the provision answered it; on a CVM with on-chain KMS it must be registered by now.
            encrypted_env: hex, see `service.phala.env_encryption.encrypt_env`.
            env_keys: names of the variables in it.
            update_env_vars: as in the provision.
            transaction_hash: **not sent**: this endpoint knows no proof, the server reads the contract.
            **cvm: the CVM, by the rules of `provision_cvm_compose_file_update`.

        Raises:
            InvalidArgument: no compose hash.
            HashNotAllowed: 468.
            RequestRefused: 400, no such provision (they are kept for 14 days).
        """
        if not compose_hash:
            raise InvalidArgument("compose_hash is required")
        body = _given(
            compose_hash=compose_hash,
            encrypted_env=encrypted_env,
            env_keys=None if env_keys is None else list(env_keys),
            update_env_vars=update_env_vars,
        )
        self._transport.call("PATCH", path("cvms", compose_file_segment(cvm), "compose_file"), json=body)


def _check_compose_size(compose: Mapping[str, Any]) -> None:
    compose_file = compose.get("docker_compose_file")
    if not isinstance(compose_file, str):
        raise InvalidArgument("app_compose must hold docker_compose_file as text")
    script = compose.get("pre_launch_script")
    text = compose_file + (script if isinstance(script, str) else "")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_COMPOSE_BYTES:
        raise InvalidArgument(f"docker_compose_file and pre_launch_script have {size} bytes, over {MAX_COMPOSE_BYTES}")
