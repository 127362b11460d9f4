"""JSON bodies to one URL over a bare ``httpx`` transport.

``httpx.Client`` merges headers, keeps cookies and looks for redirects and authentication around each exchange. That
costs more than half as much again as the exchange itself (0.69 against 0.44 ms of CPU for a small answer), and a look
at a chain is two exchanges. What an endpoint needs of it is here: Basic authentication out of the URL, and proxies out
of the environment.
"""

from functools import cached_property
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic_core import to_json

from service.adapters.http import Reply, read_reply

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Content-Type": "application/json",
    "User-Agent": "countersign",
}


class RpcHttp:
    """POSTs JSON to one URL. Usable from several threads.

    Args:
        url: may hold credentials; never shown.
        transport: the network, see ``transport_to``.
        seconds: for each of connect, write, each read, and waiting for a pooled connection; and for a whole body.
    """

    def __init__(self, url: str, transport: httpx.BaseTransport, seconds: float) -> None:
        self._raw_url = url
        self._transport = transport
        self._seconds = seconds
        self._extensions = {"timeout": httpx.Timeout(seconds).as_dict()}

    def post(self, body: object, *, limit: int) -> Reply:
        """Send a body; the answer, at most ``limit`` bytes of it.

        Raises:
            httpx.HTTPError, httpx.InvalidURL: no answer, a broken one, one that took too long, or no URL.
        """
        url = self._url
        request = httpx.Request("POST", url, headers=_HEADERS, content=to_json(body), extensions=self._extensions)
        if self._basic_auth is not None:
            request = next(self._basic_auth.auth_flow(request))
        response = self._transport.handle_request(request)
        response.request = request
        return read_reply(response, limit=limit, seconds=self._seconds)

    @cached_property
    def _url(self) -> httpx.URL:
        """Parsed once, which is half of what building a request costs; and late, so that a bad one is a fault."""
        return httpx.URL(self._raw_url)

    @cached_property
    def _basic_auth(self) -> httpx.BasicAuth | None:
        return httpx.BasicAuth(self._url.username, self._url.password) if self._url.userinfo else None


def transport_to(url: str) -> httpx.HTTPTransport:
    """The network, by the proxy that ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` name for a URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return httpx.HTTPTransport()  # no URL: that shows at each exchange, and stops nobody else
    proxies = {} if proxy_bypass(parts.netloc.rpartition("@")[2]) else getproxies()
    return httpx.HTTPTransport(proxy=proxies.get(parts.scheme) or proxies.get("all"))
