from collections.abc import Callable, Sequence
from typing import TypeVar

import httpx

from service.adapters.http import new_client
from service.adapters.jsonrpc import RpcEndpoint
from service.domain.errors import StateUnavailable, Unreachable

T = TypeVar("T")


class RpcEndpoints:
    """The RPC endpoints of one chain, tried in order, beginning with the one that answered last.

    Args:
        chain_id: EIP-155 id they must serve.
        rpc_urls: best first; they may hold credentials and are never shown: errors call them by their number.
        timeout: seconds for one exchange with one endpoint.
        transport: replaces the network.

    Raises:
        ValueError: no endpoint.
    """

    def __init__(
        self, chain_id: int, rpc_urls: Sequence[str], timeout: float, transport: httpx.BaseTransport | None
    ) -> None:
        if not rpc_urls:
            raise ValueError(f"chain {chain_id} needs at least one RPC endpoint")
        self._chain_id = chain_id
        self._client = new_client(timeout=timeout, transport=transport)
        self._endpoints = [
            RpcEndpoint(self._client, url, f"RPC endpoint {number} of chain {chain_id}", chain_id, timeout)
            for number, url in enumerate(rpc_urls, 1)
        ]
        self._preferred = 0

    def first(self, ask: Callable[[RpcEndpoint], T]) -> T:
        """The answer of the first endpoint that has one.

        Raises:
            Unreachable: the last endpoint's fault.
            StateUnavailable: likewise.
        """
        start = self._preferred
        indices = [(start + offset) % len(self._endpoints) for offset in range(len(self._endpoints))]
        for index in indices[:-1]:
            try:
                answer = ask(self._endpoints[index])
            except (Unreachable, StateUnavailable):
                continue
            self._preferred = index
            return answer
        answer = ask(self._endpoints[indices[-1]])
        self._preferred = indices[-1]
        return answer

    def served_chain_id(self) -> int:
        """The id the endpoints say they serve; with several, the first that is another than it should be.

        Raises:
            Unreachable: none of them answered, so nothing is known to be wrong.
        """
        served: list[int] = []
        faults: list[Unreachable] = []
        for endpoint in self._endpoints:
            try:
                served.append(endpoint.chain_id())
            except Unreachable as fault:
                faults.append(fault)
        if not served:
            raise faults[0]
        return next((one for one in served if one != self._chain_id), self._chain_id)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
