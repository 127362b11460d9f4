"""RPC endpoints with a chain of their own, honest unless a test makes them lag, lie or err."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from service.domain.chain import TOPICS, Block
from tests.support.hostile_http import Behaviour, Request, RpcSays, rpc

APP, HASH, DEVICE = "0x" + "aA" * 20, "0x" + "9f" * 32, "0x" + "7b" * 32
FINAL_BELOW_HEAD = 10
_TOPIC = next(iter(TOPICS))


@dataclass
class Node:
    """One endpoint.

    Attributes:
        height: of its head; its final block is 10 below.
        branch: a digit that its block hashes begin with.
        allowed: what every flag of the allowlist says.
        has_app: whether there is a contract.
        logs_at: heights with a log.
        most_blocks: of one ``eth_getLogs``; more is refused with ``refusal``.
        chain_id: what it says it serves.
        requests: HTTP requests it got.
        asked: (method, params) of every call but ``eth_chainId``.
    """

    height: int = 100
    branch: str = "a"
    allowed: bool = True
    has_app: bool = True
    logs_at: tuple[int, ...] = ()
    most_blocks: int | None = None
    refusal: RpcSays = field(default_factory=lambda: RpcSays(-32005, "query returned more than 10000 results"))
    chain_id: int = 31337
    requests: int = 0
    asked: list[tuple[str, list[Any]]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Behaviour:
        """Behave as an endpoint."""
        with self._lock:
            self.requests += 1
        return rpc(self.answer, chain_id=self.chain_id)(request)

    def block(self, number: int) -> Block:
        return Block(number, "0x" + self.branch * 4 + f"{number:060x}")

    def answer(self, method: str, params: list[Any]) -> object:
        with self._lock:
            self.asked.append((method, params))
        match method:
            case "eth_getBlockByNumber":
                return self._header(params[0])
            case "eth_getLogs":
                return self._logs(int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16))
            case "eth_call":
                self._pinned(params[1])
                return "0x" + f"{int(self.allowed):064x}" if self.has_app else "0x"
            case _:
                self._pinned(params[1])
                return "0x60" if self.has_app else "0x"

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges of logs it was asked for, so far."""
        asked = [params[0] for method, params in self.asked if method == "eth_getLogs"]
        return [(int(query["fromBlock"], 16), int(query["toBlock"], 16)) for query in asked]

    def _header(self, which: str) -> dict[str, str] | None:
        heights = {"latest": self.height, "finalized": self.height - FINAL_BELOW_HEAD}
        number = heights[which] if which in heights else int(which, 16)
        return {"number": hex(number), "hash": self.block(number).hash} if number <= self.height else None

    def _pinned(self, at: object) -> None:
        hashes = {self.block(number).hash for number in range(self.height + 1)}
        if isinstance(at, dict) and at["blockHash"] not in hashes:
            raise RpcSays(-32000, "header not found")

    def _logs(self, first: int, last: int) -> list[dict[str, object]]:
        if self.most_blocks is not None and last - first + 1 > self.most_blocks:
            raise self.refusal
        return [self._log(number) for number in self.logs_at if first <= number <= last]

    def _log(self, number: int) -> dict[str, object]:
        return {
            "address": APP,
            "topics": [_TOPIC],
            "data": HASH,
            "blockNumber": hex(number),
            "blockHash": self.block(number).hash,
            "transactionHash": "0x" + f"{number:064x}",
            "logIndex": "0x0",
        }


def saying(answer: Callable[[str, list[Any]], object]) -> Callable[[Request], Behaviour]:
    """An endpoint of the right chain that answers whatever the function says."""
    return rpc(answer)


@dataclass
class HandClock:
    """Monotonic time that moves when told."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds
