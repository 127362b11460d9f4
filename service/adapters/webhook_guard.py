"""The way to webhook receivers: which addresses may be reached, and connections to exactly those.

httpcore asks its network backend for every connection (its "Network Backends" page); this one never resolves a name. It
connects to addresses that were resolved and checked for the attempt at hand, so that an answer of the resolver that
changes in between is of no use to anyone.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from typing import Any, Final

import httpcore

from service.domain.errors import AddressRefused, Unreachable
from service.domain.reasons import Reason
from service.domain.webhook_urls import NOT_PUBLIC, Address, AllowList, Target, UrlRefused, check, parsed

RECEIVER: Final = "webhook receiver"
_LOOKUPS: Final = 16
_MOST_ADDRESSES: Final = 4

Resolve = Callable[[str, int], Sequence[str]]


def system_resolver(host: str, port: int) -> Sequence[str]:
    """All addresses of a name, as the system's resolver orders them.

    Raises:
        OSError: it does not resolve.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class WebhookGuard:
    """Says where webhooks may go."""

    def __init__(
        self, allowed: AllowList | None = None, *, resolve: Resolve = system_resolver, seconds: float = 5.0
    ) -> None:
        """Take the rules.

        Args:
            allowed: receivers that need not be public.
            resolve: gives the addresses of a name.
            seconds: how long it may take to.
        """
        self._allowed = allowed or AllowList()
        self._resolve = resolve
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="resolve")

    def close(self) -> None:
        """End the threads that resolve names."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def target(self, url: str) -> Target:
        """A URL that may be a receiver's, by its form.

        Raises:
            AddressRefused: it may not.
        """
        try:
            return check(url, self._allowed)
        except UrlRefused as error:
            raise AddressRefused(f"the URL {error}") from None

    def addresses(self, target: Target) -> Sequence[Address]:
        """The addresses of a receiver, all of them checked.

        Raises:
            AddressRefused: one of them must not be reached.
            Unreachable: the name does not resolve.
        """
        found = [target.address] if target.address is not None else self._looked_up(target)
        if any(not self._allowed.permits(target.host, address) for address in found):
            raise AddressRefused(f"the URL {NOT_PUBLIC}")
        return found[:_MOST_ADDRESSES]

    def _looked_up(self, target: Target) -> list[Address]:
        # The system's resolver knows no timeout.
        lookup = self._pool.submit(self._resolve, target.host, target.port)
        try:
            found = [parsed(address) for address in lookup.result(timeout=self._seconds)]
        except TookTooLong as error:
            lookup.cancel()
            raise Unreachable(f"{RECEIVER}: the name took too long to resolve", reason=Reason.INTERNAL_ERROR) from error
        except (OSError, ValueError) as error:  # UnicodeError of the resolver's own IDNA codec is a ValueError
            raise Unreachable(f"{RECEIVER}: the name does not resolve", reason=Reason.INTERNAL_ERROR) from error
        if not found:
            raise Unreachable(f"{RECEIVER}: the name has no address", reason=Reason.INTERNAL_ERROR)
        return found

    def check(self, url: str) -> None:
        """Refuse a URL that cannot be a receiver's. A name that does not resolve now may do so later.

        Raises:
            AddressRefused: see there.
        """
        target = self.target(url)
        try:
            self.addresses(target)
        except Unreachable:
            return


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt may use: the checked addresses of one host, until a moment of ``time.monotonic``."""

    host: str
    addresses: Sequence[Address]
    deadline: float

    def left(self, timeout: float | None, fault: type[Exception]) -> float:
        """Seconds that an operation may take.

        Raises:
            Exception: ``fault``, when none are left.
        """
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise fault("the attempt took too long")
        return seconds if timeout is None else min(seconds, timeout)


class PinnedBackend(httpcore.NetworkBackend):
    """Connects only for the attempt that the calling thread is at, and only to its addresses."""

    def __init__(self) -> None:
        self._network = httpcore.SyncBackend()
        self._here = threading.local()

    def begin(self, attempt: Attempt) -> None:
        """Set the attempt of this thread."""
        self._here.attempt = attempt

    def current(self) -> Attempt:
        """The attempt of this thread."""
        attempt: Attempt = self._here.attempt
        return attempt

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first checked address that takes one.

        Raises:
            httpcore.ConnectError, httpcore.ConnectTimeout: none does.
        """
        attempt = self.current()
        if host != attempt.host:
            raise httpcore.ConnectError("the host is not the one that was checked")
        fault: Exception = httpcore.ConnectError("no address")
        for address in attempt.addresses:
            seconds = attempt.left(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._network.connect_tcp(str(address), port, seconds, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                fault = error
            else:
                return _Bounded(stream, self)
        raise fault


class _Bounded(httpcore.NetworkStream):
    """A connection whose operations end with the attempt that uses it, however slowly the other side goes on."""

    def __init__(self, stream: httpcore.NetworkStream, backend: PinnedBackend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.current().left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.current().left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        seconds = self._backend.current().left(timeout, httpcore.ConnectTimeout)
        return _Bounded(self._stream.start_tls(ssl_context, server_hostname, seconds), self._backend)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface
        return self._stream.get_extra_info(info)
