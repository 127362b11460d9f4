"""Chains of hashes: what was altered, cut out or torn off is named."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.domain.audit import GENESIS, Broken, Chain, Chains, Entry, Link, link, link_of_json, with_hashes

AT = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
BODY = '{"type":"change_request.alert","data":{"title":"é"}}'
ALTERED = "was altered: it does not have the hash that is stored"


def entry(seq: int, **members: object) -> Entry:
    values = {
        "id": f"evt_{seq}",
        "workspace_id": "ws_1",
        "change_request_id": "cr_1",
        "seq": seq,
        "type": "change_request.alert",
        "state": "proposed",
        "created_at": AT,
        "actor": {"kind": "system", "name": "await"},
        "origin": None,
        "body": BODY,
    }
    return Entry(**(values | members))  # type: ignore[arg-type]  # as above


def chain(count: int, *, unchained: frozenset[int] = frozenset()) -> list[Link]:
    """A chain as it is stored; those of a version without hashes have none."""
    links, previous = [], GENESIS
    for seq in range(1, count + 1):
        own = entry(seq).digest(previous)
        plain = link(entry(seq), None, None)
        hashed = link(entry(seq, body=with_hashes(BODY, previous, own)), previous, own)
        links.append(plain if seq in unchained else hashed)
        previous = own
    return links


def followed(links: list[Link]) -> tuple[Chain, Broken | None]:
    followed = Chain()
    return followed, next((broken for each in links if (broken := followed.follow(each))), None)


def test_the_hash_is_that_of_the_documented_text():
    text = (
        '{"actor":{"kind":"system","name":"await"},"body":"{\\"type\\":\\"change_request.alert\\",\\"data\\":'
        '{\\"title\\":\\"é\\"}}","change_request_id":"cr_1","created_at":"2026-03-01T12:00:00.000005+00:00",'
        '"id":"evt_1","origin":null,"previous_hash":"' + GENESIS + '","seq":1,"state":"proposed",'
        '"type":"change_request.alert","workspace_id":"ws_1"}'
    )
    assert entry(1).digest(GENESIS) == hashlib.sha256(text.encode()).hexdigest()


def test_the_zone_of_a_time_does_not_count():
    elsewhere = AT.astimezone(timezone(timedelta(hours=9)))
    assert entry(1, created_at=elsewhere).digest(GENESIS) == entry(1).digest(GENESIS)


@pytest.mark.parametrize(
    "unchained", [frozenset(), frozenset({1}), frozenset({1, 2}), frozenset({3}), frozenset({2, 4})]
)
def test_a_whole_chain_is_followed_to_its_end(unchained: frozenset[int]):
    done, broken = followed(chain(5, unchained=unchained))
    assert broken is None
    assert (done.seq, done.chained_seq, done.uncovered) == (5, 5, 0)
    assert done.hash == done.chained_hash


def test_what_no_hash_covers_yet_is_counted():
    assert followed(chain(4, unchained=frozenset({3, 4})))[0].uncovered == 2
    assert followed(chain(2, unchained=frozenset({1, 2})))[0].uncovered == 2


ALTERATIONS: dict[str, dict[str, object]] = {
    "id": {"id": "evt_x"},
    "workspace_id": {"workspace_id": "ws_2"},
    "change_request_id": {"change_request_id": "cr_2"},
    "type": {"type": "change_request.held"},
    "state": {"state": "executed"},
    "created_at": {"created_at": AT + timedelta(microseconds=1)},
    "actor": {"actor": {"kind": "system", "name": "commit"}},
    "no actor": {"actor": None},
    "origin": {"origin": {"ip": "192.0.2.1"}},
    "body": {"body": BODY.replace("é", "e")},
    "space in the body": {"body": BODY.replace(",", ", ")},
}


@pytest.mark.parametrize("members", ALTERATIONS.values(), ids=ALTERATIONS.keys())
def test_an_altered_member_is_found_where_it_is(members: dict[str, object]):
    links = chain(5)
    links[2] = replace(links[2], entry=replace(links[2].entry, **members))
    assert followed(links)[1] == Broken(3, ALTERED)


def _forged(links: list[Link]) -> list[Link]:
    """The third altered, and its hash computed anew."""
    before = links[1].stored
    assert before is not None
    other = entry(3, state="executed")
    own = other.digest(before[1])
    return [*links[:2], link(replace(other, body=with_hashes(BODY, before[1], own)), before[1], own), *links[3:]]


def _unhashed(links: list[Link]) -> list[Link]:
    """The third altered, and made to look as if an older version wrote it."""
    return [*links[:2], link(entry(3, state="executed"), None, None), *links[3:]]


def _body_of_another(links: list[Link]) -> list[Link]:
    """The body tells receivers another hash than the one that is stored."""
    return [*links[:2], replace(links[2], in_body=(GENESIS, GENESIS)), *links[3:]]


TORN = "has another previous hash than the event before it gives: that one is not what it was"


@pytest.mark.parametrize(
    ("attack", "broken"),
    [
        (_forged, Broken(4, TORN)),
        (_unhashed, Broken(4, TORN)),
        (_body_of_another, Broken(3, "was altered: its body names other hashes than are stored")),
        (lambda links: [*links[:2], *links[3:]], Broken(3, "is missing")),
        (lambda links: links[1:], Broken(1, "is missing")),
        (lambda links: [*links[:3], *links[2:]], Broken(4, "is missing, number 3 is there again")),
        (lambda links: [links[0], links[2], links[1]], Broken(2, "is missing")),
    ],
    ids=["forged", "unhashed", "body of another", "cut out", "beginning cut off", "twice", "other order"],
)
def test_an_attack_is_named_where_it_shows(attack: Callable[[list[Link]], list[Link]], broken: Broken):
    assert followed(attack(chain(5)))[1] == broken


def test_hashes_that_are_left_in_the_body_from_before_a_downgrade_are_only_text():
    """Columns and hashes are gone, bodies are as they were sent: the chain begins anew with what is there."""
    bodies = [with_hashes(BODY, GENESIS, GENESIS), BODY]
    plain = [link(entry(seq, body=body, actor=None), None, None) for seq, body in enumerate(bodies, start=1)]
    start = Chain()
    assert [start.follow(each) for each in plain] == [None, None]
    previous = start.hash or ""
    own = entry(3).digest(previous)
    after = link(entry(3, body=with_hashes(BODY, previous, own)), previous, own)
    assert followed([*plain, after])[1] is None


def line(each: Link) -> str:
    """As an export has it."""
    stored = each.stored or (None, None)
    body = each.entry.body if each.stored is None else with_hashes(each.entry.body, *each.stored)
    members = {
        "cursor": "1.1",
        **{name: getattr(each.entry, name) for name in ("id", "workspace_id", "change_request_id", "seq", "type")},
        **{name: getattr(each.entry, name) for name in ("state", "actor", "origin")},
        "created_at": each.entry.created_at.isoformat(),
        "body": body,
        "previous_hash": stored[0],
        "hash": stored[1],
    }
    return json.dumps(members)


def test_a_line_of_an_export_is_the_link_it_was():
    for each in chain(3, unchained=frozenset({2})):
        assert link_of_json(line(each)) == each
    assert link_of_json(line(chain(1)[0]).replace('"seq": 1', '"seq": null')) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{", "1", '{"seq": 1}', '{"seq": "x"}', '{"seq": 1, "created_at": 1}']
)
def test_what_is_no_line_of_an_export_is_refused(text: str):
    with pytest.raises(ValueError, match="no line of an export"):
        link_of_json(text)


def test_chains_come_mixed_and_may_begin_in_the_middle():
    ours = chain(4)
    theirs = [replace(each, entry=replace(each.entry, change_request_id="cr_2")) for each in ours]
    both = Chains()
    assert [both.follow(each) for each in ours[2:]] == [("cr_1", None)] * 2
    assert both.follow(theirs[0]) == ("cr_2", Broken(1, ALTERED))
    assert (both.count, both.begun_late, both.uncovered) == (2, 1, 0)


def test_a_chain_that_begins_in_the_middle_without_hashes_believes_the_first_that_has_them():
    links = chain(5, unchained=frozenset({2, 3}))
    late = Chain.in_the_middle(links[1])
    assert [late.follow(each) for each in links[1:]] == [None] * 4
    assert (late.begins, late.uncovered) == (2, 0)
