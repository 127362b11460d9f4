"""What surrounds every request: its id, what is told of it, the size of its body, the last word when all failed."""

import logging
import re
import secrets
from collections.abc import Mapping, MutableMapping
from time import perf_counter
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import BODY_TOO_LARGE, Problem, answer, internal_error
from service.telemetry import metrics, traces
from service.telemetry.context import working_for
from service.telemetry.traces import Told

MAX_BODY_BYTES: Final = 1024 * 1024
_STATE_KEY: Final = "request_id"
_HEADERS_KEY: Final = "answer_headers"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FAILED: Final = 500
_SANE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{7,127}")

log = logging.getLogger(__name__)


def request_id_of(request: Request) -> str:
    """The id that ``RequestIds`` gave this request."""
    return str(request.scope["state"][_STATE_KEY])


def answer_headers_of(request: Request) -> dict[str, str]:
    """Headers that go onto the answer to this request, whatever it will be."""
    headers: dict[str, str] = request.scope["state"][_HEADERS_KEY]
    return headers


class RequestIds:
    """Gives every request an id, or leaves it the sane one that it brings.

    Puts the id and the security headers on every answer, and turns a failure into a 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Take the application to surround."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        brought = Headers(scope=scope).get("x-request-id", "")
        request_id = brought if _SANE_ID.fullmatch(brought) else f"req_{secrets.token_hex(16)}"
        with working_for(request_id=request_id):
            await self._serve(scope, receive, send, request_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        more: dict[str, str] = {}
        # The server shares one `state` among all requests: each gets a copy of its own.
        scope["state"] = {**scope.get("state", {}), _STATE_KEY: request_id, _HEADERS_KEY: more}
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message, {"X-Request-Id": request_id, **more})
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request failed", extra={"request_id": request_id, "path": scope["path"]})
            if started:
                raise
            await answer(internal_error(), request_id)(scope, receive, send_with_id)


class Telling:
    """Counts, times and traces every request, by the template of its route."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the application to surround; ``RequestIds`` surrounds this."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _FAILED  # what ``RequestIds`` answers when nobody else did
        began = perf_counter()

        async def send_told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in _METHODS else "other"
        attributes = {"http.request.method": method}
        within = Headers(scope=scope).get("traceparent")
        with traces.span(method, traces.SERVER, attributes, within=within) as told:
            try:
                await self._app(scope, receive, send_told)
            finally:
                _tell(scope, method, status, perf_counter() - began, told)


def _tell(scope: Scope, method: str, status: int, seconds: float, told: Told) -> None:
    route = str(getattr(scope.get("route"), "path", "none"))
    metrics.HTTP_REQUESTS.labels(method, route, str(status)).inc()
    if b"wait=" not in scope["query_string"]:
        metrics.HTTP_SECONDS.labels(method, route).observe(seconds)
    told.name(f"{method} {route}")
    told.note(route=route)
    told.ended(str(status), well=status < _FAILED)


def _add_headers(message: MutableMapping[str, Any], more: Mapping[str, str]) -> None:
    headers = MutableHeaders(scope=message)
    headers.update(more)
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
