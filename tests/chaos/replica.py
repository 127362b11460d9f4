"""A streaming replica of the site's PostgreSQL, and the failover to it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg

from sandbox.polling import wait_for
from sandbox.postgres_files import programs
from sandbox.processes import ManagedProcess, free_port
from tests.chaos import invariants
from tests.chaos.site import Site

_SECONDS: Final = 60.0


class Replica:
    """A server that follows the primary until it takes over."""

    def __init__(self, site: Site, home: Path) -> None:
        """Take the site, and a directory that the server's user can reach."""
        self._site = site
        self._home = home
        self._primary = urlsplit(site.dsn)
        self._uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        if self._uid is not None:
            os.chown(home, self._uid, self._uid)
        self._port = free_port()
        self._url = site.dsn.replace(f":{self._primary.port}/", f":{self._port}/")
        self._bin = programs(home, self._uid)
        self._process = ManagedProcess(
            "replica",
            [
                self._bin / "postgres",
                "-D",
                home / "cluster",
                "-c",
                f"port={self._port}",
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=200",
            ],
            log_path=home / "replica.log",
            ready=self._answers,
            ready_seconds=_SECONDS,
            stop_signal=signal.SIGINT,
            cwd=Path("/"),
            uid=self._uid,
        )

    def start(self) -> None:
        """Copy the primary and follow it."""
        primary = self._primary
        command = [
            str(self._bin / "pg_basebackup"),
            f"--host={primary.hostname}",
            f"--port={primary.port}",
            f"--username={primary.username}",
            f"--pgdata={self._home / 'cluster'}",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
        ]
        environment = {"PGPASSWORD": primary.password or "", "PATH": os.defpath}
        groups = None if self._uid is None else []
        subprocess.run(
            command, check=True, env=environment, cwd="/", user=self._uid, group=self._uid, extra_groups=groups
        )
        self._process.start()

    def take_over(self) -> None:
        """The primary dies, what it committed is here, and everybody is led here."""
        with psycopg.connect(self._site.dsn, autocommit=True) as connection:
            (written,) = connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ("",)
        with psycopg.connect(self._url, autocommit=True) as connection:
            reached = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            assert wait_for(lambda: connection.execute(reached, [written]).fetchone() == (True,), _SECONDS)
        self._site.process("postgres").kill()
        with psycopg.connect(self._url, autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        proxy = self._site.proxies["postgres"]
        proxy.upstream = ("127.0.0.1", self._port)
        proxy.break_connections()

    def check(self) -> None:
        """What must hold, holds here."""
        found = invariants.check(self._url, invariants.ALWAYS)
        assert {name: lines for name, lines in found.items() if lines} == {}

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True


@contextmanager
def following_replica(site: Site) -> Iterator[Replica]:
    """A replica that follows the site's database; stopped and removed in the end. Its user can go to /var/tmp."""
    home = Path(tempfile.mkdtemp(prefix="chaos-replica-", dir="/var/tmp"))
    try:
        replica = Replica(site, home)
        replica.start()
        try:
            yield replica
        finally:
            replica.stop()
    finally:
        shutil.rmtree(home)
