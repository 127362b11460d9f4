"""What all HTTP adapters share: one client style, bounded answers, one translation of transport faults."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
from pydantic_core import from_json

from service.domain.errors import Nonsense, Unreachable
from service.domain.reasons import Reason

_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
    UnicodeError,  # the resolver's IDNA codec on a host label of more than 63 characters
)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer.

    Attributes:
        body: at most the limit asked for.
        complete: whether ``body`` is all of it.
    """

    status: int
    headers: httpx.Headers
    body: bytes
    complete: bool


def new_client(*, timeout: float, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """A client for the life of the process, usable from several threads.

    It follows no redirects and keeps no cookies.

    Args:
        timeout: seconds for each of connect, write, each read, and waiting for a pooled connection.
        transport: replaces the network, or guards it.
    """
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.Client(timeout=timeout, transport=transport, follow_redirects=False, cookies=no_cookies)


def exchange(client: httpx.Client, request: httpx.Request, *, limit: int, seconds: float) -> Reply:
    """Send a request and read its answer, at most ``limit`` bytes and for at most about ``seconds``.

    Args:
        client: who sends it.
        request: what.
        limit: bytes of the body to keep.
        seconds: for the body; connecting and the head have the client's timeouts.

    Raises:
        httpx.HTTPError: no answer, a broken one, or one that took too long.
    """
    return read_reply(client.send(request, stream=True), limit=limit, seconds=seconds)


def read_reply(response: httpx.Response, *, limit: int, seconds: float) -> Reply:
    """Read an answer whose head is there, at most ``limit`` bytes and for at most about ``seconds``; and close it.

    Raises:
        httpx.HTTPError: it broke off, or took too long.
    """
    deadline = time.monotonic() + seconds
    try:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limit:
                break
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer took too long", request=response.request)
    finally:
        response.close()
    return Reply(response.status_code, response.headers, bytes(body[:limit]), len(body) <= limit)


@contextmanager
def transport_faults(who: str, reason: Reason, *, write: bool = False) -> Iterator[None]:
    """Turn the faults of httpx into ``Unreachable``.

    The text names the kind of fault only: httpx puts URLs and header values into some messages.

    Args:
        who: how people call the other side.
        reason: public code.
        write: the request may change something, so that its outcome is unknown once it was sent.
    """
    try:
        yield
    except _NEVER_SENT as error:
        raise Unreachable(f"{who}: no connection ({type(error).__name__})", reason=reason) from error
    except httpx.TimeoutException as error:
        raise Unreachable(f"{who}: no answer in time", reason=reason, outcome_unknown=write) from error
    except httpx.HTTPError as error:
        detail = f"{who}: the connection broke ({type(error).__name__})"
        raise Unreachable(detail, reason=reason, outcome_unknown=write) from error


def parse_json(reply: Reply, who: str, reason: Reason) -> object:
    """The body as JSON.

    Read by pydantic's parser, which limits the depth: eth_account raises Python's recursion limit to 100,000 when it is
    imported, and ``json.loads`` of deeply nested brackets then overflows the C stack and kills the process.

    Raises:
        Nonsense: it is none, or longer than the limit.
    """
    if not reply.complete:
        raise Nonsense(f"{who}: the answer is too long", reason=reason)
    try:
        value: object = from_json(reply.body)
    except ValueError:
        raise Nonsense(f"{who}: HTTP {reply.status} with a body that is no JSON", reason=reason) from None
    return value


def retry_after(headers: httpx.Headers, now: datetime) -> float | None:
    """Seconds that ``Retry-After`` asks for, given as seconds or as an HTTP date; ``None`` without a sensible one."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # "-0000" says: UTC, zone of the sender unknown
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def one_line(text: str, limit: int = 300) -> str:
    """Printable text on one line, clipped to ``limit`` characters."""
    words = "".join(character if character.isprintable() else " " for character in text[: 4 * limit]).split()
    line = " ".join(words)
    return line if len(line) <= limit else line[: limit - 1] + "…"
