r"""An Ethereum JSON-RPC endpoint that fails as real ones do, in front of a node that works.

    from sandbox.rpc_proxy import Lag, Pass, RpcProxy, Stall

    with RpcProxy(anvil.rpc_url) as first, RpcProxy(anvil.rpc_url) as second:
        second.behave(Lag(5))    # answers as a node that is five blocks behind
        first.behave(Stall())    # accepts requests and answers none
        first.behave(Pass())     # well again
        first.calls["eth_call"]  # how often it was asked, by method; also `requests`, `bytes_in`, `bytes_out`

One endpoint per proxy, each on a port of its own that it keeps. From a shell, until Ctrl-C:

    python -m sandbox.rpc_proxy --node http://127.0.0.1:8545 --port 9545 --behave lag:5

Behaviours: `pass`, `stall`, `refuse` (nobody listens), `error[:status]`, `busy[:seconds]` (429 with Retry-After),
`lag:blocks`, `no-logs` (eth_getLogs answers an empty list), `lie` (the contrary of what allowlists say),
`other-chain[:id]`, `range-limit:blocks` (eth_getLogs over more is refused). HTTP only, single calls and batches.
"""

import argparse
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Protocol, Self

import httpx
from eth_utils.abi import function_signature_to_4byte_selector

from sandbox.processes import free_port
from sandbox.rpc_views import blocks_of_logs, seen_from

Json = dict[str, Any]
Ask = Callable[[str, list[Any]], Json]
"""Asks the node; the members of its answer: ``result`` or ``error``."""

_NODE_SECONDS: Final = 30.0
_LISTS: Final = tuple(
    "0x" + function_signature_to_4byte_selector(signature).hex()
    for signature in ("allowedComposeHashes(bytes32)", "allowedDeviceIds(bytes32)", "allowAnyDevice()")
)


class Behaviour(Protocol):
    """How an endpoint answers one call."""

    def answer(self, method: str, params: list[Any], ask: Ask) -> Json:
        """The members of the answer: ``result`` or ``error``."""
        ...


@dataclass(frozen=True, slots=True)
class Pass:
    """As the node answers."""

    def answer(self, method: str, params: list[Any], ask: Ask) -> Json:
        """Ask the node."""
        return ask(method, params)


@dataclass(frozen=True, slots=True)
class Stall(Pass):
    """Requests are taken and never answered, until the behaviour changes."""


@dataclass(frozen=True, slots=True)
class Refuse(Pass):
    """Nobody listens: connections are refused, open ones break."""


@dataclass(frozen=True, slots=True)
class Fail(Pass):
    """Every request gets an HTTP status, with ``Retry-After`` where seconds are given."""

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Lag:
    """As a node answers that is so many blocks behind: it knows none of the newer ones and has no state at them."""

    blocks: int

    def answer(self, method: str, params: list[Any], ask: Ask) -> Json:
        """Answer as of an older head."""
        return seen_from(self.blocks, method, params, ask)


@dataclass(frozen=True, slots=True)
class NoLogs:
    """There are never any logs."""

    def answer(self, method: str, params: list[Any], ask: Ask) -> Json:
        """Leave out all logs."""
        return {"result": []} if method == "eth_getLogs" else ask(method, params)


@dataclass(frozen=True, slots=True)
class Lie:
    """The contrary of what an app contract says about its allowlists."""

    def answer(self, method: str, params: list[Any], ask: Ask) -> Json:
        """Turn booleans round."""
        told = ask(method, params)
        if method != "eth_call" or not isinstance(told.get("result"), str):
            return told
        data = str(params[0].get("data") or params[0].get("input") or "")
        return {"result": f"0x{1 - int(told['result'], 16):064x}"} if data.startswith(_LISTS) else told


@dataclass(frozen=True, slots=True)
class OtherChain:
    """It says that it serves another chain."""

    chain_id: int = 1

    def answer(self, method: str, params: list[Any], ask: Ask) -> Json:
        """Tell the other id."""
        ids = {"eth_chainId": hex(self.chain_id), "net_version": str(self.chain_id)}
        return {"result": ids[method]} if method in ids else ask(method, params)


@dataclass(frozen=True, slots=True)
class RangeLimit:
    """Logs of more blocks at once are refused; ``text`` and ``code`` are those of one provider (QuickNode)."""

    blocks: int
    text: str = "eth_getLogs is limited to a {blocks:,} range"
    code: int = -32614

    def answer(self, method: str, params: list[Any], ask: Ask) -> Json:
        """Refuse a long range."""
        if method == "eth_getLogs" and "blockHash" not in params[0]:
            first, last = blocks_of_logs(params[0], ask)
            if last - first >= self.blocks:
                return {"error": {"code": self.code, "message": self.text.format(blocks=self.blocks)}}
        return ask(method, params)


