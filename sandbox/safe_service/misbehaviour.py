"""What stands before the service: the slash redirect, the ledger of requests, and faults on request.

Only an ASGI middleware sees every request and can hold an answer back, so this part is asynchronous.
"""

import asyncio
import re
from collections import Counter
from fnmatch import fnmatchcase
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.phala_cloud.faults import Fault, TransportRegistry
from sandbox.safe_service.database import Database, Value
from sandbox.safe_service.service import Service

_API = "/api/"
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


class Ledger:
    """Every request to the API and every proposal taken, in order."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._database = service.database

    def enter(self, method: str, path: str, status: int | None) -> None:
        """Note a request; no status means that its answer was lost."""
        route = f"{method} {_ADDRESS.sub('{address}', _HASH.sub('{hash}', path))}"
        row: dict[str, Value] = {"at": self._service.micros(), "route": route, "path": path, "status": status}
        self._database.insert("requests", row)

    def report(self) -> dict[str, Any]:
        """Counts by route, and the proposals taken (repeats of a known one included)."""
        routes = Counter(row["route"] for row in self._database.all("SELECT route FROM requests ORDER BY id"))
        accepted = self._database.all("SELECT * FROM accepted ORDER BY id")
        proposals = [
            {
                "safe": row["safe"],
                "safeTxHash": row["safe_tx_hash"],
                "nonce": row["nonce"],
                "sender": row["sender"],
                "origin": row["origin"],
            }
            for row in accepted
        ]
        return {"requests": dict(routes), "proposals": proposals}

    def clear(self) -> None:
        """Count from zero."""
        self._database.run("DELETE FROM requests")
        self._database.run("DELETE FROM accepted")


class Faults:
    """Faults still to come, kept in the database; the first that matches a request is taken."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, fault: Fault) -> None:
        """Queue a fault; its `path` is a whole path, such as `/api/v2/safes/*/multisig-transactions/`."""
        self._database.insert("faults", {"remaining": fault.times, "fault": fault.model_dump_json()})

    def clear(self) -> None:
        """Behave again."""
        self._database.run("DELETE FROM faults")

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, counted down."""
        with self._database.transaction():
            for row in self._database.all("SELECT * FROM faults WHERE remaining > 0 ORDER BY id"):
                fault = Fault.model_validate_json(row["fault"])
                if fault.method.upper() in ("*", method) and fnmatchcase(path, fault.path):
                    self._database.run("UPDATE faults SET remaining = remaining - 1 WHERE id = ?", [row["id"]])
                    return fault
        return None


class FrontDoor:
    """Middleware before the whole application."""

    def __init__(self, app: ASGIApp, faults: Faults, ledger: Ledger) -> None:
        self._app = app
        self._faults = faults
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, well or badly."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(_API):
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        fault = await asyncio.to_thread(self._faults.take, scope["method"], path)
        if fault is not None:
            await self._misbehave(fault, scope, receive, answer)
        else:
            await self._behave(scope, receive, answer)
        await asyncio.to_thread(self._ledger.enter, scope["method"], path, answer.status)

    async def _behave(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if scope["path"].endswith("/"):
            await self._app(scope, receive, answer.send)
        else:
            query = b"?" + scope["query_string"] if scope["query_string"] else b""
            location = scope["path"].encode() + b"/" + query
            await answer.respond(301, {b"location": location, b"content-type": b"text/html; charset=utf-8"})

    async def _misbehave(self, fault: Fault, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        await asyncio.sleep(fault.delay_seconds)
        replaced = fault.drop or fault.status is not None
        if not replaced:
            await self._behave(scope, receive, answer)
        elif fault.when == "after":
            await self._app(scope, receive, _swallow)
        if fault.drop:
            TransportRegistry.abort(scope)
            while (await receive())["type"] != "http.disconnect":
                pass
        elif fault.status is not None:
            headers = {name.lower().encode(): value.encode() for name, value in fault.headers.items()}
            await answer.respond(fault.status, headers, fault.body.encode())


class _Answer:
    """Passes an answer on and remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def respond(self, status: int, headers: dict[bytes, bytes], body: bytes = b"") -> None:
        headers = {**headers, b"content-length": str(len(body)).encode()}
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers.items())})
        await self.send({"type": "http.response.body", "body": body})


async def _swallow(_message: Message) -> None:
    """Takes an answer that nobody will see."""
