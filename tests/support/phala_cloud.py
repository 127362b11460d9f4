"""A running Phala Cloud sandbox for tests, with a workspace, a CVM and its app contract on a real chain."""

import itertools
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from sandbox.chain.accounts import DEPLOYER
from sandbox.chain.apps import deploy_dstack_app
from sandbox.chain.local import LocalChain, encode_call
from sandbox.phala_cloud.control import Control

Json = dict[str, Any]

COMPOSE = "services:\n  web:\n    image: nginx:1.27.3\n    ports:\n      - '8080:80'\n"
NEXT_COMPOSE = "services:\n  web:\n    image: nginx:1.27.4\n    ports:\n      - '8080:80'\n"
DEVICE = "7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f6a7b8c"

_numbers = itertools.count(1)
_TLS = ssl.create_default_context()


def client(base_url: str = "", headers: dict[str, str] | None = None) -> httpx.Client:
    """A client that does not load the certificate store again, which takes 20 ms."""
    return httpx.Client(verify=_TLS, timeout=20, base_url=base_url, headers=headers)


@dataclass
class Team:
    """A workspace with an API client of its own."""

    control: Control
    slug: str
    api_key: str
    api: httpx.Client

    @classmethod
    def create(cls, control: Control) -> "Team":
        slug = f"team-{next(_numbers)}"
        api_key = control.create_workspace(slug)["api_key"]
        api = client(base_url=control.api_url, headers={"X-API-Key": api_key})
        return cls(control, slug, api_key, api)

    def off_chain_cvm(self, **members: object) -> Json:
        return self.control.create_cvm(self.slug, chain_id=None, **members)


@dataclass
class OnChainCvm:
    """A CVM whose app contract is really there; the deployer's account owns it."""

    team: Team
    chain: LocalChain
    app: str
    info: Json

    @classmethod
    def create(  # the ways a test's CVM can differ
        cls,
        team: Team,
        chain: LocalChain,
        *,
        app: str | None = None,
        device_allowed: bool = True,
        **members: object,
    ) -> "OnChainCvm":
        compose = {"docker_compose_file": COMPOSE}
        if app is None:
            allowed = team.control.preview_compose(compose=compose)["compose_hash"]
            app = deploy_dstack_app(
                chain,
                owner=DEPLOYER.address,
                device=bytes.fromhex(DEVICE) if device_allowed else bytes(32),
                compose_hash=bytes.fromhex(allowed),
            )
        seed: Json = {"compose": compose, "device_id": DEVICE, "app_id": app} | members
        return cls(team, chain, app, team.control.create_cvm(team.slug, **seed))

    @property
    def path(self) -> str:
        return f"/cvms/{self.info['vm_uuid']}"

    @property
    def vm_uuid(self) -> str:
        return str(self.info["vm_uuid"])

    def prepare(self, compose_file: str = NEXT_COMPOSE, **members: object) -> Json:
        """Prepare and answer the details of the 465 as a mapping."""
        response = self.team.api.patch(
            self.path,
            json={"docker_compose_file": compose_file, **members},
            headers={"X-Prepare-Only": "true"},
        )
        assert response.status_code == 465, response.text
        return details_of(response)

    def transact(self, signature: str, *arguments: object, app: str | None = None) -> str:
        """Send a transaction to the app contract as its owner; answers its hash."""
        receipt = self.chain.send(DEPLOYER.address, app or self.app, encode_call(signature, *arguments), gas=200_000)
        return str(receipt["transactionHash"])

    def register(self, compose_hash: str) -> str:
        return self.transact("addComposeHash(bytes32)", bytes.fromhex(compose_hash))

    def commit(self, token: str, compose_hash: str = "", transaction_hash: str = "") -> httpx.Response:
        """Commit as anybody would: without an API key."""
        body = {"token": token, "compose_hash": compose_hash, "transaction_hash": transaction_hash}
        with client() as anybody:
            return anybody.post(f"{self.team.control.api_url}{self.path}/commit-update", json=body)

    def operation(self, correlation_id: str) -> Json:
        items: list[Json] = self.team.api.get(f"{self.path}/operations").json()["items"]
        return next(item for item in items if item["correlation_id"] == correlation_id)

    def settle(self) -> Json:
        return self.team.control.wait_idle(self.vm_uuid)


def details_of(response: httpx.Response) -> Json:
    """The field and value pairs of a structured error."""
    return {item["field"]: item["value"] for item in response.json()["details"]}


@dataclass
class Received:
    """One request a receiver got."""

    headers: dict[str, str]
    body: bytes


class Receiver:
    """An HTTP endpoint that keeps what it gets and answers with the statuses queued, then 204."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.arrived = threading.Condition()
        self.url = ""

    def wait_for(self, count: int, seconds: float = 10.0) -> list[Received]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.received) >= count, seconds), len(self.received)
            return list(self.received)

    def take(self, request: Received) -> int:
        with self.arrived:
            self.received.append(request)
            self.arrived.notify_all()
            return self.statuses.pop(0) if self.statuses else 204


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(receiver.take(Received(headers, body)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Silence."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
