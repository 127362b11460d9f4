"""Which events never arrived, and which of them are asked for."""

from dataclasses import replace
from datetime import timedelta

import pytest

from service.domain.phala_facts import Hook, HookDelivery
from service.domain.prepares import TOKEN_LIFETIME
from service.domain.recovery import (
    ASKED_AGAIN_AFTER,
    ASKS_PER_EVENT,
    ASKS_PER_LOOK,
    GIVES_UP_AFTER,
    PENDING_APPROVAL,
    AccountAlert,
    Asked,
    listed_since,
    missed,
    ours,
    trouble_with,
)
from tests.support.builders import NOW

PATH = "/v1/hooks/phala/acme"
URL = f"https://countersign.example{PATH}"
HOUR = timedelta(hours=1)


def sent(event_id: str = "evt_1", original_id: str | None = None, **fields: object) -> HookDelivery:
    """An event that Phala Cloud gave up on."""
    delivery = HookDelivery(
        event_id, original_id or event_id, PENDING_APPROVAL, delivered=False, failed=True, created_at=NOW - HOUR
    )
    return replace(delivery, **fields)


def hook(**fields: object) -> Hook:
    return replace(Hook("whk_1", URL, enabled=True, events=frozenset({PENDING_APPROVAL, "cvm.updated"})), **fields)


def test_what_was_given_up_and_is_not_known_is_asked_for():
    found = missed([sent(), sent("evt_2", delivered=True, failed=False)], frozenset(), {}, NOW)
    assert (found.ask, found.lost) == (("evt_1",), ())
    assert found.settled_to == NOW - GIVES_UP_AFTER


@pytest.mark.parametrize(
    ("deliveries", "heard"),
    [
        ([sent()], {"evt_1"}),
        ([sent(), sent("evt_2", "evt_1", delivered=True, failed=False)], set()),
        ([sent(), sent("evt_2", "evt_1")], {"evt_2"}),
        ([sent(failed=False)], set()),
        ([sent(), sent("evt_2", "evt_1", failed=False)], set()),
        ([sent(event_type="cvm.updated")], set()),
    ],
    ids=["answer lost", "sent again", "sent again, answer lost", "still tried", "still tried again", "other event"],
)
def test_what_arrived_or_may_still_arrive_is_not_asked_for(deliveries: list[HookDelivery], heard: set[str]):
    assert missed(deliveries, heard, {}, NOW).ask == ()


def test_after_two_hours_phala_cloud_has_given_up_whatever_it_calls_that():
    old = sent(failed=False, created_at=NOW - GIVES_UP_AFTER)
    assert missed([old], frozenset(), {}, NOW).ask == ("evt_1",)


def test_nothing_before_an_open_event_is_settled():
    old = sent(created_at=NOW - timedelta(days=3))
    assert missed([old], frozenset(), {"evt_1": Asked(1, NOW)}, NOW).settled_to == old.created_at
    assert missed([old], {"evt_1"}, {}, NOW).settled_to == NOW - GIVES_UP_AFTER


def test_an_event_is_asked_for_again_when_the_last_time_is_over_and_not_for_ever():
    just, before = Asked(1, NOW - timedelta(minutes=1)), Asked(1, NOW - ASKED_AGAIN_AFTER)
    assert missed([sent()], frozenset(), {"evt_1": just}, NOW).ask == ()
    assert missed([sent()], frozenset(), {"evt_1": before}, NOW).ask == ("evt_1",)

    last = missed([sent()], frozenset(), {"evt_1": Asked(ASKS_PER_EVENT, NOW)}, NOW)
    assert (last.ask, last.lost) == ((), ()), "it may still arrive"
    over = missed([sent()], frozenset(), {"evt_1": Asked(ASKS_PER_EVENT, NOW - ASKED_AGAIN_AFTER)}, NOW)
    assert (over.ask, over.lost, over.settled_to) == ((), ("evt_1",), NOW - GIVES_UP_AFTER)


def test_one_look_asks_for_the_newest_and_leaves_the_rest_for_later():
    many = [sent(f"evt_{age}", created_at=NOW - age * HOUR) for age in range(1, ASKS_PER_LOOK + 4)]
    found = missed(many, frozenset(), {}, NOW)
    assert found.ask == tuple(f"evt_{age}" for age in range(1, ASKS_PER_LOOK + 1))
    assert found.settled_to == many[-1].created_at


def test_a_token_that_has_ended_is_not_worth_a_look():
    assert listed_since(None, NOW) == listed_since(NOW - timedelta(days=20), NOW) == NOW - TOKEN_LIFETIME
    assert listed_since(NOW - HOUR, NOW) == NOW - HOUR


def test_ours_is_the_webhook_with_our_url_or_the_one_with_our_path():
    other_way_in = hook(id="whk_2", url=f"https://edge.example/countersign{PATH}")
    others = [hook(id="whk_3", url=f"{URL}-2"), hook(id="whk_4", url="https://elsewhere.example/hook")]
    assert ours([*others, other_way_in, hook()], URL, PATH) == (hook(),)
    assert ours([*others, other_way_in], URL, PATH) == (other_way_in,)
    assert ours(others, URL, PATH) == ()


@pytest.mark.parametrize(
    ("hooks", "code"),
    [
        ([], AccountAlert.WEBHOOK_NOT_REGISTERED),
        ([hook(enabled=False)], AccountAlert.WEBHOOK_DISABLED),
        ([hook(events=frozenset({"cvm.updated"}))], AccountAlert.WEBHOOK_NOT_SUBSCRIBED),
        ([hook(), hook(id="whk_2", enabled=False)], None),
    ],
)
def test_a_webhook_that_hears_nothing_is_told(hooks: list[Hook], code: AccountAlert | None):
    trouble = trouble_with(hooks, URL)
    assert (trouble.code if trouble else None) == code
