from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from service.phala import webhooks
from service.phala.errors import PhalaError

DATA = json.loads((Path(__file__).parents[2] / "vectors" / "phala" / "webhooks.json").read_text())
CASES = [pytest.param(vector, id=vector["name"]) for vector in DATA["vectors"]]
SECRET = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
NOW = 1775824496

#: The official parser hands out any JSON. Refused here on purpose: an event without id or name cannot be acted on.
REFUSED_AS_MALFORMED = {"valid_unicode_body"}
#: What the messages of the official parser are here.
WHAT = {
    "Missing required": webhooks.WebhookHeadersMissing,
    "Invalid webhook": webhooks.WebhookSignatureInvalid,
    "SyntaxError": webhooks.WebhookMalformed,
}


def options(vector: dict[str, Any]) -> dict[str, Any]:
    chosen = {"now": vector["now_epoch_seconds"] + vector["now_ms_offset"] / 1000}
    if vector["tolerance_seconds"] is not None:
        chosen["tolerance_seconds"] = vector["tolerance_seconds"]
    return chosen


@pytest.mark.parametrize("vector", CASES)
def test_verify_answers_as_the_official_one(vector: dict[str, Any]):
    for body in (vector["body"], vector["body"].encode()):
        answer = webhooks.verify(
            body,
            timestamp=vector["timestamp"],
            signature=vector["signature"],
            secrets=vector["secret"],
            **options(vector),
        )
        assert answer is vector["verify"]


@pytest.mark.parametrize("vector", CASES)
def test_parse_reads_as_the_official_one(vector: dict[str, Any]):
    def parse() -> webhooks.WebhookEvent:
        return webhooks.parse(
            vector["body"].encode(), vector["headers"], SecretStr(vector["secret"]), **options(vector)
        )

    theirs = vector["parse"]
    if vector["name"] in REFUSED_AS_MALFORMED:
        assert theirs["ok"]
        with pytest.raises(webhooks.WebhookMalformed):
            parse()
    elif theirs["ok"]:
        event = parse()
        assert event.event == theirs["event"]
        assert isinstance(event, webhooks.PendingApproval) is (event.event == webhooks.PENDING_APPROVAL)
    else:
        kind = next(kind for words, kind in WHAT.items() if words in theirs["error"])
        with pytest.raises(kind):
            parse()


def signed(body: bytes, secret: str = SECRET, moment: int = NOW) -> dict[str, str]:
    signature = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"X-Webhook-Timestamp": str(moment), "X-Webhook-Signature": f"sha256={signature}"}


VALID_BODY = DATA["vectors"][0]["body"].encode()


def test_a_pending_approval_in_full_and_its_secrets_hidden():
    event = webhooks.parse(VALID_BODY, signed(VALID_BODY), SECRET, now=NOW)
    assert isinstance(event, webhooks.PendingApproval)
    raw = json.loads(VALID_BODY)["data"]
    data = event.data
    assert (data.cvm_id, data.compose_hash, data.app_id) == (raw["cvm_id"], raw["compose_hash"], raw["app_id"])
    assert data.kms.chain_id == 8453
    assert data.onchain_action.to == raw["onchain_action"]["to"]
    assert data.onchain_action.calldata == raw["onchain_action"]["calldata"]
    assert data.expires_at.tzinfo is not None
    assert event.created_at == datetime(2026, 4, 10, 12, 34, 56, 789000, tzinfo=UTC)
    assert data.commit_token.get_secret_value() == raw["commit_token"]
    shown = repr(event) + str(event)
    assert raw["commit_token"] not in shown


def test_an_event_of_another_kind_does_not_show_its_data():
    token = "a5732e36-8f4b-4c1d-9e7a-2b5c8d9e0f1a"
    body = json.dumps(
        {
            "id": "evt_1",
            "event": "cvm.replica.pending_approval",
            "created_at": "2026-04-10T12:34:56Z",
            "data": {"commit_token": token},
        }
    ).encode()
    event = webhooks.parse(body, signed(body), SECRET, now=NOW)
    assert event.data == {"commit_token": token}
    assert token not in repr(event)


def test_secrets_rotate_without_a_gap():
    old, new = "whsec_old", SecretStr("whsec_new")
    for signer in ("whsec_old", "whsec_new"):
        assert webhooks.parse(VALID_BODY, signed(VALID_BODY, signer), [old, new], now=NOW).id
    with pytest.raises(webhooks.WebhookSignatureInvalid):
        webhooks.parse(VALID_BODY, signed(VALID_BODY, "whsec_older"), [old, new], now=NOW)


@pytest.mark.parametrize("secrets", ["", [], ["", ""], SecretStr("")])
def test_without_a_secret_nothing_verifies(secrets: Any):
    with pytest.raises(webhooks.WebhookSignatureInvalid):
        webhooks.parse(VALID_BODY, signed(VALID_BODY, ""), secrets, now=NOW)


def without(member: str) -> bytes:
    event = json.loads(VALID_BODY)
    del event["data"][member]
    return json.dumps(event).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b"\xff",
        b"{}",
        b'{"id":"evt_1"}',
        b'{"id":"","event":"cvm.stopped","created_at":"2026-04-10T12:34:56Z"}',
        b'{"id":"evt_1","event":"cvm.update.pending_approval","created_at":"2026-04-10T12:34:56Z","data":{}}',
        without("commit_token"),
        without("compose_hash"),
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[-40:]),
)
def test_signed_nonsense_is_malformed_and_quotes_nothing(body: bytes):
    with pytest.raises(webhooks.WebhookMalformed) as caught:
        webhooks.parse(body, signed(body), SECRET, now=NOW)
    assert "a5732e36" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_now_is_read_from_the_clock_if_not_given():
    with pytest.raises(webhooks.WebhookSignatureInvalid):
        webhooks.parse(VALID_BODY, signed(VALID_BODY, moment=0), SECRET)
    assert webhooks.parse(VALID_BODY, signed(VALID_BODY, moment=0), SECRET, now=0)


ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too


@given(
    body=st.binary() | ANY_TEXT,
    timestamp=ANY_TEXT | st.integers(-5, 10**30).map(str),
    signature=ANY_TEXT,
    headers=st.dictionaries(st.text(), st.none() | st.text() | st.lists(st.integers() | st.text())),
)
def test_nothing_but_the_tree_comes_out(body: Any, timestamp: str, signature: str, headers: dict[str, Any]):
    assert webhooks.verify(body, timestamp=timestamp, signature=signature, secrets=SECRET, now=NOW) is False
    stated = {**headers, "x-webhook-timestamp": timestamp, "X-Webhook-SIGNATURE": signature}
    with pytest.raises(PhalaError):
        webhooks.parse(body, stated, SECRET, now=NOW)
