"""Child processes of the local world: started with a condition, watched, and never left behind.

Each child leads a process group of its own, so that Ctrl-C in the terminal reaches only the parent, which then stops
the children in its own order. A guardian (see `sandbox.guardian`) stops them when the parent dies without a word.
"""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self, TypeVar

from sandbox.guardian import Guardian
from sandbox.polling import wait_for

LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 16_384


class ProcessError(RuntimeError):
    """A child did not start, was not ready in time, or has ended; the message closes with the tail of its log."""


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody listens on.

    The port leaves here in the TIME_WAIT state: for a minute the system hands it to nobody who asks for just any
    port, while a server that asks for it by number (with SO_REUSEADDR, as servers do) gets it.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()  # this end closes first: the listening port is the one that keeps TIME_WAIT
    return port


class ManagedProcess:
    """A child process in a process group of its own.

    Args:
        name: how messages call it.
        command: program and arguments; no shell.
        log_path: file that takes standard output and standard error, appended to.
        ready: condition that holds once the child can be used; asked until it does.
        ready_seconds: how long that may take.
        stop_signal: the signal that asks the child to end.
        stop_seconds: how long a graceful end may take before the group is killed.
        env: environment of the child; None passes on ours.
        cwd: working directory of the child; None passes on ours.
        uid: user and group id the child runs as, for a parent that is root; None keeps ours.
    """

    def __init__(  # noqa: PLR0913 - what a child process needs, by keyword
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        ready: Callable[[], bool] = lambda: True,
        ready_seconds: float = 30.0,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float = 10.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        uid: int | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = [str(part) for part in command]
        self._ready = ready
        self._ready_seconds = ready_seconds
        self._stop_signal = stop_signal
        self._stop_seconds = stop_seconds
        self._env = env
        self._cwd = cwd
        self._uid = uid
        self._child: subprocess.Popen[bytes] | None = None
        self._killing = threading.Lock()
        self._group: int | None = None  # forgotten when it has ended: the number may become somebody else's

    @property
    def pid(self) -> int:
        """Process id of the child, which is also the id of its process group.

        Raises:
            ProcessError: it was never started.
        """
        if self._child is None:
            raise ProcessError(f"{self.name} was not started")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child lives (a paused one does)."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the signal's number if a signal ended it; None while it lives or was never started."""
        return None if self._child is None else self._child.poll()

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """Return the last lines the child wrote."""
        with self.log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return "\n".join(log.read(_LOG_TAIL_BYTES).decode(errors="replace").splitlines()[-lines:])

    def start(self) -> Self:
        """Start the child and return once it is ready; a stopped or killed one may be started again.

        Raises:
            ProcessError: it runs already, cannot be executed, ended, or was not ready in time.
        """
        if self.running:
            raise ProcessError(f"{self.name} already runs (pid {self.pid})")
        self.kill()  # what an earlier run may have left in its group
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            try:
                self._child = subprocess.Popen(  # noqa: S603 - no shell; the command is the caller's own
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    cwd=self._cwd,
                    start_new_session=True,
                    user=self._uid,
                    group=self._uid,
                    extra_groups=None if self._uid is None else [],
                )
            except OSError as error:
                raise ProcessError(f"{self.name} cannot be started: {error}") from error
        self._group = self._child.pid
        try:
            Guardian.of_this_process().watch(self._group, self._stop_signal)
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def _wait_until_ready(self) -> None:
        if not wait_for(self._is_ready, self._ready_seconds):
            raise ProcessError(f"{self.name} was not ready within {self._ready_seconds:g} s\n{self.log_tail()}")

    def _is_ready(self) -> bool:
        if not self.running:
            raise ProcessError(f"{self.name} ended with code {self.returncode}\n{self.log_tail()}")
        return self._ready()

    def wait(self, seconds: float) -> int:
        """Wait for the child to end by itself and return its exit code.

        Raises:
            ProcessError: it was never started, or lives on after that many seconds.
        """
        if self._child is None:
            raise ProcessError(f"{self.name} was not started")
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} still runs after {seconds:g} s\n{self.log_tail()}") from None

    def stop(self) -> None:
        """Ask the child to end and kill its group if it does not in time; harmless when it has ended."""
        if self._child is None:
            return
        if self.running:
            self._child.send_signal(self._stop_signal)
            self._signal_group(signal.SIGCONT)  # a paused child hears nothing else
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(self._stop_seconds)
        self.kill()

    def kill(self) -> None:
        """Kill the child and whatever it started in its group, as `kill -9` does; harmless when it has ended."""
        with self._killing:  # two threads may kill it at once: the group is forgotten once
            if self._child is None or self._group is None:
                return
            self._signal_group(signal.SIGKILL)
            self._child.wait()
            Guardian.of_this_process().forget(self._group)
            self._group = None

    def pause(self) -> None:
        """Stop the child's group in its tracks (SIGSTOP): sockets stay open, nobody answers."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused group go on (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._group is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Stoppable(Protocol):
    """Whatever can be started as a part of a group: a process, a database server, a whole sandbox."""

    def start(self) -> object:
        """Start it and return once it can be used."""
        ...

    def stop(self) -> None:
        """Stop it; harmless when it is stopped."""
        ...


Handler = Callable[[int, FrameType | None], object] | int
PartT = TypeVar("PartT", bound=Stoppable)


class ProcessGroup:
    """Processes that stop together, in reverse order, when the `with` block ends: by itself, an error or a signal.

    SIGTERM and SIGHUP end the block as Ctrl-C does, by an exception in the main thread (`SystemExit` with 128 + the
    signal's number). While the group stops, further ones are ignored: each stop has a deadline of its own.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._handlers: dict[signal.Signals, Handler] = {}

    def add(self, part: PartT) -> PartT:
        """Start a part; it is stopped with the group, before the parts added earlier.

        Raises:
            ProcessError: it did not start.
        """
        self._stack.callback(part.stop)
        part.start()
        return part

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
                self._handle(number, _exit_on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handle(number, signal.SIG_IGN)
        try:
            self._stack.close()
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def _handle(self, number: signal.Signals, handler: Handler) -> None:
        if threading.current_thread() is threading.main_thread():  # Python hands signals to no other
            before = signal.signal(number, handler)
            self._handlers.setdefault(number, signal.SIG_DFL if before is None else before)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
