"""Serving the sandbox with uvicorn, in a thread of this process or as a process of its own.

`python -m sandbox.safe_service.server --database FILE --rpc-url URL [--port N]` prints its address once it listens.
"""

import argparse
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from sandbox.phala_cloud.faults import TransportRegistry
from sandbox.phala_cloud.server import address_of, listen
from sandbox.safe_service import clock
from sandbox.safe_service.app import create_app


def make_server(database_path: Path, rpc_url: str, now: clock.Clock = clock.system_clock) -> uvicorn.Server:
    """A server with the options the sandbox needs."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(database_path, rpc_url, now=now),
            http=TransportRegistry,
            lifespan="on",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
        ),
    )


@contextmanager
def running(
    database_path: Path, *, rpc_url: str, port: int = 0, now: clock.Clock = clock.system_clock
) -> Iterator[str]:
    """The sandbox in a thread of this process; gives its base address, such as `http://127.0.0.1:43210`."""
    server = make_server(database_path, rpc_url, now)
    with listen(port) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="safe-service")
        thread.start()
        try:
            yield address_of(listener)
        finally:
            server.should_exit = True
            thread.join()


def main(arguments: list[str]) -> int:
    """Run until interrupted."""
    parser = argparse.ArgumentParser(prog="sandbox.safe_service.server", description=__doc__)
    parser.add_argument("--database", type=Path, required=True, help="SQLite file that holds the state")
    parser.add_argument("--rpc-url", required=True, help="JSON-RPC address of the chain")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (a free one by default)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line for every call to the node
    server = make_server(options.database, options.rpc_url)
    with listen(options.port) as listener:
        sys.stdout.write(f"{address_of(listener)}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
