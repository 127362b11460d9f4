from collections.abc import Mapping
from typing import Final

import httpx

from service.adapters.clock import SystemClock
from service.adapters.http import exchange, new_client, one_line, retry_after, transport_faults
from service.domain.reasons import Reason
from service.ports import Answer, Clock

_ANSWER_BYTES: Final = 64 * 1024  # read so far, so that an honest connection can be used again
_EXCERPT: Final = 1024


class HttpPoster:
    """The ``Poster`` port: webhooks by one HTTP client for all receivers.

    Redirects are answers and cookies are not kept. Receivers are strangers: of what they answer, a bounded part is
    read for a bounded time and never inflated.

    Args:
        timeout: seconds for each of connecting, sending, waiting for the answer, and reading it.
        clock: for a ``Retry-After`` given as a date.
        transport: replaces the network, or guards the addresses it may reach.
    """

    def __init__(
        self, *, timeout: float = 10.0, clock: Clock | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._seconds = timeout
        self._clock = clock or SystemClock()
        self._client = new_client(timeout=timeout, transport=transport)
        self._client.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """POST the bytes.

        Args:
            url: http or https; may hold credentials and is never shown.
            headers: as they go out.
            body: exactly what was signed.

        Raises:
            Unreachable: no answer came.
        """
        with transport_faults("webhook receiver", Reason.INTERNAL_ERROR, write=True):
            request = self._client.build_request("POST", url, headers=headers, content=body)
            reply = exchange(self._client, request, limit=_ANSWER_BYTES, seconds=self._seconds, inflate=False)
        excerpt = one_line(reply.body[: 4 * _EXCERPT].decode(errors="replace"), _EXCERPT)
        return Answer(reply.status, excerpt, retry_after(reply.headers, self._clock.now()))
