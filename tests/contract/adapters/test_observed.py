"""Calls to others are counted by service and outcome, whatever happens to them; addresses are never told."""

from collections.abc import Callable

import httpx
import pytest
from pydantic import SecretStr

from service.adapters.observed import Observed
from service.adapters.poster import HttpPoster
from service.adapters.safe import TransactionService
from service.adapters.webhook_guard import WebhookGuard
from service.domain.errors import CountersignError
from service.domain.webhook_urls import AllowList
from service.telemetry.context import working_for
from tests.support import rows
from tests.support.fakes import FakeSigner
from tests.support.hostile_http import Behaviour, HangUp, Say, Stall, serving
from tests.support.scraping import Scrape, scraping

NOWHERE = "http://127.0.0.1:1"
OUTCOMES: dict[str, Behaviour] = {
    "2xx": Say.json({"results": [], "next": None}),
    "4xx": Say(465),
    "429": Say(429),
    "5xx": Say(503),
    "timeout": Stall(),
    "broken": HangUp(),
}


def _growth(act: Callable[[], object], **labels: str) -> tuple[float, Scrape]:
    with scraping() as scraped:
        before = scraped.scrape()("upstream_calls_total", **labels)
        act()
        after = scraped.scrape()
        return after("upstream_calls_total", **labels) - before, after


def _look(url: str) -> None:
    service = TransactionService(
        url, chain_id=8453, signer=FakeSigner(), api_key=SecretStr("key-of-the-gateway"), timeout=0.2
    )
    try:
        service.pending(rows.SAFE, 0)
    except CountersignError:
        return
    finally:
        service.close()


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_a_call_to_the_transaction_service_is_counted_by_its_outcome(outcome: str):
    with serving(lambda _: OUTCOMES[outcome]) as served:
        labels = {"service": "safe_service", "chain_id": "8453", "endpoint": "", "outcome": outcome}
        grew, seen = _growth(lambda: _look(f"{served.url}/host-of-its"), **labels)
    assert grew == 1
    assert seen("upstream_call_seconds_count", service="safe_service", chain_id="8453", endpoint="") >= 1
    for secret in ("key-of-the-gateway", "host-of-its", "127.0.0.1", rows.SAFE):
        assert secret not in seen.text


def test_a_call_that_reached_nobody_is_counted_as_such():
    labels = {"service": "safe_service", "chain_id": "8453", "endpoint": "", "outcome": "no_connection"}
    assert _growth(lambda: _look(NOWHERE), **labels)[0] == 1


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_an_attempt_to_deliver_is_counted_without_its_receiver(outcome: str):
    guard = WebhookGuard(AllowList.of(["127.0.0.1"]))
    poster = HttpPoster(guard, seconds=0.2)

    def post(url: str) -> None:
        try:
            poster.post(f"{url}/hook-of-a-tenant", {}, b"{}")
        except CountersignError:
            return

    with serving(lambda _: OUTCOMES[outcome]) as served:
        labels = {"service": "webhook", "chain_id": "", "endpoint": "", "outcome": outcome}
        grew, seen = _growth(lambda: post(served.url), **labels)
    poster.close()
    assert grew == 1
    assert "hook-of-a-tenant" not in seen.text


def test_the_id_of_the_request_goes_where_it_is_taken_and_nowhere_else():
    def get(*, sends: bool) -> None:
        with httpx.Client(transport=Observed(httpx.HTTPTransport(), "phala", sends_request_id=sends)) as client:
            client.get(served.url)

    with serving(lambda _: Say(200)) as served:
        get(sends=True)
        with working_for(request_id="req_of_the_post"):
            get(sends=True)
            get(sends=False)

    assert [request.headers.get("x-request-id") for request in served.requests] == [None, "req_of_the_post", None]
