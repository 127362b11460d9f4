"""A TCP proxy in front of a dependency, which fails as networks and servers do.

    proxy = Proxy("phala", ("127.0.0.1", 8080), protocol="http").start()
    proxy.behave(Answer(503))      # every request gets this status, and goes no further
    proxy.behave(DropAnswers())    # requests reach the server, their answers do not come back
    proxy.behave(Pass())           # well again; what was held back goes on its way

A tap sees each event on the wire before the bytes go on, and may end the connection there.
"""

import random
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

from sandbox.processes import free_port
from tests.chaos.wire import Ended, HttpStream, PostgresDialogue, WireEvent, http_label

Protocol = Literal["http", "postgres", "raw"]
Tap = Callable[[WireEvent], bool]
"""Told of an event before its bytes go on; true ends the connection without them."""

_CHUNK: Final = 65_536
_CONNECT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Pass:
    """As if it were not there."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Bytes of either direction come so many seconds late, plus up to as many again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Connections break, and new ones break at once."""


@dataclass(frozen=True, slots=True)
class BlackHole:
    """Connections are taken, and nothing goes through them, until the behaviour changes."""


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Answers come with bytes in them that no text has."""


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP: requests go no further and get this status, with ``Retry-After`` where seconds are given."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class DropAnswers:
    """What was sent arrives; the answer does not come back, the connection breaks instead."""


Behaviour = Pass | Delay | Cut | BlackHole | Corrupt | Answer | DropAnswers


class Proxy:
    """One listening port in front of one server.

    Attributes:
        upstream: host and port of the server; connections made from now on go there.
        passed: how many bytes went through, by direction.
    """

    def __init__(self, name: str, upstream: tuple[str, int], *, protocol: Protocol = "raw") -> None:
        """Take what it stands for, the server, and what is spoken."""
        self.name = name
        self.upstream = upstream
        self.port = free_port()
        self.passed: Counter[str] = Counter()
        self._protocol = protocol
        self._behaviour: Behaviour = Pass()
        self._tap: Tap | None = None
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._made = 0
        self._abandoned = 0
        self._chance = random.Random(self.port)

    def start(self) -> Self:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        threading.Thread(target=self._accept, args=(self._listener,), name=f"proxy-{self.name}", daemon=True).start()
        return self

    def stop(self) -> None:
        """Break all connections; harmless when stopped."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts
        listener.close()
        self._abandoned = 0
        self.behave(Pass())
        self.break_connections()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def behaviour(self) -> Behaviour:
        """What it does now."""
        return self._behaviour

    def behave(self, behaviour: Behaviour) -> None:
        """From now on, for open connections, too; what was held back goes on."""
        with self._changed:
            self._behaviour = behaviour
            self._changed.notify_all()
        if isinstance(behaviour, Cut):
            self.break_connections()

    def pass_on(self) -> None:
        """Be well again."""
        self.behave(Pass())

    def listen_in(self, tap: Tap | None) -> None:
        """Have a tap told of each event; ``None`` takes it away."""
        self._tap = tap

    def abandon_connections(self) -> None:
        """Those that are open stay so, and nothing ever goes through them again; new ones are none of them."""
        with self._changed:
            self._abandoned = self._made

    def break_connections(self) -> None:
        """Break those that are open."""
        with self._changed:
            connections = tuple(self._open)
        for connection in connections:
            with suppress(OSError):  # it may be gone already
                connection.shutdown(socket.SHUT_RDWR)

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, address = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client, address[1]), daemon=True).start()

    def _serve(self, client: socket.socket, client_port: int) -> None:
        server: socket.socket | None = None
        with self._changed:
            self._made += 1
            number = self._made
        with client:
            try:
                if isinstance(self._behaviour, Cut):
                    return
                self._hold_back(number)
                server = socket.create_connection(self.upstream, _CONNECT_SECONDS)
                server.settimeout(None)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._changed:
                    self._open |= {client, server}
                with server:
                    self._carry(client, server, client_port, number)
            except (OSError, Ended):
                return  # either side left, as it may
            finally:
                with self._changed:
                    self._open -= {client, server}

    def _carry(self, client: socket.socket, server: socket.socket, client_port: int, number: int) -> None:
        if self._protocol == "http":
            self._carry_http(client, server, client_port, number)
            return
        dialogue = PostgresDialogue() if self._protocol == "postgres" else None
        back = threading.Thread(
            target=self._pump, args=(server, client, "in", dialogue, client_port, number), daemon=True
        )  # fmt: skip
        back.start()
        self._pump(client, server, "out", dialogue, client_port, number)
        back.join()

    def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        direction: str,
        dialogue: PostgresDialogue | None,
        client_port: int,
        number: int,
    ) -> None:
        try:
            while data := source.recv(_CHUNK):
                behaviour = self._hold_back(number)
                if dialogue is not None and self._told(dialogue, direction, data, client_port):
                    break
                if direction == "in" and isinstance(behaviour, DropAnswers):
                    break
                if direction == "in" and isinstance(behaviour, Corrupt):
                    data = self._garbled(data)
                target.sendall(data)
                self.passed[direction] += len(data)
        except OSError:
            pass  # either side left, as it may
        finally:
            for one in (source, target):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _told(self, dialogue: PostgresDialogue, direction: str, data: bytes, client_port: int) -> bool:
        seen, moment = (dialogue.sent, "sent") if direction == "out" else (dialogue.answered, "acknowledged")
        return any(self._event(f"COMMIT {what}", moment, content, client_port) for what, content in seen(data))

    def _carry_http(self, client: socket.socket, server: socket.socket, client_port: int, number: int) -> None:
        requests, answers = HttpStream(client), HttpStream(server)
        while True:
            if not requests.holds_bytes and client not in select.select([client, server], [], [])[0]:
                return  # the server closed what lay idle
            request = requests.message()
            label = http_label(request)
            behaviour = self._hold_back(number)
            if isinstance(behaviour, Answer):
                client.sendall(_plain(behaviour))
                continue
            client_is_gone = self._event(label, "out", request, client_port)
            if select.select([server], [], [], 0)[0]:  # what was held back for long comes over a connection of its own
                self._carry_alone(request)
                return
            server.sendall(request)
            self.passed["out"] += len(request)
            answer = answers.message(bodyless=request.startswith(b"HEAD "))
            behaviour = self._hold_back(number)
            if client_is_gone or isinstance(behaviour, DropAnswers):
                return
            if isinstance(behaviour, Corrupt):
                head, _, body = answer.partition(b"\r\n\r\n")
                answer = head + b"\r\n\r\n" + self._garbled(body)
            client.sendall(answer)
            self.passed["in"] += len(answer)
            self._event(label, "in", request + answer, client_port)

    def _carry_alone(self, request: bytes) -> None:
        """Bring a request to the server; its answer is for nobody any more."""
        with socket.create_connection(self.upstream, _CONNECT_SECONDS) as server:
            server.settimeout(None)
            server.sendall(request)
            HttpStream(server).message(bodyless=request.startswith(b"HEAD "))

    def _event(self, label: str, moment: str, content: bytes, client_port: int) -> bool:
        tap = self._tap
        return tap is not None and tap(WireEvent(self.name, label, moment, content.lower(), client_port))

    def _hold_back(self, number: int) -> Behaviour:
        """Wait as long as the behaviour has bytes wait; how to treat them then."""
        with self._changed:
            behaviour = self._behaviour
            if isinstance(behaviour, Delay):
                late = behaviour.seconds * (1 + self._chance.random())
                self._changed.wait_for(lambda: self._behaviour is not behaviour, late)
            self._changed.wait_for(lambda: not isinstance(self._behaviour, BlackHole) and number > self._abandoned)
            return self._behaviour

    def _garbled(self, data: bytes) -> bytes:
        if not data:
            return data
        place = self._chance.randrange(len(data))
        size = min(8, len(data) - place)
        return data[:place] + b"\xff" * size + data[place + size :]


def _plain(behaviour: Answer) -> bytes:
    body = b'{"detail": "a proxy was told to fail"}'
    later = b"" if behaviour.retry_after is None else b"Retry-After: %d\r\n" % behaviour.retry_after
    head = b"HTTP/1.1 %d Told to fail\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    return head % (behaviour.status, len(body)) + later + b"\r\n" + body
