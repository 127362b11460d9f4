"""Serving the sandbox with uvicorn, in this process or as one of its own.

`python -m sandbox.phala_cloud.server --database FILE [--rpc-url URL] [--port N]` prints its address once it
listens.
"""

import argparse
import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from sandbox.phala_cloud.app import create_app
from sandbox.phala_cloud.faults import TransportRegistry

HOST = "127.0.0.1"
_BACKLOG = 256
_PATIENCE_SECONDS = 5


class SandboxServer(uvicorn.Server):
    """A server with the options the sandbox needs.

    uvicorn's access log stays off: it prints queries, and a commit token may be in one.
    """

    def __init__(self, database_path: Path, rpc_url: str | None) -> None:
        self._app = create_app(database_path, rpc_url=rpc_url)
        super().__init__(
            uvicorn.Config(
                self._app,
                http=TransportRegistry,
                lifespan="on",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_PATIENCE_SECONDS,
            ),
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams first: uvicorn waits for open answers before it ends the lifespan."""
        self._app.state.streams.close()
        await super().shutdown(sockets)


def listen(port: int = 0) -> socket.socket:
    """A listening socket on the local host; port 0 takes a free one.

    The protocol is named because asyncio sets TCP_NODELAY only where it is; without that every answer waits
    40 ms for the client's delayed acknowledgement.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


@contextmanager
def running(database_path: Path, *, rpc_url: str | None = None, port: int = 0) -> Iterator[str]:
    """The sandbox in a thread of this process; gives its base address, such as `http://127.0.0.1:43210`.

    It accepts connections from the start; the first requests wait until it is ready.
    """
    server = SandboxServer(database_path, rpc_url)
    with listen(port) as listener:
        address = address_of(listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="phala-cloud")
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()


def address_of(listener: socket.socket) -> str:
    """The http address of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


def main(arguments: list[str]) -> int:
    """Run until interrupted."""
    parser = argparse.ArgumentParser(prog="sandbox.phala_cloud.server", description=__doc__)
    parser.add_argument("--database", type=Path, required=True, help="SQLite file that holds the state")
    parser.add_argument("--rpc-url", help="JSON-RPC address of the chain the app contracts are on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (a free one by default)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # httpx logs the addresses it calls; they are receivers' and may hold credentials.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    server = SandboxServer(options.database, options.rpc_url)
    with listen(options.port) as listener:
        sys.stdout.write(f"{address_of(listener)}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
