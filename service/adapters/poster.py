import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import httpcore
import httpx

from service.adapters.clock import SystemClock
from service.adapters.http import one_line, retry_after
from service.adapters.webhook_guard import RECEIVER, Attempt, PinnedBackend, WebhookGuard
from service.domain.errors import Unreachable
from service.domain.reasons import Reason
from service.domain.webhook_urls import Target
from service.ports import Answer, Clock
from service.telemetry import work
from service.telemetry.work import Call

_ANSWER_BYTES: Final = 64 * 1024  # read so far, so that an honest connection can be used again
_EXCERPT: Final = 1024
_CONNECTIONS: Final = 64
_KEPT_SECONDS: Final = 30.0
_NEVER_SENT: Final = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.UnsupportedProtocol,
    httpcore.LocalProtocolError,
)


class HttpPoster:
    """The ``Poster`` port: webhooks by one pool of connections for all receivers.

    Redirects are answers, cookies are not kept, no proxy of the environment is asked. Receivers are strangers: where
    they are is checked for every attempt (``WebhookGuard``), and of what they answer a bounded part is read for a
    bounded time and never inflated. It speaks httpcore, httpx's own engine, because only there the address of a
    connection can be pinned; that also spares two thirds of the work of a request.

    Args:
        guard: says where webhooks may go.
        seconds: for the whole attempt, from the connection to the last byte that is read.
        clock: for a ``Retry-After`` given as a date.
        ssl_context: replaces the usual certificates.
    """

    def __init__(
        self,
        guard: WebhookGuard,
        *,
        seconds: float = 10.0,
        clock: Clock | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._seconds = seconds
        self._clock = clock or SystemClock()
        self._network = PinnedBackend()
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context or httpx.create_ssl_context(trust_env=False),
            max_connections=_CONNECTIONS,
            keepalive_expiry=_KEPT_SECONDS,
            network_backend=self._network,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
        self._guard.close()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST the bytes.

        Args:
            url: https, or http for a listed host; may hold credentials and is never shown.
            headers: as they go out.
            body: exactly what was signed.

        Raises:
            AddressRefused: the URL leads to where webhooks must not go; nothing was connected to.
            Unreachable: no answer came.
        """
        deadline = time.monotonic() + self._seconds
        target = self._guard.target(url)
        self._network.begin(Attempt(target.host, self._guard.addresses(target), deadline))
        with work.call("webhook", method="POST") as made, _faults(made):
            answer = self._exchange(target, headers, body)
            made.answered(answer.status)
        return answer

    def _exchange(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answer:
        address = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        all_headers = [
            ("host", target.authority),
            ("user-agent", "Countersign-Webhooks/1"),
            ("accept-encoding", "identity"),
            *headers.items(),
            ("content-length", str(len(body))),
        ]
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)
        with self._pool.stream(
            "POST", address, headers=all_headers, content=body, extensions={"timeout": timeouts}
        ) as response:
            text = bytearray()
            for chunk in response.iter_stream():
                text += chunk
                if len(text) > _ANSWER_BYTES:
                    break
            wait = self._asked_to_wait(response.headers)
        excerpt = one_line(text[: 4 * _EXCERPT].decode(errors="replace"), _EXCERPT)
        return Answer(response.status, excerpt, wait)

    def _asked_to_wait(self, headers: list[tuple[bytes, bytes]]) -> float | None:
        if any(name.lower() == b"retry-after" for name, _ in headers):
            return retry_after(httpx.Headers(headers), self._clock.now())
        return None


@contextmanager
def _faults(made: Call) -> Iterator[None]:
    """Turn the faults of httpcore into ``Unreachable``; the text names the kind of fault only."""
    reason = Reason.INTERNAL_ERROR
    try:
        yield
    except _NEVER_SENT as error:
        made.outcome = "no_connection"
        raise Unreachable(f"{RECEIVER}: no connection ({type(error).__name__})", reason=reason) from error
    except httpcore.TimeoutException as error:
        made.outcome = "timeout"
        raise Unreachable(f"{RECEIVER}: no answer in time", reason=reason, outcome_unknown=True) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        detail = f"{RECEIVER}: the connection broke ({type(error).__name__})"
        raise Unreachable(detail, reason=reason, outcome_unknown=True) from error
