"""What surrounds every request: its id, the size of its body, and the last word when everything failed."""

import logging
import secrets
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import BODY_TOO_LARGE, INTERNAL_ERROR, Problem, answer

MAX_BODY_BYTES: Final = 1024 * 1024
_STATE_KEY: Final = "request_id"

log = logging.getLogger(__name__)


def request_id_of(request: Request) -> str:
    """The id that ``RequestIds`` gave this request."""
    return str(request.scope["state"][_STATE_KEY])


class RequestIds:
    """Gives every request an id, puts it and the security headers on every answer, and turns a failure into a 500."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the application to surround."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(16)}"
        # The server shares one `state` among all requests: each gets a copy of its own.
        scope["state"] = {**scope.get("state", {}), _STATE_KEY: request_id}
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message, request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request failed", extra={"request_id": request_id, "path": scope["path"]})
            if started:
                raise
            problem = Problem(INTERNAL_ERROR, "Try again later; give the operator the request_id.")
            await answer(problem, request_id)(scope, receive, send_with_id)


def _add_headers(message: MutableMapping[str, Any], request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-Id"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")


class BodyLimit:
    """Refuses bodies above ``MAX_BODY_BYTES`` before they are parsed, whether their length is declared or chunked.

    Starlette's own limiter answers a declared length with plain text that no handler can replace.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Take the application to surround."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
            await answer(_too_large(), request_id_of(Request(scope)))(scope, receive, send)
            return
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise _too_large()
            return message

        await self._app(scope, receive_bounded, send)


def _too_large() -> Problem:
    # The rest of the body is not read, so the connection cannot be used again.
    return Problem(BODY_TOO_LARGE, f"Send at most {MAX_BODY_BYTES} bytes.", headers={"Connection": "close"})
