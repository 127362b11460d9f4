"""What every room of the tests shares."""

import os
import signal
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["tests.support.postgres", "tests.support.redis"]

_TESTS = Path(__file__).parent
# A test's room says what it is allowed and how to select it; nobody has to remember a marker.
_MARKS = {"unit": pytest.mark.disable_socket, "store": pytest.mark.store, "flow": pytest.mark.flow}

# A slow machine is no failure: how long an example takes is measured in bench/, not asserted here.
hypothesis.settings.register_profile(
    "countersign", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("countersign")


def pytest_configure() -> None:
    """Give Ctrl-C and hang-up their meaning back where the run was started in the background, without them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by the room it stands in; unit tests reach no network.

    In a parallel run the tests of a file stay together, for what their module sets up, and all flow tests, for the one
    stack they share.
    """
    place = item.path.relative_to(_TESTS)
    mark = _MARKS.get(place.parts[0])
    if mark is not None:
        item.add_marker(mark)
    if item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group("flow" if place.parts[0] == "flow" else str(place)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a parallel run nothing lasts as long as the flow tests: they come first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("flow") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much of what tests counted there was, all tests taken together."""
    counted: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        counted.update({name: value for name, value in report.user_properties if isinstance(value, int)})
    if counted:
        terminalreporter.write_line("counted: " + ", ".join(f"{n} {name}" for name, n in counted.items()))
