"""The Safe Transaction Service adapter against a service that refuses, lies, or answers garbage."""

from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from eth_keys.datatypes import Signature
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from sandbox.chain.accounts import DELEGATE, OWNERS
from service.adapters.safe import TransactionService
from service.adapters.safe_messages import delete_request_digest
from service.domain.errors import CountersignError, Nonsense, Refused, Unreachable
from service.domain.reasons import Reason
from tests.support.builders import SAFE, safe_transaction
from tests.support.fakes import FixedClock
from tests.support.hostile_http import Behaviour, Drip, HangUp, Stall, serving
from tests.support.queue_worlds import signer_of
from tests.support.rpc_nodes import HandClock

HASH = "0x" + "9f" * 32
SIGNATURE = "0x" + "11" * 65
READS: dict[str, Callable[[TransactionService], object]] = {
    "pending": lambda queue: queue.pending(SAFE, 3),
    "delegators": lambda queue: queue.delegators(SAFE, DELEGATE.address),
    "get": lambda queue: queue.get(HASH),
    "at_nonce": lambda queue: queue.at_nonce(SAFE, 3),
}
WRITES: dict[str, Callable[[TransactionService], object]] = {
    "post": lambda queue: queue.post(safe_transaction(), SIGNATURE, DELEGATE.address, "Countersign"),
    "delete": lambda queue: queue.delete(SAFE, HASH),
}
CALLS = READS | WRITES
every_call = pytest.mark.parametrize("name", CALLS)


