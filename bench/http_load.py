"""Requests over plain sockets, by as many connections as it takes, so that the client costs little beside a server."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """What came of it: requests in a second, and the time that 99 of 100 requests take at most, in milliseconds."""

    per_second: float
    p99_ms: float


def run(port: int, make: Callable[[int, int], bytes], *, expect: int, seconds: float, connections: int = 8) -> Load:
    """Send requests on each connection, one after the other.

    Args:
        port: of the server on 127.0.0.1.
        make: the bytes of request ``n`` of connection ``c``.
        expect: status that each must have.
        seconds: for how long.
        connections: how many at once.
    """
    times: list[list[float]] = [[] for _ in range(connections)]
    faults: list[BaseException] = []
    start = threading.Barrier(connections + 1)
    end = [0.0]

    def talk(c: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                start.wait()
                n = 0
                while time.perf_counter() < end[0]:
                    request = make(c, n)
                    began = time.perf_counter()
                    connection.sendall(request)
                    _read(connection, expect)
                    times[c].append(time.perf_counter() - began)
                    n += 1
        except BaseException as fault:
            faults.append(fault)
            start.abort()
            raise

    threads = [threading.Thread(target=talk, args=(c,)) for c in range(connections)]
    for thread in threads:
        thread.start()
    end[0] = time.perf_counter() + seconds
    start.wait()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    taken = sorted(one for some in times for one in some)
    return Load(len(taken) / seconds, taken[int(len(taken) * 0.99)] * 1000)


def _read(connection: socket.socket, expect: int) -> None:
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = connection.recv(65536)
        assert part, "the server closed the connection"
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head[9:12]) == expect, answer[:1000]
    length = _LENGTH.search(head)
    assert length, head
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(connection.recv(65536))


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
