"""The network below a client, with every exchange counted, timed and traced."""

import httpx

from service.telemetry import work
from service.telemetry.context import ids

_REQUEST_ID = "request_id"


class Observed(httpx.BaseTransport):
    """A transport that tells of each exchange up to the head of its answer; the URL is never told.

    Args:
        inner: the network.
        service: how metrics call the other side.
        chain_id: that it is about.
        endpoint: which of several, by number.
        sends_request_id: the other side takes ``X-Request-Id`` and keeps it in its logs.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport,
        service: str,
        *,
        chain_id: int | None = None,
        endpoint: int | None = None,
        sends_request_id: bool = False,
    ) -> None:
        self._inner = inner
        self._service = service
        self._chain_id = chain_id
        self._endpoint = endpoint
        self._sends_request_id = sends_request_id

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See ``httpx.BaseTransport``."""
        if self._sends_request_id and _REQUEST_ID in ids():
            request.headers["X-Request-Id"] = str(ids()[_REQUEST_ID])
        with work.call(self._service, method=request.method, chain_id=self._chain_id, endpoint=self._endpoint) as made:
            try:
                response = self._inner.handle_request(request)
            except (httpx.ConnectTimeout, httpx.ConnectError, httpx.ProxyError, httpx.PoolTimeout):
                made.outcome = "no_connection"
                raise
            except httpx.TimeoutException:
                made.outcome = "timeout"
                raise
            made.answered(response.status_code)
        return response

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()
