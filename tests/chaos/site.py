"""A whole Countersign in processes, a proxy in front of each thing it depends on, and a supervisor."""

import threading
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
import psutil
import psycopg

from sandbox.deployment import Deployment, webhook_secret
from sandbox.polling import wait_for
from sandbox.processes import ManagedProcess, ProcessError, ProcessGroup
from sandbox.receiver import Receiver
from sandbox.world import App, World
from tests.chaos.proxy import Protocol, Proxy
from tests.support.otlp import Collector
from tests.support.stack import Stack

WORKERS: Final = ("worker", "worker-2")
KINDS: Final = {"serve": "serve", "worker": "worker", "worker-2": "worker", "beat": "beat", "watch": "watch"}
"""The processes by name, and the command of each."""
PROTOCOLS: Final[Mapping[str, Protocol]] = {
    "postgres": "postgres",
    "redis": "raw",
    "rpc": "http",
    "ws": "raw",
    "safe_service": "http",
    "phala": "http",
    "receiver": "http",
    "api": "http",
}
_SETTINGS: Final = {
    "COUNTERSIGN_HTTP_TIMEOUT_SECONDS": "4",
    "COUNTERSIGN_API_REQUESTS_PER_MINUTE": "1000000",
    "COUNTERSIGN_RECHECK_SECONDS": "5",
    "COUNTERSIGN_OBSERVE_SECONDS": "2",
}
_LOOK_SECONDS: Final = 0.25
_SERVER_SECONDS: Final = 20.0


