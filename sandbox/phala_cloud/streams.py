"""The event stream of a CVM's state: `state` events until the target is reached (`complete`) or `timeout`."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator

from sandbox.phala_cloud import errors, shapes
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, Workspace, cvm_by_id
from sandbox.phala_cloud.world import World

MAX_STREAMS = 5
"""Concurrent streams of one user."""


class Streams:
    """Counts open streams and ends them when the server stops."""

    def __init__(self) -> None:
        self._open: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def open(self, world: World, workspace: Workspace, cvm: Cvm, target: str, pace: tuple[int, int]) -> Iterator[str]:
        """Reserve a place and answer the stream's text; `pace` is interval and timeout in seconds.

        Raises:
            ApiError: 429 if the user has too many streams open.
        """
        with self._lock:
            if self._open[workspace.id] >= MAX_STREAMS:
                raise errors.plain(429, "Too many concurrent SSE connections")
            self._open[workspace.id] += 1
        return self._stream(world, workspace, cvm.id, target, pace)

    def close(self) -> None:
        """End every open stream soon."""
        self._closing.set()

    def _stream(
        self,
        world: World,
        workspace: Workspace,
        cvm_id: int,
        target: str,
        pace: tuple[int, int],
    ) -> Iterator[str]:
        scale = world.settings.get().stream_time_scale
        interval, timeout = pace
        ends_at = time.monotonic() + timeout * scale
        try:
            while not self._closing.is_set():
                state = shapes.cvm_state(world, cvm_by_id(world.database, cvm_id))
                yield _event("state", state)
                if state["status"] == target:
                    yield _event("complete", {"status": target})
                    return
                remaining = ends_at - time.monotonic()
                if remaining <= 0:
                    yield _event("timeout", {"status": state["status"]})
                    return
                self._closing.wait(min(interval * scale, remaining))
        finally:
            with self._lock:
                self._open[workspace.id] -= 1


def _event(name: str, data: Json) -> str:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
