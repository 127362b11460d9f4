"""A local HTTP server in a process of its own, which takes no time from what is measured."""

from __future__ import annotations

import multiprocessing
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    Talk = Callable[[socket.socket], None]


def _listen(talk: Talk, ready: Connection) -> None:
    """Serve each connection in a thread, as fast as this machine can, until the other process is gone."""

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            talk(connection)

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        ready.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


@contextmanager
def other_process(talk: Talk) -> Iterator[str]:
    """The URL, without a path, at which ``talk`` (a function of a module) serves each connection."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_listen, args=(talk, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()
