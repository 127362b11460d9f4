import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox.polling import wait_for
from sandbox.processes import ManagedProcess, ProcessError, ProcessGroup, free_port

# A child that says when it listens for signals, and one that will not go by asking.
CHILD = "import signal, sys; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)
PARENT_OF_ONE = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
print("child", child.pid, flush=True)
child.wait()
"""


def child(tmp_path: Path, code: str = CHILD, says: str = "up", **options: object) -> ManagedProcess:
    log = tmp_path / "child.log"
    options.setdefault("ready", lambda: says in log.read_text())
    return ManagedProcess("the child", [sys.executable, "-c", code], log_path=log, **options)  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool]) -> bool:
    return wait_for(condition, 20)


def alive(pid: int) -> bool:
    """Whether a process lives; one that ended and waits for its parent to notice does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_a_free_port_can_be_listened_on_and_is_not_given_out_twice():
    ports = [free_port() for _ in range(200)]

    assert len(set(ports)) == 200
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", ports[0]))
        listener.listen()


def test_it_starts_when_ready_and_stops_by_asking(tmp_path: Path):
    with child(tmp_path) as process:
        assert process.running
        assert process.log_tail() == "up"
        assert os.getpgid(process.pid) == process.pid

    assert not process.running
    assert process.returncode == -signal.SIGTERM
    process.stop()


def test_one_that_does_not_go_is_killed(tmp_path: Path):
    process = child(tmp_path, STUBBORN, stop_seconds=0.2).start()

    process.stop()

    assert process.returncode == -signal.SIGKILL


def test_a_paused_one_stops_too_and_can_go_on(tmp_path: Path):
    ticking = "import itertools, time\nfor n in itertools.count(): print('up', n, flush=True); time.sleep(0.01)"
    with child(tmp_path, ticking) as process:
        process.pause()
        assert eventually(lambda: os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None)
        before = process.log_tail(1)
        assert process.log_tail(1) == before

        process.resume()
        assert eventually(lambda: process.log_tail(1) != before)
        process.pause()

    assert process.returncode == -signal.SIGTERM


def test_it_takes_its_own_children_along(tmp_path: Path):
    process = child(tmp_path, PARENT_OF_ONE).start()
    grandchild = int(next(line for line in process.log_tail().splitlines() if "child" in line).split()[1])
    assert alive(grandchild)

    process.kill()

    assert eventually(lambda: not alive(grandchild))


def test_it_starts_again_after_a_kill(tmp_path: Path):
    process = child(tmp_path).start()
    first = process.pid

    process.kill()
    assert process.returncode == -signal.SIGKILL
    process.start()

    assert process.pid != first
    process.stop()


def test_two_may_kill_it_at_once_and_its_guardian_lives_on(tmp_path: Path):
    process = child(tmp_path)
    for _ in range(10):
        process.start()
        together = threading.Barrier(4)

        def kill(together: threading.Barrier = together) -> None:
            together.wait()
            process.kill()
            assert not process.running

        with ThreadPoolExecutor(4) as pool:
            for killed in [pool.submit(kill) for _ in range(4)]:
                killed.result()

    with child(tmp_path) as another:
        assert another.running


def test_it_is_not_started_twice(tmp_path: Path):
    with child(tmp_path) as process, pytest.raises(ProcessError, match=r"the child already runs \(pid \d+\)"):
        process.start()


def test_one_that_ends_early_says_why(tmp_path: Path):
    dying = child(tmp_path, "import sys; sys.exit('no database')", ready=lambda: False)

    with pytest.raises(ProcessError, match=r"(?s)the child ended with code 1.*no database"):
        dying.start()


def test_one_that_is_never_ready_is_not_left_behind(tmp_path: Path):
    process = child(tmp_path, ready=lambda: False, ready_seconds=0.3)

    with pytest.raises(ProcessError, match=r"(?s)the child was not ready within 0.3 s"):
        process.start()

    assert not process.running


def test_a_program_that_is_not_there_is_named(tmp_path: Path):
    missing = ManagedProcess("the server", [tmp_path / "no-such"], log_path=tmp_path / "log")

    with pytest.raises(ProcessError, match=r"the server cannot be started: .*no-such"):
        missing.start()


def test_waiting_for_an_end_that_does_not_come_fails(tmp_path: Path):
    with child(tmp_path) as process, pytest.raises(ProcessError, match=r"still runs after 0.1 s"):
        process.wait(0.1)
    with child(tmp_path, "print('up', flush=True)", ready=lambda: True) as short:
        assert short.wait(20) == 0


def test_a_group_stops_in_reverse_order():
    order: list[str] = []
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    class Part:
        def __init__(self, name: str) -> None:
            self.name = name

        def start(self) -> None:
            order.append(f"start {self.name}")

        def stop(self) -> None:
            order.append(f"stop {self.name}")

    with pytest.raises(RuntimeError, match="story"), ProcessGroup() as group:  # noqa: PT012 - the block is the group
        group.add(Part("database"))
        group.add(Part("api"))
        raise RuntimeError("the story failed")

    assert order == ["start database", "start api", "stop api", "stop database"]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


GROUP = """
import signal, sys
from pathlib import Path
from sandbox.processes import ManagedProcess, ProcessGroup

folder = Path(sys.argv[1])

def part(name):
    log = folder / name
    command = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
    return ManagedProcess(name, command, log_path=log, ready=lambda: "up" in log.read_text())

with ProcessGroup() as group:
    pids = [group.add(part(name)).pid for name in ("one", "two")]
    (folder / "pids.part").write_text(" ".join(map(str, pids)))
    (folder / "pids.part").rename(folder / "pids")
    signal.pause()
"""


@pytest.mark.parametrize(
    ("number", "code"), [("SIGINT", -2), ("SIGTERM", 128 + 15), ("SIGHUP", 128 + 1), ("SIGKILL", -9)]
)
def test_nothing_is_left_however_the_parent_goes(tmp_path: Path, number: str, code: int):
    parent = subprocess.Popen([sys.executable, "-c", GROUP, tmp_path], stderr=subprocess.DEVNULL)
    assert eventually((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(alive(pid) for pid in pids)

    parent.send_signal(getattr(signal, number))

    assert parent.wait(20) == code
    assert eventually(lambda: not any(alive(pid) for pid in pids))
