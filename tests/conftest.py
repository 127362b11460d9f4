"""What every room of the tests shares."""

import os
import signal
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.support.postgres", "tests.support.redis"]

_TESTS = Path(__file__).parent
# A test's room says what it is allowed and how to select it; nobody has to remember a marker.
_MARKS = {
    "unit": pytest.mark.disable_socket,
    "store": pytest.mark.store,
    "flow": pytest.mark.flow,
    "chaos": pytest.mark.flow,
}

# A slow machine is no failure: how long an example takes is measured in bench/, not asserted here.
hypothesis.settings.register_profile(
    "countersign", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("countersign")

_WITHOUT_STACK = {"tests/flow/test_local_world.py"}
_ON_A_SECOND_STACK = {"tests/flow/test_endpoints.py", "tests/flow/test_restarts.py"}
"""About as long as all others together."""
_BATCHES = ("tests/store/reorgs/", "tests/store/model/")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the model of `tests/store/model` goes on and where it begins; what takes minutes runs when asked for."""
    group = parser.getgroup("countersign")
    group.addoption("--chaos", action="store_true", help="run what `make chaos` runs of tests/chaos, too")
    group.addoption("--transitions", type=int, default=10_000, help="transitions that the model makes, in all")
    group.addoption("--model-seed", type=int, default=0, help="the seed that the model begins with")


def pytest_configure() -> None:
    """Give Ctrl-C and hang-up their meaning back where the run was started in the background, without them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the room it stands in; unit tests reach no network.

    In a parallel run nothing lasts as long as the flow tests: they come first.
    """
    if not items or not items[0].config.getoption("--chaos"):
        items[:] = [item for item in items if item.get_closest_marker("chaos") is None]
    for item in items:
        mark = _MARKS.get(item.path.relative_to(_TESTS).parts[0])
        if mark is not None:
            item.add_marker(mark)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("flow") is None)


class _Together(LoadScopeScheduling):
    """Keeps tests in one process that share what is costly to set up."""

    def _split_scope(self, nodeid: str) -> str:
        """Flow tests share one of two stacks, those of a file what their module sets up; batches of stories nothing."""
        path = nodeid.partition("::")[0]
        if path.startswith("tests/flow/") and path not in _WITHOUT_STACK:
            return f"flow {1 + (path in _ON_A_SECOND_STACK)}"
        return nodeid if path.startswith(_BATCHES) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """In a parallel run, who runs what."""
    config.option.loadscopereorder = False
    return _Together(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much of what tests counted there was, all tests taken together."""
    counted: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        counted.update({name: value for name, value in report.user_properties if isinstance(value, int)})
    if counted:
        terminalreporter.write_line("counted: " + ", ".join(f"{n} {name}" for name, n in counted.items()))