def queue_of(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> closing[TransactionService]:
    transport = httpx.MockTransport(answer)
    return closing(
        TransactionService(
            "http://safe.test", chain_id=31337, signer=signer_of(DELEGATE), transport=transport, **options
        )
    )


def saying(status: int, body: object = None, **headers: str) -> closing[TransactionService]:
    return queue_of(lambda _: httpx.Response(status, json=body, headers=headers))


def row(**changes: object) -> dict[str, object]:
    members = {
        "safe": SAFE,
        "to": SAFE,
        "data": None,
        "nonce": "3",
        "safeTxHash": HASH,
        "isExecuted": False,
        "isSuccessful": None,
        "transactionHash": None,
        "confirmations": [],
        "trusted": True,
    }
    return members | changes


def page(*rows: object, following: str | None = None) -> dict[str, object]:
    return {"count": len(rows), "next": following, "previous": None, "results": list(rows)}


@every_call
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_later_means_unreachable(name: str, status: int):
    with saying(status, {"detail": "later"}, **{"Retry-After": "30"}) as queue, pytest.raises(Unreachable) as fault:
        CALLS[name](queue)
    assert (fault.value.reason, fault.value.retry_after) == (Reason.SAFE_SERVICE_UNREACHABLE, 30)
    assert fault.value.outcome_unknown == (name in WRITES and status != 429)


@every_call
def test_one_call_is_one_request_of_the_quota(name: str):
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if name == "get":
            return httpx.Response(200, json=row())
        return httpx.Response({"post": 201, "delete": 204}.get(name, 200), json=page())

    with queue_of(answer) as queue:
        CALLS[name](queue)
    assert len(asked) == 1


@pytest.mark.fault(
    "Safe Transaction Service",
    "429",
    "nothing more is sent for that chain; the chain is watched as ever",
    "its `Retry-After`, a day at most",
)
@every_call
def test_after_too_many_requests_nothing_is_sent_until_the_time_is_over(name: str):
    clock, asked = HandClock(), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(429, headers={"Retry-After": "7200"})

    with queue_of(answer, monotonic=clock) as queue:
        with pytest.raises(Unreachable):
            queue.get(HASH)
        clock.seconds += 1800
        with pytest.raises(Unreachable, match="left alone for 5400 s more") as fault:
            CALLS[name](queue)
        assert (len(asked), fault.value.retry_after, fault.value.outcome_unknown) == (1, 5400, False)
        clock.seconds += 5400
        with pytest.raises(Unreachable, match=r"HTTP 429$"):
            CALLS[name](queue)
        assert len(asked) == 2


@every_call
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_api_key_is_the_operators_to_repair(name: str, status: int):
    with saying(status, {"detail": "no"}) as queue, pytest.raises(Unreachable, match="API key") as fault:
        CALLS[name](queue)
    assert not fault.value.outcome_unknown


SUCCESS_WITHOUT_BODY = {("delete", 204)}


@pytest.mark.parametrize(
    ("name", "status"),
    [(name, status) for name in CALLS for status in (200, 204, 302, 404) if (name, status) not in SUCCESS_WITHOUT_BODY],
)
@pytest.mark.parametrize("body", [b"", b"<html>Welcome</html>", b"null", b"[]", b'"x"', b"{", b"[" * 100_000, b"{}"])
def test_garbage_is_nonsense_never_a_no(name: str, status: int, body: bytes):
    with queue_of(lambda _: httpx.Response(status, content=body)) as queue, pytest.raises(Nonsense) as fault:
        CALLS[name](queue)
    assert fault.value.reason is Reason.SAFE_SERVICE_UNREACHABLE


@every_call
@pytest.mark.parametrize(
    "behaviour", [HangUp(), HangUp(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), Stall(), Drip()], ids=str
)
def test_a_service_that_breaks_off(name: str, behaviour: Behaviour):
    with (
        serving(lambda _: behaviour) as server,
        closing(TransactionService(server.url, chain_id=31337, signer=signer_of(DELEGATE), timeout=0.3)) as queue,
        pytest.raises(Unreachable) as fault,
    ):
        CALLS[name](queue)
    assert fault.value.outcome_unknown == (name in WRITES)


@every_call
def test_nobody_listens(name: str):
    with (
        closing(TransactionService("http://127.0.0.1:9", chain_id=31337, signer=signer_of(DELEGATE))) as queue,
        pytest.raises(Unreachable) as fault,
    ):
        CALLS[name](queue)
    assert not fault.value.outcome_unknown


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": None},
        {"nonce": 3},
        {"nonce": "-3"},
        {"nonce": "3.0"},
        {"nonce": "9" * 30},
        {"safeTxHash": "0x12"},
        {"safeTxHash": "0x" + "8e" * 32},
        {"to": "0x12"},
        {"data": "12"},
        {"isExecuted": "false"},
        {"isExecuted": None},
        {"transactionHash": "pending"},
        {"confirmations": "none"},
        {"confirmations": [{"owner": "me", "signature": SIGNATURE}]},
        {"confirmations": [{"owner": SAFE, "signature": "sig"}]},
    ],
    ids=str,
)
def test_a_transaction_of_the_wrong_shape_is_nonsense(changes: dict[str, object]):
    with saying(200, row()) as queue:
        assert queue.get(HASH) is not None
    with saying(200, row(**changes)) as queue, pytest.raises(Nonsense):
        queue.get(HASH)


@pytest.mark.parametrize("changes", [{"nonce": "4"}, {"safe": "0x" + "12" * 20}])
def test_transactions_that_were_not_asked_for_are_nonsense(changes: dict[str, object]):
    with saying(200, page(row(), row(**changes))) as queue, pytest.raises(Nonsense):
        queue.at_nonce(SAFE, 3)


@pytest.mark.parametrize("changes", [{"nonce": "2"}, {"safe": "0x" + "12" * 20}])
def test_pending_transactions_that_were_not_asked_for_are_nonsense(changes: dict[str, object]):
    with saying(200, page(row(), row(**changes))) as queue, pytest.raises(Nonsense):
        queue.pending(SAFE, 3)


def test_a_list_without_an_end_is_given_up():
    with saying(200, page(row(), following="http://safe.test/more")) as queue, pytest.raises(Nonsense, match="end"):
        queue.at_nonce(SAFE, 3)


