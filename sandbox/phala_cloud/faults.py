"""Misbehaviour on request: for the next matching requests, answer late, wrongly, or not at all.

A fault acts `before` the request is handled (nothing happens but the fault) or `after` (the effect happens,
its answer is lost). Only an ASGI middleware can hold an answer back; dropping takes the connection itself,
which `TransportRegistry` finds by the client's address.
"""

import asyncio
import json
import logging
import uuid
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.phala_cloud.database import Database

logger = logging.getLogger(__name__)

API_PREFIX = "/api/v1"


class Fault(BaseModel):
    """What shall go wrong, where, and how often."""

    model_config = ConfigDict(extra="forbid")

    method: str = "*"
    """HTTP method, or `*`."""
    path: str = "*"
    """Pattern over the path below `/api/v1`, such as `/cvms/*/commit-update`; `*` spans slashes too."""
    times: int = Field(default=1, ge=1)
    """For how many matching requests."""
    when: Literal["before", "after"] = "before"
    """Whether the request is handled."""
    delay_seconds: float = Field(default=0.0, ge=0, le=600)
    """Real seconds to wait: before the request is handled, or between its effect and its answer."""
    drop: bool = False
    """Close the connection without an answer."""
    status: int | None = Field(default=None, ge=200, le=599)
    """Answer with this status; None and no drop: only the delay."""
    headers: dict[str, str] = {"content-type": "application/json"}
    """Headers of that answer."""
    body: str = ""
    """Body of that answer."""


class FaultStore:
    """Faults still to come, in order; kept in the database like everything else."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, fault: Fault) -> None:
        """Queue a fault."""
        self._database.insert(
            "faults",
            method=fault.method.upper(),
            path=fault.path,
            moment=fault.when,
            remaining=fault.times,
            action=fault.model_dump_json(),
        )

    def clear(self) -> None:
        """Behave again."""
        self._database.run("DELETE FROM faults")

    def take(self, method: str, path: str) -> Fault | None:
        """The first fault that matches, counted down."""
        with self._database.transaction():
            for row in self._database.all("SELECT * FROM faults ORDER BY id"):
                if row["method"] in ("*", method) and fnmatchcase(path, row["path"]):
                    self._database.run("UPDATE faults SET remaining = remaining - 1 WHERE id = ?", row["id"])
                    self._database.run("DELETE FROM faults WHERE remaining = 0")
                    return Fault.model_validate(json.loads(row["action"]))
        return None


class FaultMiddleware:
    """Applies faults to the public API, and gives every answer an `X-Request-ID`."""

    def __init__(self, app: ASGIApp, faults: FaultStore) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, well or badly."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(f"{API_PREFIX}/"):
            await self._app(scope, receive, send)
            return
        below = path.removeprefix(API_PREFIX)
        fault = await asyncio.to_thread(self._faults.take, scope["method"], below)
        answer = _Answer(send, scope["method"], below)
        if fault is None:
            await self._app(scope, receive, answer.send)
            return
        logger.info("misbehaving (%s) at %s %s", fault.when, scope["method"], below)
        held = _Held()
        if fault.when == "after":
            await self._app(scope, receive, held.send)
        await asyncio.sleep(fault.delay_seconds)
        if fault.drop:
            TransportRegistry.abort(scope)
            while (await receive())["type"] != "http.disconnect":
                pass
        elif fault.status is not None:
            await _respond(fault, fault.status, answer.send)
        elif fault.when == "after":
            await held.release(answer.send)
        else:
            await self._app(scope, receive, answer.send)


class _Answer:
    """Passes an answer on, with a request id, and logs its status without the query."""

    def __init__(self, send: Send, method: str, path: str) -> None:
        self._send = send
        self._line = f"{method} {path}"

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            logger.info("%s -> %s", self._line, message["status"])
            request_id = (b"x-request-id", uuid.uuid4().hex.encode())
            message = {**message, "headers": [*message.get("headers", []), request_id]}
        await self._send(message)


class TransportRegistry(H11Protocol):
    """uvicorn's protocol that remembers its open connections, so that one can be cut."""

    _open: ClassVar[dict[Any, asyncio.Transport]] = {}

    # As in H11Protocol: uvicorn's transports are always streams.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection."""
        super().connection_made(transport)
        self._open[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._open.pop(self.client, None)
        super().connection_lost(exc)

    @classmethod
    def abort(cls, scope: Scope) -> None:
        """Cut the connection a request came over.

        Raises:
            RuntimeError: the server does not run with this protocol class.
        """
        transport = cls._open.get(tuple(scope["client"]))
        if transport is None:
            raise RuntimeError("connections can only be dropped under sandbox.phala_cloud.server")
        transport.abort()


class _Held:
    """Keeps an answer back, perhaps for ever."""

    def __init__(self) -> None:
        self._messages: list[Message] = []

    async def send(self, message: Message) -> None:
        self._messages.append(message)

    async def release(self, send: Send) -> None:
        for message in self._messages:
            await send(message)


async def _respond(fault: Fault, status: int, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in fault.headers.items()]
    body = fault.body.encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
