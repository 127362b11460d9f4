"""The outside world in local processes: an EVM with real Safe contracts, a Phala Cloud, a Safe Transaction Service."""

import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import httpx

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DELEGATE, DEPLOYER, OWNERS
from sandbox.chain.apps import deploy_dstack_app, deploy_timelock, transfer_to_safe
from sandbox.chain.local import LocalChain
from sandbox.chain.safes import SafeVersion, deploy_safe, safe_addresses
from sandbox.jsonrpc import JsonRpc
from sandbox.phala_cloud.control import Control
from sandbox.processes import ManagedProcess, free_port
from sandbox.wallet import Wallet

WORKSPACE = "demo"
BLOCK_SECONDS = 1
_BEYOND_MORE_SAFES = 1_000_000
"""Salts of Safes that the workspace does not know begin here."""


@dataclass(frozen=True, slots=True)
class App:
    """An app contract with its CVMs.

    Attributes:
        address: checksummed.
        owner: who owns it, checksummed: a Safe, unless it was made for another owner.
        device_id: ``0x``-prefixed bytes32.
    """

    address: str
    owner: str
    device_id: str
    cvm_uuids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setup:
    """What was set up in a world: it outlives the processes.

    Attributes:
        safe: owns the first app.
        more_safes: addresses of Safes that further apps get one by one.
    """

    safe: str
    more_safes: tuple[str, ...]
    phala_api_key: str
    apps: tuple[App, ...]


