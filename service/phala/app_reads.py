"""Reads of an app and of many CVMs at once. ``app_id`` goes into the path as given: 40 hex digits, bare or with 0x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.phala.identifiers import path
from service.phala.models.apps import (
    AppCvmsIsAllowed,
    AppDeviceAllowlist,
    AppKmsInfo,
    AppRevisionDetail,
    AppRevisions,
    IsAllowed,
    PendingUpdatePreview,
    PendingUpdates,
)
from service.phala.models.cvm import CvmInfo, CvmStatus
from service.phala.transport import Functions

if TYPE_CHECKING:
    from collections.abc import Sequence


class AppReads(Functions):
    """What an app's contract allows, its history, and what waits. Errors: any of `service.phala.errors`."""

    def check_cvm_is_allowed(
        self,
        *,
        cvm_id: str,
        compose_hash: str | None = None,
        node_id: int | None = None,
        device_id: str | None = None,
    ) -> IsAllowed:
        """``POST /cvms/{cvm_id}/is-allowed``: would the contract let this CVM boot. Changes nothing.

        Args:
            cvm_id: sent as given, in no way normalised.
            compose_hash: another hash than the CVM's.
            node_id: another node than the CVM's.
            device_id: another device than the CVM's.
        """
        body = {"compose_hash": compose_hash, "node_id": node_id, "device_id": device_id}
        return self._is_allowed(("cvms", cvm_id), body)

    def check_app_is_allowed(
        self,
        *,
        app_id: str,
        compose_hash: str,
        node_id: int | None = None,
        device_id: str | None = None,
        chain_id: int | None = None,
    ) -> IsAllowed:
        """``POST /apps/{app_id}/is-allowed``: does the contract allow a hash, on a device. Changes nothing."""
        body = {"compose_hash": compose_hash, "node_id": node_id, "device_id": device_id, "chain_id": chain_id}
        return self._is_allowed(("apps", app_id), body)

    def _is_allowed(self, owner: tuple[str, str], body: dict[str, str | int | None]) -> IsAllowed:
        given = {name: value for name, value in body.items() if value is not None}
        answer = self._transport.call("POST", path(*owner, "is-allowed"), json=given, read_only=True)
        return answer.model(IsAllowed)

    def check_app_cvms_is_allowed(self, *, app_id: str) -> AppCvmsIsAllowed:
        """``POST /apps/{app_id}/cvms/is-allowed``: the same for every CVM of the app. Changes nothing."""
        target = path("apps", app_id, "cvms", "is-allowed")
        return self._transport.call("POST", target, json={}, read_only=True).model(AppCvmsIsAllowed)

    def get_app_cvms(self, *, app_id: str) -> tuple[CvmInfo, ...]:
        """``GET /apps/{app_id}/cvms``: all CVMs of an app."""
        return self._transport.call("GET", path("apps", app_id, "cvms")).model(tuple[CvmInfo, ...])

    def get_app_device_allowlist(self, *, app_id: str) -> AppDeviceAllowlist:
        """``GET /apps/{app_id}/device-allowlist``: which devices the contract allows."""
        return self._transport.call("GET", path("apps", app_id, "device-allowlist")).model(AppDeviceAllowlist)

    def get_app_kms_info(self, *, app_id: str) -> AppKmsInfo:
        """``GET /apps/{app_id}/kms-info``: the chain, the contracts and the kind of owner."""
        return self._transport.call("GET", path("apps", app_id, "kms-info")).model(AppKmsInfo)

    def get_pending_updates(self, *, app_id: str) -> PendingUpdates:
        """``GET /apps/{app_id}/pending-updates``: provisioned compose files that are not applied yet."""
        return self._transport.call("GET", path("apps", app_id, "pending-updates")).model(PendingUpdates)

    def get_pending_update_preview(self, *, app_id: str, vm_uuid: str, compose_hash: str) -> PendingUpdatePreview:
        """``GET /apps/{app_id}/pending-updates/{vm_uuid}/{compose_hash}/preview``: what one of them would change."""
        target = path("apps", app_id, "pending-updates", vm_uuid, compose_hash, "preview")
        return self._transport.call("GET", target).model(PendingUpdatePreview)

    def get_app_revisions(self, *, app_id: str, page: int | None = None, page_size: int | None = None) -> AppRevisions:
        """``GET /apps/{app_id}/revisions``: the app's updates, a page at a time.

        Args:
            app_id: the app.
            page: counts from 1.
            page_size: at most 1000 (the server assumes 50).
        """
        query = {"page": page, "page_size": page_size}
        return self._transport.call("GET", path("apps", app_id, "revisions"), query=query).model(AppRevisions)

    def get_app_revision_detail(
        self, *, app_id: str, revision_id: str, raw_compose_file: bool | None = None
    ) -> AppRevisionDetail:
        """``GET /apps/{app_id}/revisions/{revision_id}``: one update with what it deployed.

        Args:
            app_id: the app.
            revision_id: of `get_app_revisions`.
            raw_compose_file: the compose file as the text that was hashed instead of an object.
        """
        target = path("apps", app_id, "revisions", revision_id)
        answer = self._transport.call("GET", target, query={"raw_compose_file": raw_compose_file})
        return answer.model(AppRevisionDetail)

    def get_cvm_status_batch(self, *, vm_uuids: Sequence[str]) -> dict[str, CvmStatus]:
        """``POST /status/batch``: the short status of many CVMs, keyed by ``vm_uuid``. Changes nothing.

        A CVM that is missing in the answer is missing in the result.
        """
        answer = self._transport.call(
            "POST", path("status", "batch"), json={"vm_uuids": list(vm_uuids)}, read_only=True
        )
        return answer.model(dict[str, CvmStatus])
