"""What every room of the tests shares."""

from pathlib import Path

import pytest

pytest_plugins = ["tests.support.postgres", "tests.support.redis"]

_TESTS = Path(__file__).parent
# A test's room says what it is allowed and how to select it; nobody has to remember a marker.
_MARKS = {"unit": pytest.mark.disable_socket, "store": pytest.mark.store, "flow": pytest.mark.flow}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the room it stands in; unit tests reach no network."""
    for item in items:
        mark = _MARKS.get(item.path.relative_to(_TESTS).parts[0])
        if mark is not None:
            item.add_marker(mark)