class World:
    """Starts the three services over one directory and sets them up the first time.

    Attributes:
        chain: the EVM.
        phala: controls of the Phala Cloud.
        setup: what stands in it.
    """

    chain: LocalChain
    phala: Control
    wallet: Wallet
    setup: Setup

    def __init__(
        self,
        directory: Path,
        *,
        cvms: int = 1,
        safe_version: SafeVersion = "1.4.1",
        more_safes: int = 0,
        automine: bool = False,
        ports: tuple[int, int, int] | None = None,
    ) -> None:
        """Take the directory that keeps the state.

        Args:
            directory: made when missing.
            cvms: how many CVMs the first app has.
            safe_version: of the Safe that owns it.
            more_safes: how many further apps get a Safe of their own, so that their queues do not meet.
            automine: a block per transaction instead of one a second; tests mine what they need.
            ports: of the EVM, the Phala Cloud and the Safe Transaction Service; free ones by default.
        """
        self._directory = directory
        self._cvms = cvms
        self._safe_version = safe_version
        self._more_safes = more_safes
        self._apps_added = 0
        self._safes_added = 0
        self._automine = automine
        self._ports = ports or (0, free_port(), free_port())
        self._anvil: Anvil | None = None
        self._services: list[ManagedProcess] = []

    @property
    def anvil(self) -> Anvil:
        """The running EVM."""
        if self._anvil is None:
            raise RuntimeError("the world is not started")
        return self._anvil

    @property
    def phala_url(self) -> str:
        """Base URL of the Phala Cloud's API."""
        return f"http://127.0.0.1:{self._ports[1]}/api/v1"

    @property
    def safe_service_url(self) -> str:
        """Base URL of the Safe Transaction Service, without ``/api``."""
        return f"http://127.0.0.1:{self._ports[2]}"

    def start(self) -> Self:
        """Start everything and return once it can be used."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._anvil = Anvil(state=self._directory / "anvil.json", port=self._ports[0])
        self.chain = LocalChain(JsonRpc(self._anvil.rpc_url))
        self._serve("phala_cloud", self._ports[1], "/_sandbox/health")
        self._serve("safe_service", self._ports[2], "/api/v1/about/")
        self.phala = Control(f"http://127.0.0.1:{self._ports[1]}")
        self.wallet = Wallet(self.safe_service_url, self.chain)
        self.setup = self._load() or self._set_up()
        self._mine_as_before()
        return self

    def stop(self) -> None:
        """Stop everything; what it held is kept in the directory."""
        for service in reversed(self._services):
            service.stop()
        self._services.clear()
        if self._anvil is not None:
            self.wallet.close()
            self.phala.close()
            self.chain.rpc.close()
            self._anvil.stop()
            self._anvil = None

    def mine_by_the_clock(self) -> None:
        """From now on a block comes every ``BLOCK_SECONDS``."""
        self.anvil.rpc("evm_setAutomine", [False])
        self.anvil.rpc("evm_setIntervalMining", [BLOCK_SECONDS])

    def mine_on_demand(self) -> None:
        """From now on a block comes with each transaction only."""
        self.anvil.rpc("evm_setIntervalMining", [0])
        self.anvil.rpc("evm_setAutomine", [True])

    def process(self, name: str) -> ManagedProcess:
        """The process of ``phala_cloud`` or ``safe_service``, for those who stop and start it."""
        return next(service for service in self._services if service.name == name)

    def add_app(
        self,
        *,
        cvms: int = 1,
        allow_device: bool = True,
        name: str = "payments",
        safe_version: SafeVersion | None = None,
        owner: str | None = None,
    ) -> App:
        """Another app contract with its CVMs running.

        Args:
            cvms: how many.
            allow_device: whether it allows the device that they run on.
            name: of the CVMs.
            safe_version: a new Safe of this version owns it, which the workspace does not know; by default one that it
                knows, the app's own while there are more.
            owner: owns it instead of a Safe: an account, a timelock.
        """
        self.mine_on_demand()
        try:
            safe = None if owner else self._new_safe(safe_version) if safe_version else self._next_safe()
            return self._new_app(safe, name, cvms, allow_device=allow_device, owner=owner)
        finally:
            self._mine_as_before()

    def add_foreign_app(self) -> App:
        """An app contract that an account owns which is no Safe, with a CVM running."""
        return self.add_app(name="foreign", owner=DEPLOYER.address)

    def add_timelock(self, account: str, *, minimum_delay: int) -> str:
        """A timelock in which one account proposes and executes; ``minimum_delay`` in seconds of the EVM's time."""
        self.mine_on_demand()
        try:
            return deploy_timelock(self.chain, [account], [account], minimum_delay=minimum_delay)
        finally:
            self._mine_as_before()

    def add_cvm(self, app: App, name: str, device_id: str | None = None) -> str:
        """Another CVM of an app, on the app's device or another; its UUID."""
        members = {"app_id": app.address, "device_id": device_id or app.device_id, "name": name}
        return str(self.phala.create_cvm(WORKSPACE, **members)["vm_uuid"])

    def _serve(self, name: str, port: int, health: str) -> None:
        command: list[str | Path] = [
            sys.executable,
            "-m",
            f"sandbox.{name}.server",
            "--database",
            self._directory / f"{name}.sqlite",
            "--rpc-url",
            self.anvil.rpc_url,
            "--port",
            str(port),
        ]
        url = f"http://127.0.0.1:{port}{health}"
        log_path = self._directory / f"{name}.log"
        process = ManagedProcess(name, command, log_path=log_path, ready=answers(url))
        self._services.append(process)
        process.start()

    def _load(self) -> Setup | None:
        path = self._directory / "setup.json"
        if not path.exists():
            return None
        stored = json.loads(path.read_text())
        apps = tuple(App(**{**app, "cvm_uuids": tuple(app["cvm_uuids"])}) for app in stored["apps"])
        return Setup(stored["safe"], tuple(stored["more_safes"]), stored["phala_api_key"], apps)

    def _set_up(self) -> Setup:
        safe = deploy_safe(self.chain, self._safe_version)
        api_key = str(self.phala.create_workspace(WORKSPACE)["api_key"])
        app = self._new_app(safe, "payments", self._cvms, allow_device=True)
        self.wallet.add_delegate(safe, DELEGATE.address, OWNERS[0])
        more_safes = safe_addresses(self.chain, self._safe_version, salts=range(1, self._more_safes + 1))
        if more_safes:
            self.wallet.add_delegate(None, DELEGATE.address, OWNERS[0])
        setup = Setup(safe, tuple(more_safes), api_key, (app,))
        path = self._directory / "setup.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(setup), indent=2))
        return setup

    def _mine_as_before(self) -> None:
        if not self._automine:
            self.mine_by_the_clock()

    def _next_safe(self) -> str:
        if self._apps_added >= len(self.setup.more_safes):
            return self.setup.safe
        self._apps_added += 1
        return deploy_safe(self.chain, self._safe_version, salt=self._apps_added)

    def _new_safe(self, version: SafeVersion) -> str:
        self._safes_added += 1
        self.wallet.add_delegate(None, DELEGATE.address, OWNERS[0])
        return deploy_safe(self.chain, version, salt=_BEYOND_MORE_SAFES + self._safes_added)

    def _new_app(self, safe: str | None, name: str, cvms: int, *, allow_device: bool, owner: str | None = None) -> App:
        device = secrets.token_bytes(32)
        running = bytes.fromhex(self.phala.preview_compose(name)["compose_hash"])
        allowed = device if allow_device else bytes(32)
        first_owner = owner or DEPLOYER.address
        address = deploy_dstack_app(self.chain, "two-step", first_owner, device=allowed, compose_hash=running)
        if safe is not None:
            transfer_to_safe(self.chain, address, safe)
        created = [
            self.phala.create_cvm(WORKSPACE, name=name, app_id=address, device_id=device.hex()) for _ in range(cvms)
        ]
        return App(address, safe or first_owner, "0x" + device.hex(), tuple(str(cvm["vm_uuid"]) for cvm in created))


def answers(url: str) -> Callable[[], bool]:
    """A condition: the address answers 2xx."""

    def ask() -> bool:
        try:
            return httpx.get(url, timeout=2).is_success
        except httpx.HTTPError:
            return False

    return ask
