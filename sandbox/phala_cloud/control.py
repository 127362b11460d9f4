"""A Python helper for the sandbox's controls."""

from types import TracebackType
from typing import Any, Self

import httpx

from sandbox.polling import wait_for

Json = dict[str, Any]


class Control:
    """Seeds, steers and inspects a running sandbox.

    Methods raise `httpx.HTTPStatusError` if the sandbox refuses; the exception's response says why.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.api_url = f"{self.base_url}/api/v1"
        """The address Phala's clients take, as in `PHALA_CLOUD_API_PREFIX`."""
        self._client = httpx.Client(base_url=f"{self.base_url}/_sandbox", timeout=10.0)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def health(self) -> Json:
        """The sandbox's `now` (epoch seconds) and `rpc_url`."""
        return self._json("GET", "/health")

    # Seeding

    def create_workspace(self, slug: str, **members: str) -> Json:
        """A workspace (`name`, `username` optional); the answer holds its `api_key`."""
        return self._json("POST", "/workspaces", {"slug": slug, **members})

    def create_api_key(self, slug: str) -> str:
        """Another API key of a workspace."""
        return str(self._json("POST", f"/workspaces/{slug}/api-keys")["api_key"])

    def preview_compose(self, name: str = "my-app", compose: Json | None = None) -> Json:
        """`compose` (canonical text) and `compose_hash` of a CVM created with the same arguments."""
        return self._json("POST", "/compose", {"name": name, "compose": compose or {}})

    def create_cvm(self, workspace: str, **members: object) -> Json:
        """A CVM; members as in `seeding.CvmSeed`: app_id, device_id, chain_id (None: off chain), compose."""
        return self._json("POST", "/cvms", {"workspace": workspace, **members})

    def register_webhook(self, workspace: str, url: str, **members: object) -> Json:
        """A receiver (`events`, `secret` optional); the answer holds `id` and `secret`."""
        return self._json("POST", f"/workspaces/{workspace}/webhooks", {"url": url, **members})

    def rotate_webhook_secret(self, webhook_id: str) -> str:
        """Replace a receiver's secret at once; answers the new one."""
        return str(self._json("POST", f"/webhooks/{webhook_id}/rotate-secret")["secret"])

    # Time and pace

    def settings(self, **changes: float | bool) -> Json:
        """Change settings (see `settings.Settings`) and answer all of them."""
        return self._json("PATCH", "/settings", changes)

    def advance_clock(self, seconds: float) -> float:
        """Move the sandbox's clock forward; answers its new offset in seconds."""
        offset = float(self._json("GET", "/settings")["clock_offset"]) + seconds
        self.settings(clock_offset=offset)
        return offset

    # Misbehaviour

    def add_fault(self, **members: object) -> Json:
        """Misbehave at matching requests; members as in `faults.Fault`."""
        return self._json("POST", "/faults", members)

    def clear_faults(self) -> None:
        """Behave again."""
        self._request("DELETE", "/faults")

    def slow_down(
        self,
        method: str,
        path: str,
        seconds: float,
        times: int = 1,
        *,
        after: bool = False,
    ) -> None:
        """Answer the next matching requests late; with `after` only the answer is late, not the effect."""
        when = "after" if after else "before"
        self.add_fault(method=method, path=path, times=times, delay_seconds=seconds, when=when)

    def fail(
        self,
        method: str,
        path: str,
        status: int = 503,
        times: int = 1,
        retry_after: int | None = None,
    ) -> None:
        """Refuse the next matching requests with a plain JSON error; nothing happens."""
        headers = {"content-type": "application/json"}
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        body = '{"detail": "The sandbox was told to fail"}'
        self.add_fault(method=method, path=path, times=times, status=status, headers=headers, body=body)

    def answer(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        body: str = "",
        content_type: str = "text/html",
        after: bool = False,
        times: int = 1,
    ) -> None:
        """Replace the answer (HTML, nothing, garbage); with `after`, what was asked for still happens."""
        self.add_fault(
            method=method,
            path=path,
            times=times,
            when="after" if after else "before",
            status=status,
            headers={"content-type": content_type},
            body=body,
        )

    def drop_before(self, method: str, path: str, times: int = 1) -> None:
        """Cut the connection; nothing happens."""
        self.add_fault(method=method, path=path, times=times, drop=True)

    def drop_after(self, method: str, path: str, times: int = 1) -> None:
        """Do what is asked for, then cut the connection: the answer is lost."""
        self.add_fault(method=method, path=path, times=times, drop=True, when="after")

    def lag(self, state_blocks: int, receipt_blocks: int | None = None) -> None:
        """See the chain so many blocks late: allowlist and, by default equally, receipts."""
        receipts = state_blocks if receipt_blocks is None else receipt_blocks
        self.settings(state_lag_blocks=state_blocks, receipt_lag_blocks=receipts)

    def add_mishap(self, cvm: str, kind: str, detail: str | None = None) -> None:
        """Let a CVM's next operation go wrong: `operation_failure`, `boot_failure` or `other_compose`."""
        self._json("POST", f"/cvms/{cvm}/mishaps", {"kind": kind} | ({} if detail is None else {"detail": detail}))

    def hold(self, cvm: str, seconds: float = 3600.0) -> str:
        """Keep a CVM busy with another operation (409); answers its correlation id."""
        return str(self._json("POST", f"/cvms/{cvm}/hold", {"seconds": seconds})["correlation_id"])

    def release(self, cvm: str) -> None:
        """End that other operation."""
        self._request("DELETE", f"/cvms/{cvm}/hold")

    # Looking

    def cvm(self, cvm: str) -> Json:
        """CvmInfo, and running_compose_hash, boot_error, environment (in clear) and device_id."""
        return self._json("GET", f"/cvms/{cvm}")

    def kms(self, kms: str) -> Json:
        """KmsInfo and `k256_pubkey`, the compressed key its signatures recover to."""
        return self._json("GET", f"/kms/{kms}")

    def ledger(self, kind: str | None = None, vm_uuid: str | None = None) -> list[Json]:
        """What happened, oldest first."""
        wanted = {"kind": kind, "vm_uuid": vm_uuid}
        query = {key: value for key, value in wanted.items() if value is not None}
        entries: list[Json] = self._request("GET", "/ledger", params=query).json()
        return entries

    def accepted_commits(self, vm_uuid: str | None = None) -> list[Json]:
        """The commits by token that were accepted."""
        return [entry for entry in self.ledger("commit", vm_uuid) if entry["accepted"]]

    def wait_idle(self, cvm: str, seconds: float = 30.0) -> Json:
        """Poll until no operation runs on the CVM; answers what `cvm()` then does.

        Raises:
            TimeoutError: one still runs after so many real seconds.
        """
        seen: Json = {}

        def is_idle() -> bool:
            seen.update(self.cvm(cvm))
            return not seen["in_progress"]

        if not wait_for(is_idle, seconds):
            raise TimeoutError(f"{cvm} is still busy: {seen['progress']}")
        return seen

    def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        answer: Json = self._request(method, path, json=body).json()
        return answer

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:  # noqa: ANN401 - passed on to httpx
        response = self._client.request(method, path, **arguments)
        return response.raise_for_status()
