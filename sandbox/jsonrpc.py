"""A thin JSON-RPC client for an Ethereum node: raw requests, raw answers (0x-prefixed hex)."""

from types import TracebackType
from typing import Any, Self

import httpx


class RpcError(RuntimeError):
    """A JSON-RPC answer that carries `error`.

    Attributes:
        code: the JSON-RPC error code.
        data: its `data` member (0x-prefixed revert data, where the node gives it), or None.
    """

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        super().__init__(f"{method}: {error.get('message')} (code {error.get('code')})")
        self.code: int | None = error.get("code")
        self.data: Any = error.get("data")


class JsonRpc:
    """Calls one endpoint over one connection pool; usable from several threads.

    Args:
        url: http(s) URL of the node.
        timeout: seconds for one call.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        self.url = url
        self._client = httpx.Client(timeout=timeout)

    def __call__(self, method: str, params: list[Any] | None = None) -> Any:  # noqa: ANN401 - results are any JSON
        """Call a method and return its `result`.

        Raises:
            RpcError: the node answered an error.
            httpx.HTTPError: no answer, or one that is no success.
        """
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or []}
        response = self._client.post(self.url, json=request)
        response.raise_for_status()
        answer = response.json()
        if "error" in answer:
            raise RpcError(method, answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Close the connections; the end of a `with` block does."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
