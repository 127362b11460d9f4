from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.phala.recording import RecordingServer, recording_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with recording_server() as running:
        yield running
