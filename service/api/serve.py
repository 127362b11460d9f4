"""Serving the application until told to stop."""

import math
import signal
from types import FrameType

import uvicorn
from fastapi import FastAPI


class _Server(uvicorn.Server):
    """Answers waiting clients before it stops, so that stopping takes no longer than an ordinary request.

    uvicorn's own ends by the signal that stopped it, which supervisors take for a failure.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signals call it
        self._app.state.waiting.changes.close()
        self.force_exit = self.should_exit and sig == signal.SIGINT  # asked twice from a keyboard
        self.should_exit = True


def server(
    app: FastAPI, *, host: str, port: int, log_level: str = "info", grace_seconds: float = 10.0
) -> uvicorn.Server:
    """A server of the API; ``run()`` serves until SIGTERM or SIGINT.

    Args:
        app: made by ``create_app``.
        host: address to listen on.
        port: 0 takes a free one.
        log_level: of the server's own log; requests are not logged, because paths belong to callers.
        grace_seconds: for requests under way when it is told to stop.
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
        timeout_graceful_shutdown=math.ceil(grace_seconds),
    )
    return _Server(config, app)
