"""JSON-RPC over HTTP to one endpoint, in batches.

Raw requests through one ``httpx.Client``. web3's ``HTTPProvider.make_request`` skips web3's slow formatters too, but it
costs half as much again per call (0.68 against 0.45 ms of CPU for an empty ``eth_getLogs``), reads answers of any
length, keeps a connection pool per thread, and its errors quote the URL, which often holds a key.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import httpx

from service.adapters.chain_shapes import WrongShape
from service.adapters.clock import SystemClock
from service.adapters.endpoint_health import Health
from service.adapters.http import Reply, exchange, one_line, parse_json, retry_after, transport_faults
from service.adapters.log_ranges import LogRanges
from service.domain.errors import Nonsense, Unreachable
from service.domain.reasons import Reason

_ANSWER_BYTES = 32 * 1024 * 1024  # a catch-up's logs; a block's are far below
_UNREACHABLE = Reason.RPC_UNREACHABLE
_PROOF_SECONDS: Final = 30.0
_TOO_LONG: Final = httpx.codes.REQUEST_ENTITY_TOO_LARGE  # what QuickNode says of an answer, with or without words


class Call(NamedTuple):
    """One JSON-RPC call."""

    method: str
    params: list[Any]


@dataclass(frozen=True, slots=True)
class RpcFault:
    """A JSON-RPC error object.

    Attributes:
        data: ``0x`` hex of the revert data, if the node gave any.
        words: what else the node put into ``data``; some put the true message there.
    """

    code: int
    message: str
    data: str | None
    words: str = ""

    def __str__(self) -> str:
        return one_line(f"{self.message} (code {self.code})", 200)


Result = Any | RpcFault
"""The unchecked ``result`` of a call, or its error."""


class RpcEndpoint:
    """One RPC endpoint of a chain.

    It must say that it serves the chain before its first answer counts, again after every fault, and again every half
    minute: what stands behind a URL can change without a lost connection.

    Args:
        client: shared by all endpoints.
        url: may hold credentials; never shown.
        name: how errors call it.
        chain_id: EIP-155 id it must serve.
        seconds: limit for one exchange.
        changed: notified after each call; shared by the endpoints of the chain.
        monotonic: the time.

    Attributes:
        name: how errors call it.
        health: whether to ask it.
        ranges: how many blocks of logs it gives at once.
    """

    def __init__(
        self,
        client: httpx.Client,
        url: str,
        name: str,
        chain_id: int,
        seconds: float,
        changed: threading.Condition,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._url = url
        self.name = name
        self.health = Health(changed, monotonic)
        self.ranges = LogRanges()
        self._chain_id = chain_id
        self._seconds = seconds
        self._now = monotonic
        self._proven_until = 0.0
        self._clock = SystemClock()

    def batch(self, *calls: Call, proven: bool = False) -> list[Result]:
        """Make the calls in one HTTP request; the results in their order.

        Args:
            calls: what to ask.
            proven: the answer must hold the proof of the chain itself, however young the last one is: for what decides.

        Raises:
            Unreachable: no answer, one that says "later", or one for another chain.
            Nonsense: an answer that is no JSON-RPC.
        """
        try:
            if not proven and self._now() < self._proven_until:
                return self._exchange(calls)
            *results, served = self._exchange((*calls, Call("eth_chainId", [])))
            refused = all(isinstance(result, RpcFault) for result in (*results, served))
            # A whole batch that is refused, as too much for instance, proves nothing: then the id is asked for alone.
            self._verify(self.chain_id() if refused else self._quantity_or_fault(served))
        except Unreachable:
            self._proven_until = 0.0
            raise
        return results

    def chain_id(self) -> int:
        """The EIP-155 id the endpoint says it serves.

        Raises:
            Unreachable: no answer.
            Nonsense: no id.
        """
        (served,) = self._exchange((Call("eth_chainId", []),))
        return self._quantity_or_fault(served)

    def _verify(self, served: int) -> None:
        if served != self._chain_id:
            detail = f"{self.name} serves chain {served}, not {self._chain_id}"
            raise Unreachable(detail, reason=_UNREACHABLE)
        self._proven_until = self._now() + _PROOF_SECONDS

    def _quantity_or_fault(self, result: Result) -> int:
        if isinstance(result, RpcFault):
            raise Unreachable(f"{self.name}: {result}", reason=_UNREACHABLE)
        if not isinstance(result, str) or not result.startswith("0x") or len(result) > 18:  # noqa: PLR2004 - 8 bytes
            raise self.nonsense("a chain id that is no quantity")
        try:
            return int(result, 16)
        except ValueError:
            raise self.nonsense("a chain id that is no quantity") from None

    def nonsense(self, what: str) -> Nonsense:
        """The error for an answer of the wrong shape."""
        return Nonsense(f"{self.name}: {what}", reason=_UNREACHABLE)

    @contextmanager
    def shapes(self) -> Iterator[None]:
        """Around the check of a result: its wrong shape is this endpoint's nonsense."""
        try:
            yield
        except WrongShape as error:
            raise self.nonsense(str(error)) from error

    def unreachable(self, fault: RpcFault) -> Unreachable:
        """The error for a fault that says nothing about the question."""
        return Unreachable(f"{self.name}: {fault}", reason=_UNREACHABLE)

    def _exchange(self, calls: tuple[Call, ...]) -> list[Result]:
        bodies = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": params}
            for index, (method, params) in enumerate(calls)
        ]
        answer = self._post(bodies[0] if len(bodies) == 1 else bodies)
        if isinstance(answer, Mapping) and answer.get("error") is not None:  # also how a whole batch is refused
            return [self._fault(answer["error"])] * len(calls)
        answers = [answer] if len(calls) == 1 else answer
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise self.nonsense("not one answer for each call")
        found = dict(self._pair(item) for item in answers)
        if found.keys() != set(range(len(calls))):
            raise self.nonsense("answers with other ids than the calls'")
        return [found[index] for index in range(len(calls))]

    @cached_property
    def _parsed_url(self) -> httpx.URL:
        """Parsed once: that is half of what building a request costs."""
        return httpx.URL(self._url)

    def _post(self, body: object) -> object:
        with transport_faults(self.name, _UNREACHABLE):
            request = self._client.build_request("POST", self._parsed_url, json=body)
            reply = exchange(self._client, request, limit=_ANSWER_BYTES, seconds=self._seconds)
        if reply.status == httpx.codes.TOO_MANY_REQUESTS or reply.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            wait = retry_after(reply.headers, self._clock.now())
            raise Unreachable(f"{self.name}: HTTP {reply.status}", reason=_UNREACHABLE, retry_after=wait)
        if not reply.complete:
            return _error(_TOO_LONG, "the answer is too long")
        return self._answer(reply)

    def _answer(self, reply: Reply) -> object:
        try:
            answer = parse_json(reply, self.name, _UNREACHABLE)
        except Nonsense:
            if reply.status == _TOO_LONG:
                return _error(_TOO_LONG, "the request or its answer is too long")
            raise
        # Some nodes put a JSON-RPC error under a 4xx.
        told = isinstance(answer, Mapping) and answer.get("error") is not None
        if reply.status != httpx.codes.OK and not told:
            raise Unreachable(f"{self.name}: HTTP {reply.status}", reason=_UNREACHABLE)
        return answer

    def _pair(self, item: object) -> tuple[object, Result]:
        if not isinstance(item, Mapping) or not isinstance(item.get("id"), int):
            raise self.nonsense("an answer without the call's id")
        if item.get("error") is not None:
            return item["id"], self._fault(item["error"])
        if "result" not in item:
            raise self.nonsense("an answer with neither result nor error")
        return item["id"], item["result"]

    def _fault(self, error: object) -> RpcFault:
        if not isinstance(error, Mapping) or not isinstance(error.get("code"), int):
            raise self.nonsense("an error without a code")
        data = error.get("data")
        reverted = _revert_data(data)
        words = "" if data is None or reverted is not None else one_line(str(data), 300)
        return RpcFault(error["code"], str(error.get("message", ""))[:1000], reverted, words)


def _error(code: int, message: str) -> object:
    return {"error": {"code": code, "message": message}}


def _revert_data(data: object) -> str | None:
    """Hex out of the forms nodes use: the hex, ``{"data": hex}``, or ``Reverted 0x..``."""
    if isinstance(data, Mapping):
        data = data.get("data") or data.get("result")
    if not isinstance(data, str):
        return None
    hexed = data.removeprefix("Reverted ").strip()
    digits = hexed.removeprefix("0x")
    is_hex = hexed.startswith("0x") and len(digits) % 2 == 0 and all(c in "0123456789abcdefABCDEF" for c in digits)
    return hexed if is_hex else None
