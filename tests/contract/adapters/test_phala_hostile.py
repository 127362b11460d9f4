"""The Phala adapter against answers no sandbox gives: every status, garbage, facts of the wrong form."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from eth_utils.address import to_checksum_address
from pydantic import SecretStr

from service.adapters.phala import PhalaAdapter
from service.domain.errors import (
    Busy,
    CountersignError,
    Nonsense,
    NotFound,
    NotVisibleYet,
    Refused,
    TokenDead,
    Unauthorized,
    Unreachable,
)
from service.domain.phala_facts import OperationStatus, Prepared
from service.domain.reasons import Reason
from service.phala import PhalaCloud
from tests.support.phala_cloud import NEXT_COMPOSE

PATCH = {"docker_compose_file": NEXT_COMPOSE}
UUID = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
TOKEN = SecretStr("11111111-2222-4333-8444-555555555555")
HASH, TRANSACTION = "0x" + "9f" * 32, "0x" + "aa" * 32


def adapter_for(answer: Callable[[httpx.Request], httpx.Response]) -> PhalaAdapter:
    client = PhalaCloud(api_key="phak_key", base_url="http://phala.test", transport=httpx.MockTransport(answer))
    return PhalaAdapter(client)


def saying(status: int, body: object = None, *, text: str | None = None, **headers: str) -> PhalaAdapter:
    content = text if text is not None else json.dumps(body)
    return adapter_for(lambda _: httpx.Response(status, content=content, headers=headers))


def commit(phala: PhalaAdapter) -> str:
    return phala.commit(UUID, TOKEN, HASH, TRANSACTION)


STRUCTURED = {"error_code": "ERR-01-004", "message": "duplicate name"}


@pytest.mark.parametrize(
    ("status", "body", "expected", "reason"),
    [
        (400, {"detail": "bad"}, Refused, Reason.COMMIT_REFUSED),
        (400, {"detail": "Commit token expired"}, TokenDead, Reason.TOKEN_REFUSED),
        (400, {"detail": "Invalid commit token"}, TokenDead, Reason.TOKEN_REFUSED),
        (401, {"detail": "no key"}, Unauthorized, Reason.PHALA_UNAUTHORIZED),
        (403, STRUCTURED, Unauthorized, Reason.PHALA_UNAUTHORIZED),
        (404, {"detail": "gone"}, NotFound, Reason.CVM_NOT_FOUND),
        (409, {"detail": "busy"}, Busy, Reason.PHALA_BUSY),
        (409, STRUCTURED, Refused, Reason.COMMIT_REFUSED),
        (422, {"detail": [{"loc": ["body", "token"], "msg": "nope", "type": "x"}]}, Refused, Reason.COMMIT_REFUSED),
        (429, {"detail": "slow down"}, Unreachable, Reason.PHALA_UNREACHABLE),
        (465, {"error_code": "ERR-01-005", "message": "register"}, NotVisibleYet, Reason.PHALA_LAGS),
        (466, {"error_code": "ERR-01-006", "message": "expired"}, TokenDead, Reason.TOKEN_REFUSED),
        (467, {"error_code": "ERR-01-007", "message": "tx"}, NotVisibleYet, Reason.PHALA_LAGS),
        (468, {"error_code": "ERR-01-008", "message": "no"}, NotVisibleYet, Reason.PHALA_LAGS),
        (500, {"detail": "boom"}, Unreachable, Reason.PHALA_UNREACHABLE),
    ],
)
def test_every_status_at_commit(status: int, body: object, expected: type[CountersignError], reason: Reason):
    with pytest.raises(CountersignError) as fault:
        commit(saying(status, body, **{"Retry-After": "9"}))
    assert (type(fault.value), fault.value.reason, fault.value.retry_after) == (expected, reason, 9)
    unknown = isinstance(fault.value, Unreachable) and fault.value.outcome_unknown
    assert unknown == (status == 500)


def test_words_of_a_refusal_are_clipped_printable_and_without_the_token():
    message = f"bad {TOKEN.get_secret_value()}\x1b[31m\r\n" + "x" * 5000
    with pytest.raises(Refused) as no:
        commit(saying(400, {"error_code": "ERR-02-008", "message": message}))
    detail = no.value.detail
    assert detail.startswith("Phala Cloud: ERR-02-008 bad [secret]")
    assert len(detail) == 300
    assert detail.isprintable()


GARBAGE = [
    "",
    "null",
    "[]",
    "{}",
    "<html>login</html>",
    '{"correlation_id": 5}',
    '{"correlation_id": ""}',
    "\x00",
    "[" * 99,
]


@pytest.mark.fault(
    "Phala Cloud",
    "It answers garbage",
    "treated as no answer: the outcome of a write is looked for",
    "1 to 60 s between tries",
)
@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_nonsense_and_a_write_may_have_landed(text: str):
    for call in (commit, lambda phala: phala.prepare(UUID, PATCH)):
        with pytest.raises(Nonsense) as fault:
            call(saying(202, text=text))
        assert fault.value.outcome_unknown
    for read in (
        lambda phala: phala.cvm(UUID),
        lambda phala: phala.operations(UUID, datetime.now(UTC)),
        lambda phala: phala.running(UUID),
    ):
        with pytest.raises(Nonsense):
            read(saying(200, text=text))


def test_nobody_listens():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unreachable) as fault:
        commit(adapter_for(refuse))
    assert not fault.value.outcome_unknown


def envelope(**changes: object) -> dict[str, object]:
    kms = {"id": "kms_1", "slug": "k", "url": "https://kms", "version": "1", "chain_id": 8453}
    fields: dict[str, object] = {
        "compose_hash": "9F" * 32,
        "app_id": "ab" * 20,
        "device_id": "0x" + "7b" * 32,
        "kms_info": kms,
    }
    fields |= {"commit_token": str(uuid.uuid4())} | changes
    return {
        "error_code": "ERR-01-005",
        "message": "register",
        "details": [{"field": name, "value": value} for name, value in fields.items()],
    }


def test_hex_of_a_465_is_normalised():
    prepared = saying(465, envelope()).prepare(UUID, PATCH)
    assert isinstance(prepared, Prepared)
    assert (prepared.compose_hash, prepared.device_id) == (HASH, "0x" + "7b" * 32)
    assert prepared.app_contract == to_checksum_address("ab" * 20)
    assert prepared.chain_id == 8453


@pytest.mark.parametrize(
    "changes",
    [
        {"compose_hash": "9f" * 31 + "9"},
        {"compose_hash": "zz" * 32},
        {"compose_hash": None},
        {"app_id": "ab" * 19},
        {"device_id": ""},
        {"commit_token": None},
        {"commit_token": ""},
        {"kms_info": "nothing"},
    ],
)
def test_a_465_with_a_bad_fact_is_nonsense(changes: dict[str, object]):
    with pytest.raises(Nonsense):
        saying(465, envelope(**changes)).prepare(UUID, PATCH)


INFO = {
    "id": "cvm_1",
    "name": "web",
    "status": "running",
    "vm_uuid": UUID,
    "app_id": "ab" * 20,
    "kms_info": {"chain_id": 8453, "dstack_app_address": "0x" + "AB" * 20},
    "resource": {},
    "gateway": {},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"vm_uuid": None},
        {"vm_uuid": "not-a-uuid"},
        {"app_id": "cd" * 20},
        {"app_id": "xy" * 20},
        {"compose_hash": "9f"},
        {"node_info": {"device_id": "7b"}},
    ],
)
def test_a_cvm_with_a_bad_fact_is_nonsense(changes: dict[str, object]):
    assert saying(200, INFO).cvm(UUID).chain_id == 8453
    with pytest.raises(Nonsense):
        saying(200, INFO | changes).cvm(UUID)


def attesting(document: str, *payloads: str) -> PhalaAdapter:
    events = [{"imr": 3, "event_type": 1, "event": "compose-hash", "event_payload": payload} for payload in payloads]
    registers = dict.fromkeys(("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"), "")
    attestation = {"is_online": True, "tcb_info": {**registers, "app_compose": document, "event_log": events}}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=attestation if request.url.path.endswith("/attestation") else INFO)

    return adapter_for(answer)


EMPTY_SHA256 = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of {}


def test_the_attested_hash_must_be_that_of_the_document():
    assert attesting("{}", EMPTY_SHA256).running(UUID).attested_hash == "0x" + EMPTY_SHA256
    assert attesting("{}", EMPTY_SHA256.upper()).running(UUID).attested_hash == "0x" + EMPTY_SHA256
    assert attesting("{} ", EMPTY_SHA256).running(UUID).attested_hash is None
    assert attesting("{}", "9f" * 32).running(UUID).attested_hash is None
    assert attesting("{}").running(UUID).attested_hash is None
    assert attesting("{}", EMPTY_SHA256, "9f" * 32).running(UUID).attested_hash is None


def test_an_operation_of_an_unknown_status_is_in_progress():
    item = {"correlation_id": "c", "operation_type": "x", "status": "paused", "started_at": "2026-01-02T03:04:05"}
    (operation,) = saying(200, {"items": [item], "next_cursor": None}).operations(
        UUID, datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert operation.status is OperationStatus.IN_PROGRESS
    assert operation.started_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "parts", "is_update"),
    [
        ("compose_update", ["power_off", "power_on"], True),
        ("resize", [], True),
        ("os_upgrade", [], True),
        ("combined", ["compose_update", "resize"], True),
        ("power_on", [], False),
        ("restart", ["power_off", "power_on"], False),
    ],
)
def test_an_operation_tells_whether_it_can_be_a_patch(kind: str, parts: list[str], *, is_update: bool):
    item = {"correlation_id": "c", "operation_type": kind, "sub_operations": parts, "status": "completed"}
    found = {"items": [item | {"started_at": "2026-01-02T03:04:05"}], "next_cursor": None}
    (operation,) = saying(200, found).operations(UUID, datetime(2026, 1, 1, tzinfo=UTC))
    assert operation.is_update is is_update
