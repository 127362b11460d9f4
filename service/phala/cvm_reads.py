"""Reads of one CVM. All are GETs (retried once as documented), except the two POSTs that change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from service.phala.identifiers import CvmIdentifier, cvm_segment, path
from service.phala.models.attestation import CvmAttestation
from service.phala.models.compose import AppCompose
from service.phala.models.cvm import CvmInfo, CvmList, CvmOperation, CvmOperations, CvmState, CvmUserConfig
from service.phala.transport import Functions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from typing import Unpack

    from service.phala.answers import Answer


class CvmReads(Functions):
    """What a CVM is, does and proves. Errors: any of `service.phala.errors`; 404 is `NotFound`."""

    def _get(self, what: tuple[str, ...], cvm: CvmIdentifier) -> Answer:
        return self._transport.call("GET", path("cvms", cvm_segment(cvm), *what))

    def get_cvm_info(self, **cvm: Unpack[CvmIdentifier]) -> CvmInfo:
        """``GET /cvms/{cvm}``: everything the API says about a CVM."""
        return self._get((), cvm).model(CvmInfo)

    def get_cvm_state(self, **cvm: Unpack[CvmIdentifier]) -> CvmState:
        """``GET /cvms/{cvm}/state``: the state now. `watch_cvm_state` waits for one."""
        return self._get(("state",), cvm).model(CvmState)

    def get_cvm_compose_file(self, **cvm: Unpack[CvmIdentifier]) -> AppCompose:
        """``GET /cvms/{cvm}/compose_file``: the app-compose document, with its hash computed on request."""
        answer = self._get(("compose_file",), cvm)
        document = answer.read(answer.json(), dict[str, Any])
        return answer.read(document, AppCompose).keeping(document)

    def get_cvm_docker_compose(self, **cvm: Unpack[CvmIdentifier]) -> str:
        """``GET /cvms/{cvm}/docker-compose.yml``: the YAML as text."""
        return self._get(("docker-compose.yml",), cvm).text()

    def get_cvm_pre_launch_script(self, **cvm: Unpack[CvmIdentifier]) -> str:
        """``GET /cvms/{cvm}/pre-launch-script``: the script as text, empty if there is none."""
        return self._get(("pre-launch-script",), cvm).text()

    def get_cvm_user_config(self, **cvm: Unpack[CvmIdentifier]) -> CvmUserConfig:
        """``GET /cvms/{cvm}/user_config``."""
        return self._get(("user_config",), cvm).model(CvmUserConfig)

    def get_cvm_attestation(self, **cvm: Unpack[CvmIdentifier]) -> CvmAttestation:
        """``GET /cvms/{cvm}/attestation``: measurements and event log; without them while the CVM is offline."""
        return self._get(("attestation",), cvm).model(CvmAttestation)

    def get_cvm_operations(
        self,
        *,
        cursor: str | None = None,
        limit: int | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        operation_types: Sequence[str] | None = None,
        **cvm: Unpack[CvmIdentifier],
    ) -> CvmOperations:
        """``GET /cvms/{cvm}/operations``: one page of operations, each under its correlation id.

        Args:
            cursor: ``next_cursor`` of the page before.
            limit: operations per page, 1 to 500 (50 if not given).
            start_time: only those started after it; must know its zone.
            end_time: only those started before it; must know its zone.
            operation_types: for example ``compose_update``.
            **cvm: the CVM.
        """
        query = {
            "cursor": cursor,
            "limit": limit,
            "start_time": start_time.isoformat() if start_time else None,
            "end_time": end_time.isoformat() if end_time else None,
            "operation_types": list(operation_types) if operation_types else None,
        }
        answer = self._transport.call("GET", path("cvms", cvm_segment(cvm), "operations"), query=query)
        return answer.model(CvmOperations)

    def iter_cvm_operations(
        self, *, start_time: datetime | None = None, limit: int | None = None, **cvm: Unpack[CvmIdentifier]
    ) -> Iterator[CvmOperation]:
        """All operations of a CVM, page by page as they are asked for; arguments as `get_cvm_operations`.

        A cursor that comes twice ends the walk: a server that repeats itself must not hold a caller for ever.
        """
        seen: set[str] = set()
        cursor: str | None = None
        while True:
            page = self.get_cvm_operations(cursor=cursor, limit=limit, start_time=start_time, **cvm)
            yield from page.items
            cursor = page.next_cursor
            if not cursor or cursor in seen:
                return
            seen.add(cursor)

    def get_commit_token_info(self, *, token: str | SecretStr, **cvm: Unpack[CvmIdentifier]) -> dict[str, Any]:
        """``GET /cvms/{cvm}/commit-update``: what a commit token stands for. Needs no API key.

        **The token travels in the URL** and may stay in the logs of proxies. The answer's form is not documented:
        the JSON object is returned as it came, and may hold secrets.
        """
        secret = token.get_secret_value() if isinstance(token, SecretStr) else token
        answer = self._transport.call(
            "GET", path("cvms", cvm_segment(cvm), "commit-update"), query={"token": secret}, secrets=(secret,)
        )
        return answer.model(dict[str, Any])

    def get_cvm_list(
        self,
        *,
        page: int | None = None,
        page_size: int | None = None,
        node_id: int | None = None,
        user_id: str | None = None,
    ) -> CvmList:
        """``GET /cvms/paginated``: the workspace's CVMs, a page at a time; pages count from 1."""
        query = {"page": page, "page_size": page_size, "node_id": node_id, "user_id": user_id}
        return self._transport.call("GET", path("cvms", "paginated"), query=query).model(CvmList)
