"""Serving the application until told to stop."""

from types import FrameType

import uvicorn
from fastapi import FastAPI

_GRACE_SECONDS = 10


class _Server(uvicorn.Server):
    """Answers waiting clients before it stops, so that stopping takes no longer than an ordinary request."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.waiting.changes.close()
        super().handle_exit(sig, frame)


def server(app: FastAPI, *, host: str, port: int, log_level: str = "info") -> uvicorn.Server:
    """A server of the API; ``run()`` serves until SIGTERM or SIGINT.

    Args:
        app: made by ``create_app``.
        host: address to listen on.
        port: 0 takes a free one.
        log_level: of the server's own log; requests are not logged, because paths belong to callers.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level.lower(),
        log_config=None,  # its lines have the form of all others
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return _Server(config, app)
