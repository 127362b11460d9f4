"""The webhook poster against honest, odd and hostile receivers."""

import gzip
import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from service.adapters.poster import HttpPoster
from service.adapters.webhook_guard import WebhookGuard
from service.domain.errors import AddressRefused, Unreachable
from service.domain.webhook_urls import AllowList
from service.ports import Answer
from tests.support.fakes import FixedClock
from tests.support.hostile_http import Behaviour, Drip, DripHead, HangUp, Say, Stall, serving

NOW = FixedClock(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
HEADERS = {"webhook-id": "evt_1", "webhook-signature": "v1,abc=", "content-type": "application/json"}
BODY = '{"été": 1}'.encode()
NO_TLS = ssl.create_default_context()
LOCAL = AllowList.of(["127.0.0.1", "s3cret.invalid", "s3cret.example"])


@pytest.fixture
def poster() -> Iterator[HttpPoster]:
    poster = HttpPoster(WebhookGuard(LOCAL), seconds=0.5, clock=NOW, ssl_context=NO_TLS)
    yield poster
    poster.close()


def test_exactly_the_signed_bytes_arrive(poster: HttpPoster):
    with serving(lambda _: Say(204)) as server:
        assert poster.post(f"{server.url}/hook?a=b%20c", HEADERS, BODY) == Answer(204, "", None)
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/hook?a=b%20c", BODY)
    assert {name: request.headers[name] for name in HEADERS} == HEADERS


def test_cookies_of_a_receiver_are_not_kept(poster: HttpPoster):
    with serving(lambda _: Say(200, b"", {"Set-Cookie": "tenant=a; Path=/"})) as server:
        poster.post(server.url, HEADERS, BODY)
        poster.post(server.url, HEADERS, BODY)
    assert ["cookie" in request.headers for request in server.requests] == [False, False]


@pytest.mark.parametrize("status", [200, 302, 308, 400, 410, 500, 599])
def test_every_status_is_an_answer_and_redirects_are_not_followed(poster: HttpPoster, status: int):
    with serving(lambda _: Say(status, b"why", {"Location": "http://127.0.0.1:9/elsewhere"})) as server:
        assert poster.post(server.url, HEADERS, BODY) == Answer(status, "why", None)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("9" * 30, 999_999_999.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("1e3", None),
        ("Sun, 99 Mar 2026 12:02:00 GMT", None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(poster: HttpPoster, value: str, seconds: float | None):
    with serving(lambda _: Say(429, b"", {"Retry-After": value})) as server:
        assert poster.post(server.url, HEADERS, BODY).retry_after == seconds


def test_the_excerpt_is_clipped_printable_and_on_one_line(poster: HttpPoster):
    body = b"no:\r\n\x1b[31m\x00 \xff\xfe \xe2\x80\xae" + b"x" * 1_000_000
    with serving(lambda _: Say(500, body)) as server:
        excerpt = poster.post(server.url, HEADERS, BODY).excerpt
    assert excerpt.startswith("no: [31m")
    assert len(excerpt) == 1024
    assert excerpt.isprintable()


def test_a_compressed_answer_is_not_inflated(poster: HttpPoster):
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 64 * 1024
    with serving(lambda _: Say(200, bomb, {"Content-Encoding": "gzip"})) as server:
        assert poster.post(server.url, HEADERS, BODY).status == 200
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "behaviour",
    [
        HangUp(),
        HangUp(b"220 mail.example ESMTP\r\n"),
        HangUp(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        Stall(),
        Stall(b"HTTP/1.1 2"),
        Drip(),
        DripHead(),
    ],
    ids=str,
)
def test_no_answer_in_time_or_at_all(poster: HttpPoster, behaviour: Behaviour):
    with serving(lambda _: behaviour) as server, pytest.raises(Unreachable) as fault:
        poster.post(f"{server.url}/s3cret", HEADERS, BODY)
    assert fault.value.outcome_unknown
    assert "s3cret" not in str(fault.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/s3cret", "http://s3cret.invalid/"])
def test_a_receiver_that_is_not_there_never_got_it(poster: HttpPoster, url: str):
    with pytest.raises(Unreachable) as fault:
        poster.post(url, HEADERS, BODY)
    assert not fault.value.outcome_unknown
    assert "s3cret" not in str(fault.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cret@127.0.0.1:9/",
        "ftp://127.0.0.1/s3cret",
        "/s3cret",
        "http://[s3cret/",
        "http://" + "s3cret" * 20 + ".example/",
        "http://s3cret..example/",
        "http://127.0.0.1:99999/s3cret",
        "",
    ],
)
def test_what_is_no_address_is_refused(poster: HttpPoster, url: str):
    with pytest.raises(AddressRefused) as fault:
        poster.post(url, HEADERS, BODY)
    assert "s3cret" not in str(fault.value)


def test_no_log_names_a_url(poster: HttpPoster, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG), serving(lambda _: Say(204)) as server:
        poster.post(f"{server.url}/s3cret", HEADERS, BODY)
    assert server.requests[0].target == "/s3cret"
    assert "s3cret" not in caplog.text
    assert [record.name for record in caplog.records if record.name.startswith(("httpx", "httpcore"))] == []