class Site:
    """World, deployment, proxies, receiver.

    Attributes:
        proxies: by the dependency in front of which they stand; ``api`` stands in front of ours.
        apps: those that were added.
        exits: (process, code, last lines) of processes that ended though nobody asked them to.
    """

    def __init__(self, directory: Path, *, more_safes: int = 200, settings: Mapping[str, str] | None = None) -> None:
        """Take an empty directory, how many apps have a Safe of their own, and other settings."""
        self.directory = directory
        self.proxies: dict[str, Proxy] = {}
        self.apps: list[App] = []
        self.exits: list[tuple[str, int, str]] = []
        self._more_safes = more_safes
        self._settings = {**_SETTINGS, **(settings or {})}
        self._group = ProcessGroup()
        self._away: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")

    def __enter__(self) -> Self:
        self._group.__enter__()
        try:
            self._start()
        except BaseException:
            self._group.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._supervisor.join()
        self.database.close()
        self.stack.__exit__(kind, error, trace)
        self._group.__exit__(kind, error, trace)
        for proxy in self.proxies.values():
            proxy.stop()
        self.receiver.stop()

    def _start(self) -> None:
        secret = webhook_secret()
        self.receiver = Receiver(secret)
        self.world = self._group.add(World(self.directory / "world", more_safes=self._more_safes))
        hooks = self._through("receiver", self.receiver.url)
        self.deployment = self._group.add(
            Deployment(
                self.directory / "countersign",
                self.world,
                webhooks=[(hooks, secret)],
                settings=self._settings,
                workspace={"allow_without_approval": True, "parallel_commits": 10},
                keep_database=False,
                through=self._through,
            )
        )
        self.stack = Stack(self.world, self.deployment, self.receiver, Collector())
        self.api_url = self._through("api", self.deployment.url)
        for name in WORKERS[1:]:
            self.deployment.start_process(KINDS[name], called=name)
        self.database = psycopg.connect(self.dsn, autocommit=True)
        self._supervisor.start()

    @property
    def cvms(self) -> list[str]:
        """Those of the apps that were added."""
        return [cvm for app in self.apps for cvm in app.cvm_uuids]

    def add_apps(self, count: int, cvms: int) -> None:
        """More apps, each with so many CVMs."""
        self.apps += [self.world.add_app(cvms=cvms) for _ in range(count)]

    @property
    def dsn(self) -> str:
        """The database, past the proxy."""
        return self.deployment.database_url

    def _through(self, name: str, url: str) -> str:
        parts = urlsplit(url)
        proxy = self.proxies.get(name)
        if proxy is None:
            where = (parts.hostname or "127.0.0.1", parts.port or 0)
            proxy = self.proxies[name] = Proxy(name, where, protocol=PROTOCOLS[name]).start()
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{proxy.port}"))

    # Processes

    def process(self, name: str) -> ManagedProcess:
        """One of ours, or ``postgres`` or ``redis``."""
        return self.deployment.process(name)

    def kill(self, name: str) -> None:
        """As ``kill -9`` does; it stays away until ``bring_back``."""
        with self._lock:
            self._away.add(name)
        self.process(name).kill()

    def bring_back(self, name: str) -> None:
        """From now on it is started whenever it does not run, now for the first time."""
        with self._lock:
            self._away.discard(name)

    def who_has(self, port: int) -> str | None:
        """The process of ours that has this end of a connection."""
        for name in KINDS:
            try:
                connections = psutil.Process(self.process(name).pid).net_connections("tcp")
            except (psutil.Error, KeyError):
                continue
            if any(one.laddr and one.laddr.port == port for one in connections):
                return name
        return None

    def _supervise(self) -> None:
        """Start what ended; what does not start is tried again, as under any supervisor."""
        while not self._stop.wait(_LOOK_SECONDS):
            for name in KINDS:
                with self._lock:
                    away = name in self._away
                if not away and not self._stop.is_set():
                    self._ensure(name)

    def _ensure(self, name: str) -> None:
        process = self.process(name)
        if process.running:
            return
        code = process.returncode
        if code is not None and code != -9:
            self.exits.append((name, code, process.log_tail(5)))
        try:
            self.deployment.start_process(KINDS[name], called=name)
        except ProcessError as error:
            self.exits.append((name, -1, str(error)))

    # Looking and healing

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the database, past the proxy; the connection is made anew where the server was away."""
        try:
            return self.database.execute(query, values).fetchall()  # type: ignore[call-overload]  # our own texts
        except psycopg.OperationalError:
            self.database = psycopg.connect(self.dsn, autocommit=True)
            return self.database.execute(query, values).fetchall()  # type: ignore[call-overload]  # likewise

    def start_server(self, name: str) -> None:
        """Start ``postgres`` or ``redis`` again, once what is left of the former one is gone.

        Raises:
            ProcessError: it does not start.
        """
        process = self.process(name)

        def starts() -> bool:
            try:
                process.start()
            except ProcessError as error:
                refused.append(str(error))
                return False
            return True

        refused: list[str] = []
        if not wait_for(starts, _SERVER_SECONDS, every=0.2):
            raise ProcessError(refused[-1])

    def keep_busy(self, cvm: str, seconds: float) -> None:
        """Another operation runs on a CVM, unless one runs already."""
        try:
            self.world.phala.hold(cvm, seconds)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.CONFLICT:
                raise

    def heal(self) -> None:
        """No more faults: proxies pass, processes run, servers run, the world behaves."""
        for proxy in self.proxies.values():
            proxy.pass_on()
        for name in ("postgres", "redis"):
            self.process(name).resume()
            if not self.process(name).running:
                self.start_server(name)
        for name in KINDS:
            self.process(name).resume()
            self.bring_back(name)
        self.world.phala.clear_faults()
        self.world.phala.lag(0)
        self.stack.safe_faults.delete("/faults").raise_for_status()
        self.world.mine_by_the_clock()

    def all_run(self) -> bool:
        """Whether every process runs."""
        return all(self.process(name).running for name in KINDS)

    def at_work(self) -> tuple[int, int, int]:
        """How many requests, proposals and deliveries are not at their end."""
        query = """
            SELECT (SELECT count(*) FROM change_requests WHERE due_at IS NOT NULL),
                   (SELECT count(*) FROM proposals WHERE due_at IS NOT NULL),
                   (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending')
        """
        ((requests, served, pending),) = self.rows(query)
        return requests, served, pending

    def hurry(self) -> None:
        """Shift what waits for longer than a moment to now, as if that time had passed."""
        for table in ("change_requests", "proposals", "webhook_endpoints", "webhook_deliveries"):
            condition = "state = 'pending'" if table == "webhook_deliveries" else "lease_until IS NULL"
            self.execute(f"UPDATE {table} SET due_at = now() WHERE due_at > now() + interval '3 s' AND {condition}")

    def execute(self, statement: str, *values: Any) -> None:
        """Change rows, past the proxy."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement, values)  # type: ignore[call-overload]  # our own texts
