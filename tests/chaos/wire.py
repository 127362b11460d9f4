"""What goes over the wire, as far as a proxy has to understand it: HTTP/1.1 messages and PostgreSQL's protocol 3."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 65_536
_STARTUP_ANSWERED_BY_A_BYTE: Final = frozenset({80877103, 80877104})  # SSLRequest, GSSENCRequest
_CANCEL_REQUEST: Final = 80877102
_WRITE: Final = re.compile(r"(?<!FOR )(?<!KEY )(?<!DO )\b(UPDATE|INSERT INTO|DELETE FROM)\s+(\w+)", re.IGNORECASE)
_ID: Final = re.compile(r"0x[0-9a-fA-F]{16,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,27}|[0-9a-f]{20,}|_[0-9a-z]{16,}")


@dataclass(frozen=True, slots=True)
class WireEvent:
    """Something a proxy saw pass.

    Attributes:
        dependency: the proxy's name.
        label: what it was, without ids, so that the same thing has the same label in another run.
        moment: ``out`` and ``in`` of HTTP requests and answers, ``sent`` and ``acknowledged`` of commits.
        content: the bytes by which to tell whose it was, lower-cased.
        client_port: of the connection, on the side of the process under test.
    """

    dependency: str
    label: str
    moment: str
    content: bytes = field(repr=False)
    client_port: int


class Ended(Exception):
    """The other side closed the connection."""


class HttpStream:
    """Whole HTTP messages from one direction of a connection, as the bytes they came in."""

    def __init__(self, source: socket.socket) -> None:
        """Take where to read."""
        self._source = source
        self._held = b""

    @property
    def holds_bytes(self) -> bool:
        """Whether the next message has begun to come."""
        return bool(self._held)

    def message(self, *, bodyless: bool = False) -> bytes:
        """The next message: head and body.

        Args:
            bodyless: it has no body, whatever its head says (an answer to HEAD).

        Raises:
            Ended: there is none.
            OSError: the connection broke.
        """
        head = self._until(b"\r\n\r\n")
        lowered = head.lower()
        if bodyless or re.match(rb"http/1\.1 (1\d\d|204|304) ", lowered):
            return head
        if b"transfer-encoding: chunked" in lowered:
            return head + self._chunks()
        length = re.search(rb"\r\ncontent-length: *(\d+)", lowered)
        if length:
            return head + self._exactly(int(length[1]))
        return head + self._rest() if lowered.startswith(b"http/") else head

    def _chunks(self) -> bytes:
        body = b""
        while True:
            line = self._until(b"\r\n")
            size = int(line.split(b";")[0], 16)
            body += line + (self._exactly(size + 2) if size else self._until(b"\r\n"))
            if not size:
                return body

    def _rest(self) -> bytes:
        while data := self._source.recv(_CHUNK):
            self._held += data
        rest, self._held = self._held, b""
        return rest

    def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            self._read()
        place = self._held.index(end) + len(end)
        taken, self._held = self._held[:place], self._held[place:]
        return taken

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._read()
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _read(self) -> None:
        data = self._source.recv(_CHUNK)
        if not data:
            raise Ended
        self._held += data


def http_label(request: bytes) -> str:
    """Method and path without ids; of JSON-RPC the methods that are called."""
    line, _, _ = request.partition(b"\r\n")
    method, target, *_ = line.decode(errors="replace").split(" ")
    path = _ID.sub("{}", target.partition("?")[0])
    methods = _rpc_methods(request.partition(b"\r\n\r\n")[2])
    return " ".join([method, path, *methods])


def _rpc_methods(body: bytes) -> list[str]:
    if b'"jsonrpc"' not in body:
        return []
    try:
        asked = json.loads(body)
    except ValueError:
        return []
    calls = asked if isinstance(asked, list) else [asked]
    return sorted({str(call.get("method")) for call in calls})


@dataclass(slots=True)
class PostgresDialogue:
    """One connection to PostgreSQL, followed far enough to know what each commit writes.

    A statement outside a transaction block that writes is a commit, too.
    """

    _names: dict[bytes, str] = field(default_factory=dict)
    _written: list[str] = field(default_factory=list)
    _content: bytearray = field(default_factory=bytearray)
    _frontend: bytes = b""
    _backend: bytes = b""
    _started: bool = False
    _single_bytes: int = 0
    _in_block: bool = False
    _committing: tuple[str, bytes] | None = None

    def sent(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """(label, content) of each commit that these bytes of the client complete."""
        self._frontend += data
        while (message := self._next_of_client()) is not None:
            kind, body = message
            self._content += body
            sql = self._sql(kind, body)
            if sql is None:
                continue
            self._note_writes(sql)
            word = sql.lstrip().split(None, 1)[0].upper().rstrip(";") if sql.strip() else ""
            if word == "COMMIT" or (not self._in_block and self._written and word not in {"BEGIN", "ROLLBACK"}):
                what = ", ".join(dict.fromkeys(self._written))
                if what:
                    self._committing = (what, bytes(self._content).lower())
                    yield self._committing

    def answered(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """(label, content) of each commit that these bytes of the server acknowledge."""
        self._backend += data
        while (message := self._next_of_server()) is not None:
            kind, body = message
            if kind == b"Z":
                self._in_block = body == b"T"
                if body == b"I":
                    done, self._committing = self._committing, None
                    self._written.clear()
                    self._content.clear()
                    if done is not None:
                        yield done

    def _note_writes(self, sql: str) -> None:
        self._written += [f"{verb.upper().split()[0]} {table}" for verb, table in _WRITE.findall(sql)]

    def _sql(self, kind: bytes, body: bytes) -> str | None:
        """The text of the statement that a message asks for, if it does."""
        if kind == b"Q":
            return body.rstrip(b"\0").decode(errors="replace")
        if kind == b"P":
            name, text, *_ = body.split(b"\0")
            self._names[name] = text.decode(errors="replace")
        elif kind == b"B":
            _, name, *_ = body.split(b"\0")
            return self._names.get(name)
        return None

    def _next_of_client(self) -> tuple[bytes, bytes] | None:
        if not self._started:
            if len(self._frontend) < 8:
                return None
            size = int.from_bytes(self._frontend[:4], "big")
            if len(self._frontend) < size:
                return None
            code = int.from_bytes(self._frontend[4:8], "big")
            self._frontend = self._frontend[size:]
            if code in _STARTUP_ANSWERED_BY_A_BYTE:
                self._single_bytes += 1
            else:
                self._started = code != _CANCEL_REQUEST
            return b"startup", b""
        message, self._frontend = _typed(self._frontend)
        return message

    def _next_of_server(self) -> tuple[bytes, bytes] | None:
        if self._single_bytes and self._backend:
            self._single_bytes -= 1
            self._backend = self._backend[1:]
            return b"refused", b""
        message, self._backend = _typed(self._backend)
        return message


def _typed(data: bytes) -> tuple[tuple[bytes, bytes] | None, bytes]:
    """The first whole message with a type byte, and what follows it."""
    if len(data) < 5:
        return None, data
    size = 1 + int.from_bytes(data[1:5], "big")
    if len(data) < size:
        return None, data
    return (data[:1], data[5:size]), data[size:]