class RpcProxy:
    """One endpoint in front of a node; listens from ``start`` (or the ``with`` block) on.

    Attributes:
        calls: JSON-RPC calls by method, those of a batch one by one, answered or not.
        requests: HTTP requests.
        bytes_in: of their bodies.
        bytes_out: of the answers' bodies.
    """

    def __init__(self, node_url: str, *, port: int = 0, behaviour: Behaviour | None = None) -> None:
        """Take the node's URL, a port (0: a free one) and what it does at first."""
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.calls: Counter[str] = Counter()
        self.requests = self.bytes_in = self.bytes_out = 0
        self._node_url = node_url
        self._behaviour: Behaviour = behaviour or Pass()
        self._changed = threading.Condition()
        self._node: httpx.Client | None = None
        self._server: _Server | None = None

    def start(self) -> Self:
        """Listen; to a stopped one, again."""
        self._node = httpx.Client(timeout=_NODE_SECONDS)
        if not isinstance(self._behaviour, Refuse):
            self._listen()
        return self

    def stop(self) -> None:
        """Break all connections; harmless when stopped."""
        self._deafen()
        if self._node is not None:
            self._node.close()
            self._node = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def behaviour(self) -> Behaviour:
        """What it does now."""
        return self._behaviour

    def behave(self, behaviour: Behaviour) -> None:
        """From the next request on; requests that stall are dropped."""
        with self._changed:
            self._behaviour = behaviour
            self._changed.notify_all()
        if isinstance(behaviour, Refuse):
            self._deafen()
        elif self._server is None and self._node is not None:
            self._listen()

    def reset_counts(self) -> None:
        """Count from zero."""
        with self._changed:
            self.calls.clear()
            self.requests = self.bytes_in = self.bytes_out = 0

    # One request

    def serve(self, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        """Status, headers and body of the answer to one request; ``None`` to drop it."""
        asked = json.loads(body)
        calls: list[Json] = asked if isinstance(asked, list) else [asked]
        with self._changed:
            self.requests += 1
            self.bytes_in += len(body)
            self.calls.update(str(call.get("method")) for call in calls)
            behaviour = self._behaviour
            if isinstance(behaviour, Stall):
                self._changed.wait_for(lambda: self._behaviour is not behaviour)
                return None
        headers = {"Content-Type": "application/json"}
        if isinstance(behaviour, Fail):
            if behaviour.retry_after is not None:
                headers["Retry-After"] = str(behaviour.retry_after)
            status, answer = behaviour.status, b'{"error": "the sandbox was told to fail"}'
        else:
            answers = [self._answer(behaviour, call) for call in calls]
            status, answer = HTTPStatus.OK, json.dumps(answers if isinstance(asked, list) else answers[0]).encode()
        with self._changed:
            self.bytes_out += len(answer)
        return status, headers, answer

    def _answer(self, behaviour: Behaviour, call: Json) -> Json:
        told = behaviour.answer(str(call.get("method")), list(call.get("params") or []), self._ask)
        return {"jsonrpc": "2.0", "id": call.get("id"), **told}

    def _ask(self, method: str, params: list[Any]) -> Json:
        if self._node is None:
            raise RuntimeError("the proxy is stopped")
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        told: Json = self._node.post(self._node_url, json=call).raise_for_status().json()
        return {name: value for name, value in told.items() if name in ("result", "error")}

    # The socket

    def _listen(self) -> None:
        self._server = _Server(self, self.port)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name=f"rpc-proxy-{self.port}").start()

    def _deafen(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        with self._changed:
            if isinstance(self._behaviour, Stall):
                self._behaviour = Stall()  # another one, which lets go of those that wait
                self._changed.notify_all()
        server.shutdown()
        server.break_connections()
        server.server_close()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, proxy: RpcProxy, port: int) -> None:
        self.proxy = proxy
        self._open: set[Any] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - as in the base class
        self._open.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):  # it may be gone already
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """A client that left, or a node that died: the connection ends, as it would at a real endpoint."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        told = self.server.proxy.serve(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if told is None:
            self.close_connection = True
            return
        status, headers, body = told
        self.send_response(status)
        for name, value in (*headers.items(), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Say nothing."""


def parse_behaviour(text: str) -> Behaviour:
    """Read a behaviour as the module's description names them, such as ``lag:5``.

    Raises:
        ValueError: there is none of that name, or its number is missing or none.
    """
    name, _, number = text.partition(":")
    plain: dict[str, Behaviour] = {
        "pass": Pass(),
        "stall": Stall(),
        "refuse": Refuse(),
        "error": Fail(),
        "busy": Fail(HTTPStatus.TOO_MANY_REQUESTS, 1),
        "no-logs": NoLogs(),
        "lie": Lie(),
        "other-chain": OtherChain(),
    }
    numbered: dict[str, Callable[[int], Behaviour]] = {
        "error": Fail,
        "busy": lambda seconds: Fail(HTTPStatus.TOO_MANY_REQUESTS, seconds),
        "lag": Lag,
        "other-chain": OtherChain,
        "range-limit": RangeLimit,
    }
    if number and name in numbered:
        return numbered[name](int(number))
    if not number and name in plain:
        return plain[name]
    raise ValueError(f"no behaviour {text!r}: see `python -m sandbox.rpc_proxy --help`")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one endpoint until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", required=True, help="URL of the node")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (a free one by default)")
    parser.add_argument("--behave", type=parse_behaviour, default=Pass(), help="what it does (pass by default)")
    told = parser.parse_args(arguments)
    with RpcProxy(told.node, port=told.port, behaviour=told.behave) as proxy:
        print(f"{proxy.url} -> {told.node}: {proxy.behaviour}", flush=True)  # noqa: T201 - what it was started for
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
