"""A local HTTP server that answers whatever a test wants, and worse."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Say:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: object, status: int = 200, **headers: str) -> "Say":
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


@dataclass(frozen=True)
class HangUp:
    """Close the connection after these bytes."""

    after: bytes = b""


@dataclass(frozen=True)
class Stall:
    """Send these bytes, then nothing more until the test ends."""

    after: bytes = b""


@dataclass(frozen=True)
class Drip:
    """A body that never ends: one byte at a time, until the client leaves or the test ends."""

    every_seconds: float = 0.02


Behaviour = Say | HangUp | Stall | Drip


@dataclass
class Served:
    """A running server."""

    url: str
    requests: list[Request]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, body)
        self.server.requests.append(request)
        behaviour = self.server.behave(request)
        if isinstance(behaviour, Say):
            self.say(behaviour)
            return
        self.close_connection = True
        if isinstance(behaviour, Drip):
            self.drip(behaviour)
            return
        self.wfile.write(behaviour.after)
        if isinstance(behaviour, Stall):
            self.server.over.wait()

    do_GET = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 - names of the base class

    def say(self, behaviour: Say) -> None:
        self.send_response(behaviour.status)
        for name, value in {"Content-Length": str(len(behaviour.body)), **behaviour.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(behaviour.body)

    def drip(self, behaviour: Drip) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while not self.server.over.wait(behaviour.every_seconds):
            self.wfile.write(b" ")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behave: Callable[[Request], Behaviour]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behave = behave
        self.requests: list[Request] = []
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is what these tests are about."""


@contextmanager
def serving(behave: Callable[[Request], Behaviour]) -> Iterator[Served]:
    """Serve on a free port until the block ends."""
    with _Server(behave) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{server.server_port}", server.requests)
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


class Counting(httpx.BaseTransport):
    """The network, counted.

    Attributes:
        requests: HTTP requests sent.
        calls: JSON-RPC calls in them.
    """

    def __init__(self) -> None:
        self._network = httpx.HTTPTransport()
        self.requests = 0
        self.calls = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        body = json.loads(request.read())
        self.calls += len(body) if isinstance(body, list) else 1
        return self._network.handle_request(request)

    def reset(self) -> None:
        self.requests = self.calls = 0

    def close(self) -> None:
        self._network.close()


def rpc(answer: Callable[[str, list[Any]], Any], *, chain_id: int = 31337) -> Callable[[Request], Behaviour]:
    """Behave as an RPC endpoint: ``answer`` gives the result of a call, or raises ``RpcSays`` for an error."""

    def one(call: dict[str, Any]) -> dict[str, Any]:
        head = {"jsonrpc": "2.0", "id": call["id"]}
        if call["method"] == "eth_chainId":
            return head | {"result": hex(chain_id)}
        try:
            return head | {"result": answer(call["method"], call["params"])}
        except RpcSays as says:
            return head | {"error": says.error}

    def behave(request: Request) -> Behaviour:
        body = request.json()
        return Say.json([one(call) for call in body] if isinstance(body, list) else one(body))

    return behave


class RpcSays(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        self.error: dict[str, object] = {"code": code, "message": message}
        if data is not None:
            self.error["data"] = data
