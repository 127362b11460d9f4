"""The API served by a real server, and clients of it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from fastapi import FastAPI

from sandbox.polling import wait_for
from service.api import serve
from service.api.app import create_app
from service.domain.api_keys import mint
from service.store.database import Database
from service.wiring import ApiParts
from tests.support import rows

KEYS = {slug: mint(slug.encode().ljust(32)) for slug in ("acme", "other")}
"""One key of the largest scope for each workspace; ``callers`` stores them."""


@dataclass(frozen=True)
class Api:
    """The API as its callers meet it, and the application behind it."""

    url: str
    app: FastAPI
    server: uvicorn.Server
    acme: httpx.Client
    other: httpx.Client
    nobody: httpx.Client


def callers(database: Database) -> dict[str, str]:
    """Two workspaces with their keys; the ids of the workspaces by slug."""
    ids = {slug: rows.workspace(database, slug) for slug in KEYS}
    for slug, key in KEYS.items():
        rows.api_key(database, ids[slug], key)
    return ids


@contextmanager
def serving(parts: ApiParts, ending: list[threading.Thread] | None = None) -> Iterator[Api]:
    """Serve an API over given parts for as long as the context lasts.

    Args:
        parts: of the API.
        ending: takes the thread of a server that was told to end, which needs a moment; without it that is waited for.
    """
    app = create_app(parts)
    server = serve.server(app, host="127.0.0.1", port=0, log_level="warning")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert wait_for(lambda: server.started or not thread.is_alive(), 60, every=0.005)
        assert thread.is_alive(), "the server did not start"
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        url = f"http://{host}:{port}"
        with ExitStack() as stack:
            acme, other = (stack.enter_context(_client(url, KEYS[slug])) for slug in ("acme", "other"))
            yield Api(url, app, server, acme, other, stack.enter_context(_client(url, None)))
    finally:
        server.handle_exit(signal.SIGTERM, None)
        if ending is None:
            thread.join()
        else:
            ending.append(thread)


def _client(url: str, key: str | None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)
