"""Countersign itself in local processes: database, broker, API, worker, beat and listener."""

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from eth_account.signers.local import LocalAccount

from sandbox.chain.accounts import DELEGATE
from sandbox.postgres import EmbeddedPostgres
from sandbox.processes import ManagedProcess, ProcessError, free_port
from sandbox.redis_server import EmbeddedRedis
from sandbox.world import WORKSPACE, World, answers

PROCESSES = ("serve", "worker", "beat", "watch")
CHAIN_NAME = "anvil"
_SECRETS = "secrets.json"
QUICK = {
    "COUNTERSIGN_SWEEP_SECONDS": "0.5",
    "COUNTERSIGN_OBSERVE_SECONDS": "1",
    "COUNTERSIGN_RECOVER_SECONDS": "1",
    "COUNTERSIGN_SAFE_POLL_SECONDS": "1",
    "COUNTERSIGN_SAFE_REQUESTS_PER_MONTH": "0",
    "COUNTERSIGN_RECHECK_SECONDS": "10",
    "COUNTERSIGN_TRACK_SECONDS": "0.5",
    "COUNTERSIGN_WORKER_THREADS": "4",
    # Receivers listen on this machine, without TLS.
    "COUNTERSIGN_WEBHOOK_ALLOWED_HOSTS": '["127.0.0.1"]',
}
"""Settings of a local world, where nobody counts requests and everybody waits for the end."""


Through = Callable[[str, str], str]
"""Takes the name of a dependency and its URL; the URL under which the processes reach it."""


def directly(_: str, url: str) -> str:
    """Nothing stands between the processes and what they depend on."""
    return url


