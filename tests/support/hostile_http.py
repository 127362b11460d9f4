"""A local HTTP server that answers whatever a test wants, and worse."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


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


@dataclass(frozen=True)
class DripHead:
    """A head that never ends, likewise."""

    every_seconds: float = 0.02


Behaviour = Say | HangUp | Stall | Drip | DripHead


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
            self.drip(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", behaviour.every_seconds)
            return
        if isinstance(behaviour, DripHead):
            self.drip(b"HTTP/1.1 200 OK\r\nX-Endless: ", behaviour.every_seconds)
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

    def drip(self, head: bytes, every_seconds: float) -> None:
        self.wfile.write(head)
        while not self.server.over.wait(every_seconds):
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


@dataclass
class Tls:
    """A running TLS server.

    Attributes:
        names: server names that clients asked for.
        trusting: trusts its certificate and nothing else.
    """

    port: int
    requests: list[Request]
    names: list[str | None]
    trusting: ssl.SSLContext


@contextmanager
def tls_receiver(directory: Path, name: str) -> Iterator[Tls]:
    """Serve 204 by TLS with a certificate of ``name`` until the block ends."""
    certificate = _certificate(directory, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _, asked, __: names.append(asked)
    with _Server(lambda _: Say(204)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            trusting = ssl.create_default_context(cafile=certificate)
            yield Tls(server.server_port, server.requests, names, trusting)
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def _certificate(directory: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = directory / "receiver.pem"
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


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
