"""One call over HTTP: headers, the documented retry of GETs, size and time limits, every fault mapped into the tree.

This client's requests do not appear in the loggers of ``httpx`` and ``httpcore``: their lines hold URLs, and a URL of
this API can hold a commit token. Other users of these libraries in the same process log as before.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import contextmanager
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final

import httpx
from pydantic import SecretStr

from service.phala import javascript_json
from service.phala.answers import Answer
from service.phala.errors import InvalidArgument, NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Query = Mapping[str, str | int | Sequence[str] | None]

DEFAULT_BASE_URL: Final = "https://cloud-api.phala.com/api/v1"
API_VERSION: Final = "2026-01-21"
#: Statuses on which a GET is sent once more, at once, as the official SDK does.
RETRIED_STATUSES: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})

_QUIET: ContextVar[bool] = ContextVar("phala_call_in_progress", default=False)
_HEADER_TEXT: Final = re.compile(r"[\t\x20-\x7e]*")
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
_LOGGERS: Final = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)


def _not_ours(_record: logging.LogRecord) -> bool:
    return not _QUIET.get()


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_not_ours)


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines of the HTTP libraries from this thread meanwhile."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


class Transport:
    """A pool of connections to one base URL with one API key. Safe to use from several threads."""

    def __init__(
        self,
        *,
        api_key: str | SecretStr | None,
        base_url: str | None,
        timeout: float,
        headers: Mapping[str, str] | None,
        transport: httpx.BaseTransport | None,
        max_response_bytes: int,
    ) -> None:
        self.base_url = _checked_base_url(base_url or DEFAULT_BASE_URL)
        self.timeout = timeout
        self._api_key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
        self._headers = dict(headers or {})
        self._max_bytes = max_response_bytes
        for name, value in {**self._headers, "X-API-Key": self._api_key or ""}.items():
            check_header(name, value)
        self._http = httpx.Client(
            transport=transport,
            timeout=timeout,
            headers={"User-Agent": "countersign-phala"},
            # cookies would be shared between calls, and a .netrc or proxy variable must not reach an API key's requests
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: tuple[str, str] | None = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        read_only: bool = False,
        secrets: Sequence[str] = (),
    ) -> Answer:
        """Send one request and return its 2xx answer.

        Args:
            method: HTTP method. GETs are repeated once where documented, nothing else ever.
            path: below the base URL, quoted.
            json: body; None sends none.
            content: media type and text to send instead of JSON; empty text sends no body.
            query: None values are left out; booleans are written in lower case.
            headers: of this call; they must be printable ASCII.
            read_only: the call changes nothing although it is no GET.
            secrets: texts that must not appear in an error.

        Raises:
            PhalaError: any member of the tree.
        """
        request = self._request(method, path, json=json, content=content, query=query, headers=headers)
        write = method != "GET" and not read_only
        known = self._known_secrets(*secrets)
        attempts = 2 if method == "GET" else 1
        while True:
            attempts -= 1
            try:
                answer = self._send(request, write=write, secrets=known)
            except NetworkError:
                if not attempts:
                    raise
                continue
            if answer.success:
                return answer
            if not attempts or answer.status not in RETRIED_STATUSES:
                raise answer.error()

    @contextmanager
    def stream(self, path: str, query: Query, *, read_timeout: float) -> Iterator[Iterator[bytes]]:
        """Open an event stream; yields its chunks.

        Version and content type are not sent, as by the official SDK.

        Args:
            path: below the base URL, quoted.
            query: None values are left out.
            read_timeout: seconds without a byte after which the stream counts as broken.

        Raises:
            PhalaError: any member of the tree, also while the chunks are read.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", **self._headers}
        request = self._build(
            "GET",
            path,
            query=query,
            headers=self._with_key(headers),
            content=None,
            timeout=httpx.Timeout(self.timeout, read=read_timeout),
        )
        with network_faults(f"GET {request.url.path}", write=False):
            with quiet():
                response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    raise self._answer(response, write=False, secrets=self._known_secrets()).error()
                yield response.iter_bytes()
            finally:
                response.close()

    def _request(
        self,
        method: str,
        path: str,
        *,
        json: object,
        content: tuple[str, str] | None,
        query: Query | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Request:
        media_type, text = content or ("application/json", None if json is None else javascript_json.stringify(json))
        sent = {
            "X-Phala-Version": API_VERSION,
            "Content-Type": media_type,
            "Accept": "application/json" if text else "*/*",
            **self._headers,
            **(headers or {}),
        }
        sent = self._with_key(sent)
        try:
            body = text.encode() if text else None
        except UnicodeEncodeError:
            raise InvalidArgument("the text to send is not valid Unicode") from None
        return self._build(method, path, query=query, headers=sent, content=body, timeout=httpx.Timeout(self.timeout))

    def _build(
        self,
        method: str,
        path: str,
        *,
        query: Query | None,
        headers: Mapping[str, str],
        content: bytes | None,
        timeout: httpx.Timeout,
    ) -> httpx.Request:
        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            return self._http.build_request(
                method,
                self.base_url + path,
                params=params or None,
                headers=headers,
                content=content,
                timeout=timeout,
            )
        except (httpx.InvalidURL, ValueError, TypeError):
            raise InvalidArgument("the request cannot be written as HTTP: an argument is too long or no text") from None

    def _with_key(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers with the API key, which no other header can replace; all of them checked."""
        sent = dict(headers)
        if self._api_key:
            sent = {name: value for name, value in sent.items() if name.lower() != "x-api-key"}
            sent["X-API-Key"] = self._api_key
        for name, value in sent.items():
            check_header(name, value)
        return sent

    def _known_secrets(self, *of_call: str) -> tuple[str, ...]:
        return tuple(filter(None, (*of_call, self._api_key)))

    def _send(self, request: httpx.Request, *, write: bool, secrets: Sequence[str]) -> Answer:
        with quiet(), network_faults(f"{request.method} {request.url.path}", write=write):
            response = self._http.send(request, stream=True)
            try:
                return self._answer(response, write=write, secrets=secrets)
            finally:
                response.close()

    def _answer(self, response: httpx.Response, *, write: bool, secrets: Sequence[str]) -> Answer:
        body = self._body(response)
        answer = Answer(
            call=f"{response.request.method} {response.request.url.path}",
            write=write,
            secrets=secrets,
            status=response.status_code,
            media_type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
            body=body or b"",
            request_id=response.headers.get("x-request-id"),
            retry_after=_seconds(response.headers.get("retry-after")),
        )
        if body is None:
            raise answer.bad(f"more than {self._max_bytes} bytes")
        return answer

    def _body(self, response: httpx.Response) -> bytes | None:
        """The whole body, None if it is longer than allowed."""
        deadline = time.monotonic() + self.timeout
        chunks = []
        size = 0
        for chunk in response.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_bytes:
                return None
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout(f"the answer took longer than {self.timeout} s")
        return b"".join(chunks)


class Functions:
    """What every group of API functions stands on."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


@contextmanager
def network_faults(call: str, *, write: bool) -> Iterator[None]:
    """Map every httpx error onto `NetworkError`, with what it says about the fate of a write."""
    try:
        yield
    except httpx.HTTPError as exc:
        timed_out = isinstance(exc, httpx.TimeoutException)
        unknown = write and not isinstance(exc, _NOT_SENT)
        what = "timed out" if timed_out else f"failed ({type(exc).__name__})"
        fate = "; it may have reached the server" if unknown else ""
        raise NetworkError(f"{call} {what}{fate}", timed_out=timed_out, outcome_unknown=unknown) from exc


def check_header(name: str, value: str) -> None:
    """Refuse what HTTP cannot carry in a header, before a library quotes the value in its own error.

    Raises:
        InvalidArgument: anything but printable ASCII.
    """
    if not _HEADER_TEXT.fullmatch(value) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise InvalidArgument(f"the value for header {name!a} holds characters a header cannot carry")


def _checked_base_url(text: str) -> str:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError):
        raise InvalidArgument("base_url is no URL") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise InvalidArgument("base_url must be http(s)://host[:port][/path], without credentials, query or fragment")
    return str(url).rstrip("/")


def _seconds(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else None