def delegate(**changes: object) -> dict[str, object]:
    members = {
        "safe": SAFE,
        "delegate": DELEGATE.address,
        "delegator": OWNERS[0].address,
        "label": "",
        "expiryDate": None,
    }
    return members | changes


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"safe": None}, True),
        ({"safe": SAFE.lower()}, True),
        ({"safe": "0x" + "12" * 20}, False),
        ({"delegate": OWNERS[1].address}, False),
        ({"expiryDate": "2026-03-01T12:00:01Z"}, True),
        ({"expiryDate": "2026-03-01T12:00:00Z"}, False),
        ({"expiryDate": "2026-03-01T12:00:01"}, True),
        ({"expiryDate": "2026-03-01T13:00:01+02:00"}, False),
    ],
    ids=str,
)
def test_which_delegates_count(changes: dict[str, object], counts: bool):
    now = FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    with queue_of(lambda _: httpx.Response(200, json=page(delegate(**changes))), clock=now) as queue:
        assert queue.delegators(SAFE, DELEGATE.address) == ({OWNERS[0].address} if counts else frozenset())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"nonFieldErrors": ["Nonce=0 was already\nexecuted"]}, "Nonce=0 was already executed"),
        ({"nonce": ["This field is required."], "to": ["bad"]}, "nonce: This field is required.; to: bad"),
        (
            {"code": 1, "message": "Checksum address validation failed", "arguments": []},
            "Checksum address validation failed",
        ),
        ({"detail": "JSON parse error"}, "JSON parse error"),
        (["At least one query param must be provided"], "At least one query param must be provided"),
        ({}, "HTTP 422"),
    ],
)
def test_words_of_a_refusal(body: object, words: str):
    for write in WRITES.values():
        with saying(422, body) as queue, pytest.raises(Refused) as no:
            write(queue)
        assert (no.value.detail, no.value.reason) == (f"Safe Transaction Service: {words}", Reason.PROPOSAL_REFUSED)


def test_the_api_key_goes_into_its_header_only():
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(404, json={"detail": "no"})

    with queue_of(answer, api_key=SecretStr("sk-s3cret")) as queue:
        assert queue.get(HASH) is None
        assert "s3cret" not in repr(vars(queue))
    assert seen[0].headers["Authorization"] == "Bearer sk-s3cret"
    assert "s3cret" not in str(seen[0].url)
    with pytest.raises(ValueError, match="no header can hold") as bad:
        TransactionService("http://safe.test", chain_id=1, signer=signer_of(DELEGATE), api_key=SecretStr("sk\ns3cret"))
    assert "s3cret" not in str(bad.value)


SIGNED_BY_1 = (
    "0xd080fce3bc5921098c5a57a1b1602260dcbf2da921c59c24fbbecf0a7c71cc90"
    "37a43a0c198d79c33c97c2a1682d0c4ee4b3055633aeefd0b358d279cdcc3e8a1c"
)
SIGNED_BY_0 = (
    "0xfd44ec476bdccd34feebd932e61ac8024011ddfc2a28b18bacd2f39570807dc3"
    "2d280d95b913733db559add4aeb396e225c7f040371ba54d1986d551e3b5d34f1c"
)


@pytest.mark.parametrize(
    ("signature", "at", "signer"),
    [
        (SIGNED_BY_1, "2026-11-23T02:32:54.966384+00:00", OWNERS[1]),
        (SIGNED_BY_0, "2026-11-23T02:32:55.056033+00:00", OWNERS[0]),
    ],
)
def test_deletions_that_a_real_service_understood_recover_to_their_signers(signature: str, at: str, signer: Any):
    """Recorded from a real Safe Transaction Service 6.10.1."""
    safe = "0x6ed1307d3110aC4483E09F6De04759443B14ab8D"
    safe_tx_hash = "0xf4e025518e794e0db3053c3f70662c588f3f2b3b6f70a0eb6c8e9dd82c5dbbde"
    digest = delete_request_digest(31337, safe, safe_tx_hash, datetime.fromisoformat(at).timestamp())
    raw = bytearray.fromhex(signature[2:])
    raw[64] -= 27
    recovered = Signature(bytes(raw)).recover_public_key_from_msg_hash(bytes.fromhex(digest[2:]))
    assert recovered.to_checksum_address() == signer.address


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*row(), *page(), *delegate(), "x"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(status=st.sampled_from([200, 201, 204, 400, 404, 422]), body=json_values, name=st.sampled_from(sorted(CALLS)))
def test_whatever_the_answer_only_our_faults_come_out(status: int, body: object, name: str):
    with saying(status, body) as queue, suppress(CountersignError):
        CALLS[name](queue)
