"""A Python helper for the sandbox's controls."""

from types import TracebackType
from typing import Any, Self

import httpx

PROPOSALS = "/api/v2/safes/*/multisig-transactions/"
CONFIRMATIONS = "/api/v1/multisig-transactions/*/confirmations/"
TRANSACTION = "/api/v2/multisig-transactions/*/"


class Control:
    """Steers and inspects a running sandbox; paths are whole ones with shell wildcards, as the constants beside it.

    Args:
        base_url: address of the sandbox, without `/api`.

    Methods raise `httpx.HTTPStatusError` if the sandbox refuses.
    """

    def __init__(self, base_url: str) -> None:
        self._client = httpx.Client(base_url=f"{base_url.rstrip('/')}/_sandbox", timeout=10.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def add_fault(self, **members: object) -> None:
        """Misbehave at matching requests; members as in `sandbox.phala_cloud.faults.Fault`."""
        self._request("POST", "/faults", members)

    def clear_faults(self) -> None:
        """Behave again."""
        self._request("DELETE", "/faults")

    def slow_down(self, method: str, path: str, seconds: float, times: int = 1) -> None:
        """Answer the next matching requests late."""
        self.add_fault(method=method, path=path, times=times, delay_seconds=seconds)

    def fail(self, method: str, path: str, status: int = 503, times: int = 1, retry_after: int | None = None) -> None:
        """Refuse the next matching requests; nothing happens. `retry_after` is in seconds."""
        headers = {"content-type": "application/json"}
        if retry_after is not None:
            headers["retry-after"] = str(retry_after)
        body = '{"detail": "The sandbox was told to fail"}'
        self.add_fault(method=method, path=path, times=times, status=status, headers=headers, body=body)

    def drop_before(self, method: str, path: str, times: int = 1) -> None:
        """Cut the connection; nothing happens."""
        self.add_fault(method=method, path=path, times=times, drop=True)

    def drop_after(self, method: str, path: str, times: int = 1) -> None:
        """Do what is asked, then cut the connection instead of answering."""
        self.add_fault(method=method, path=path, times=times, drop=True, when="after")

    def lag(self, blocks_behind: int = 0, *, paused: bool = False) -> None:
        """Index so many blocks late, or (paused) nothing more; without arguments, keep up again."""
        self._request("PUT", "/indexing", {"blocks_behind": blocks_behind, "paused": paused})

    def ledger(self) -> dict[str, Any]:
        """`requests`: counts by method and route; `proposals`: those taken, oldest first."""
        report: dict[str, Any] = self._request("GET", "/ledger").json()
        return report

    def clear_ledger(self) -> None:
        """Count from zero."""
        self._request("DELETE", "/ledger")

    def _request(self, method: str, path: str, body: object = None) -> httpx.Response:
        response = self._client.request(method, path, json=body)
        response.raise_for_status()
        return response