class Deployment:
    """Starts Countersign beside a world, with the workspace ``demo``.

    A configured ``COUNTERSIGN_DATABASE_URL`` or ``COUNTERSIGN_REDIS_URL`` takes the place of the embedded server.
    """

    def __init__(
        self,
        directory: Path,
        world: World,
        *,
        webhooks: Sequence[tuple[str, str]] = (),
        settings: Mapping[str, str] | None = None,
        workspace: Mapping[str, Any] | None = None,
        proposer: LocalAccount = DELEGATE,
        keep_database: bool = True,
        through: Through = directly,
    ) -> None:
        """Take what it stands on.

        Args:
            directory: keeps database, broker, secrets and logs.
            world: the started outside world.
            webhooks: (URL, secret) of endpoints of the workspace.
            settings: more ``COUNTERSIGN_*`` variables.
            workspace: more members of the workspace file.
            proposer: whose key proposes.
            keep_database: whether an embedded database outlives ``stop``.
            through: for those who put something between the processes and ``postgres``, ``redis``, ``rpc``, ``ws``,
                ``safe_service`` and ``phala``.
        """
        self._directory = directory
        self._world = world
        self._webhooks = webhooks
        self._workspace = dict(workspace or {})
        self._keep_database = keep_database
        self._through = through
        self._database_url = self._redis_url = ""
        self._postgres: EmbeddedPostgres | None = None
        self._redis: EmbeddedRedis | None = None
        self._processes: dict[str, ManagedProcess] = {}
        self._port = free_port()
        self._metrics_ports = {name: free_port() for name in PROCESSES}
        self._secrets = _secrets(directory)
        self._environment = {
            **QUICK,
            "COUNTERSIGN_API_PORT": str(self._port),
            "COUNTERSIGN_PUBLIC_URL": self.url,
            "COUNTERSIGN_ENCRYPTION_KEYS": json.dumps({"k1": self._secrets["encryption_key"]}),
            "COUNTERSIGN_FINGERPRINT_KEY": self._secrets["fingerprint_key"],
            "COUNTERSIGN_PROPOSER_KEY": _private_key(proposer),
            "COUNTERSIGN_CHAINS": json.dumps({str(world.anvil.chain_id): self._chain()}),
            **(settings or {}),
        }

    @property
    def url(self) -> str:
        """Base URL of the REST API."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def metrics_urls(self) -> dict[str, str]:
        """Where each process shows its metrics, by its name."""
        return {name: f"http://127.0.0.1:{port}/metrics" for name, port in self._metrics_ports.items()}

    @property
    def api_key(self) -> str:
        """Bearer key of the workspace, once it was started."""
        return self._secrets["api_key"]

    @property
    def database_url(self) -> str:
        """The database in use, without detours."""
        return self._database_url

    @property
    def redis_url(self) -> str:
        """The broker in use, without detours."""
        return self._redis_url

    @property
    def directory(self) -> Path:
        """Where secrets, logs and the embedded servers' files are."""
        return self._directory

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret it was given or made, by name."""
        given = {name: self._environment[f"COUNTERSIGN_{name.upper()}"] for name in ("fingerprint_key", "proposer_key")}
        keys = json.loads(self._environment["COUNTERSIGN_ENCRYPTION_KEYS"])
        return {
            **given,
            **{f"encryption key {key_id}": key for key_id, key in keys.items()},
            **{f"webhook secret of {url}": secret for url, secret in self._webhooks},
            "API key": self.api_key,
            "Phala API key": self._world.setup.phala_api_key,
            "database password": urlsplit(self.database_url).password or "",
            "broker password": urlsplit(self.redis_url).password or "",
        }

    @property
    def logs(self) -> Sequence[Path]:
        """What the processes wrote."""
        return sorted(self._directory.glob("*.log"))

    @property
    def environment(self) -> Mapping[str, str]:
        """The ``COUNTERSIGN_*`` variables of every process."""
        return self._environment

    def start(self) -> Self:
        """Start the servers, migrate, make the workspace, start the processes."""
        self._database_url, self._redis_url = self._database(), self._broker()
        self._environment["COUNTERSIGN_DATABASE_URL"] = self._through("postgres", self._database_url)
        self._environment["COUNTERSIGN_REDIS_URL"] = self._through("redis", self._redis_url)
        self.run("migrate")
        self.apply_workspace()
        self._ensure_api_key()
        for name in PROCESSES:
            self.start_process(name)
        return self

    def stop(self) -> None:
        """Stop everything."""
        for process in reversed(self._processes.values()):
            process.stop()
        self._processes.clear()
        if self._redis is not None:
            self._redis.stop()
        if self._postgres is not None:
            if self._keep_database:
                self._postgres.stop()
            else:
                self._postgres.destroy()

    def process(self, name: str) -> ManagedProcess:
        """One of the processes, or the embedded ``postgres`` or ``redis``, for those who stop, kill and start it.

        Raises:
            ProcessError: a configured server takes the place of the embedded one.
        """
        if name in self._processes:
            return self._processes[name]
        server = {"postgres": self._postgres, "redis": self._redis}[name]
        if server is None:
            raise ProcessError(f"{name} is not ours")
        return server.process

    def start_process(self, name: str, *, called: str | None = None) -> ManagedProcess:
        """Start one of ``PROCESSES`` and wait until it is ready; ``called`` names another one of the same kind."""
        ready = answers(f"{self.url}/readyz?scope=api") if name == "serve" else _always
        called = called or name
        metrics_port = self._metrics_ports[name] if called == name else free_port()
        process = ManagedProcess(
            called,
            [sys.executable, "-m", "service", name],
            log_path=self._directory / f"{called}.log",
            ready=ready,
            env={**self._full_environment(), "COUNTERSIGN_METRICS_PORT": str(metrics_port)},
        )
        self._processes[called] = process
        process.start()
        return process

    def apply_workspace(
        self, *, safes: Sequence[str] = (), external_apps: Sequence[str] = (), **members: object
    ) -> None:
        """Bring the workspace in line with its file.

        Args:
            safes: Safes beside those that the world set up, until it is applied again.
            external_apps: apps that are approved elsewhere, until it is applied again.
            **members: other members of the file, from now on.
        """
        self._workspace |= members
        file = self._workspace_file()
        file["safes"] += [f"{CHAIN_NAME}:{address}" for address in safes]
        file["external_apps"] = [f"{CHAIN_NAME}:{address}" for address in external_apps]
        self.run("workspace", "apply", "-", stdin=json.dumps(file))

    def propose_as(self, account: LocalAccount) -> None:
        """Have processes started from now on propose with another key."""
        self._environment["COUNTERSIGN_PROPOSER_KEY"] = _private_key(account)

    def log_as(self, form: str, level: str) -> None:
        """Have processes started from now on log in another form, ``text`` or ``json``, from a level on."""
        self._environment |= {"COUNTERSIGN_LOG_FORMAT": form, "COUNTERSIGN_LOG_LEVEL": level}

    def poll(self) -> None:
        """Have processes started from now on ask for new blocks instead of subscribing to them."""
        chains = json.loads(self._environment["COUNTERSIGN_CHAINS"])
        for chain in chains.values():
            chain.pop("ws_url", None)
        self._environment["COUNTERSIGN_CHAINS"] = json.dumps(chains)

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a ``countersign`` command to its end; its standard output.

        Raises:
            ProcessError: it failed; the message is its last line.
        """
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "service", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self._full_environment(),
        )
        if done.returncode:
            raise ProcessError(f"countersign {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout

    def _ensure_api_key(self) -> None:
        """Make the first key, or keep the one that was made for this database before."""
        if "api_key_id" in self._secrets:
            keys = [json.loads(line) for line in self.run("key", "list", "--workspace", WORKSPACE).splitlines()]
            if any(key["id"] == self._secrets["api_key_id"] and key["works"] for key in keys):
                return
        made = json.loads(self.run("key", "create", "--workspace", WORKSPACE, "--scope", "admin", "--name", "sandbox"))
        self._secrets |= {"api_key": made["key"], "api_key_id": made["id"]}
        _keep(self._directory, self._secrets)

    def _full_environment(self) -> dict[str, str]:
        return {**os.environ, **self._environment}

    def _database(self) -> str:
        configured = os.environ.get("COUNTERSIGN_DATABASE_URL")
        if configured:
            return configured
        self._postgres = EmbeddedPostgres(self._directory / "postgres").start()
        return self._postgres.ensure_database("countersign")

    def _broker(self) -> str:
        configured = os.environ.get("COUNTERSIGN_REDIS_URL")
        if configured:
            return configured
        self._redis = EmbeddedRedis(self._directory / "redis").start()
        return self._redis.url

    def _chain(self) -> dict[str, Any]:
        return {
            "name": CHAIN_NAME,
            "rpc_urls": [self._through("rpc", self._world.anvil.rpc_url)],
            "ws_url": self._through("ws", self._world.anvil.ws_url),
            "finality": "confirmations:2",
            "safe_service_url": self._through("safe_service", self._world.safe_service_url),
        }

    def _workspace_file(self) -> dict[str, Any]:
        return {
            "slug": WORKSPACE,
            "phala_base_url": self._through("phala", self._world.phala_url),
            "phala_api_key": self._world.setup.phala_api_key,
            "safes": [
                {"chain_id": self._world.anvil.chain_id, "address": address}
                for address in (self._world.setup.safe, *self._world.setup.more_safes)
            ],
            "webhooks": [{"url": url, "secret": secret} for url, secret in self._webhooks],
            **self._workspace,
        }


def _private_key(account: LocalAccount) -> str:
    return account.key.hex().removeprefix("0x")


def _always() -> bool:
    return True


def _secrets(directory: Path) -> dict[str, str]:
    """Secrets of a local deployment, made once and kept where only their user reads them."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / _SECRETS
    if not path.exists():
        made = {
            "encryption_key": base64.b64encode(secrets.token_bytes(32)).decode(),
            "fingerprint_key": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        path.touch(mode=0o600)
        _keep(directory, made)
    stored: dict[str, str] = json.loads(path.read_text())
    return stored


def _keep(directory: Path, made: Mapping[str, str]) -> None:
    (directory / _SECRETS).write_text(json.dumps(made))


def webhook_secret() -> str:
    """A fresh secret of an endpoint, as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
