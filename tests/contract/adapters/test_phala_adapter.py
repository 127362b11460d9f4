"""The Phala adapter against the Phala Cloud sandbox, whose app contracts are on a real anvil, and against garbage."""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from eth_utils.address import to_checksum_address
from pydantic import SecretStr

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from sandbox.phala_cloud.control import Control
from sandbox.phala_cloud.server import running
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
from service.domain.phala_facts import AppliedAtOnce, OperationStatus, Prepared, Running
from service.domain.reasons import Reason
from service.phala import PhalaCloud
from tests.support.phala_cloud import DEVICE, NEXT_COMPOSE, OnChainCvm, Team

PATCH = {"docker_compose_file": NEXT_COMPOSE}
UUID = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
TOKEN = SecretStr("11111111-2222-4333-8444-555555555555")
HASH, TRANSACTION = "0x" + "9f" * 32, "0x" + "aa" * 32


@pytest.fixture(scope="module")
def node() -> Iterator[LocalChain]:
    with Anvil() as anvil:
        rpc = JsonRpc(anvil.rpc_url)
        yield LocalChain(rpc)
        rpc.close()


@pytest.fixture(scope="module")
def control(node: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    database = tmp_path_factory.mktemp("phala") / "phala.sqlite3"
    with running(database, rpc_url=node.rpc.url) as url, Control(url) as control:
        control.settings(accept_seconds=0.02, restart_seconds=0.05)
        yield control


@pytest.fixture
def cvm(control: Control, node: LocalChain) -> Iterator[OnChainCvm]:
    team = Team.create(control)
    yield OnChainCvm.create(team, node)
    team.api.close()
    control.clear_faults()


@pytest.fixture
def phala(control: Control, cvm: OnChainCvm) -> Iterator[PhalaAdapter]:
    adapter = PhalaAdapter(PhalaCloud(api_key=cvm.team.api_key, base_url=control.api_url, timeout=10))
    yield adapter
    adapter.close()


def prepare(phala: PhalaAdapter, cvm: OnChainCvm) -> Prepared:
    prepared = phala.prepare(cvm.vm_uuid, PATCH)
    assert isinstance(prepared, Prepared)
    return prepared


@pytest.mark.chain
def test_a_cvm_by_any_identifier(phala: PhalaAdapter, cvm: OnChainCvm):
    by_uuid = phala.cvm(cvm.vm_uuid)
    assert (by_uuid.vm_uuid, by_uuid.app_contract, by_uuid.chain_id) == (cvm.vm_uuid, cvm.app, 31337)
    assert (by_uuid.device_id, by_uuid.status) == ("0x" + DEVICE, "running")
    assert by_uuid.compose_hash == "0x" + cvm.info["compose_hash"]
    for name in (cvm.vm_uuid.replace("-", ""), cvm.app, cvm.app[2:].lower(), cvm.info["name"], cvm.info["id"]):
        assert phala.cvm(str(name)) == by_uuid


@pytest.mark.chain
def test_a_cvm_without_on_chain_kms_has_no_contract(phala: PhalaAdapter, cvm: OnChainCvm):
    found = phala.cvm(cvm.team.off_chain_cvm()["vm_uuid"])
    assert (found.app_contract, found.chain_id) == (None, None)
    assert isinstance(phala.prepare(found.vm_uuid, PATCH), AppliedAtOnce)


@pytest.mark.chain
def test_who_is_not_there_or_not_allowed(control: Control, phala: PhalaAdapter, cvm: OnChainCvm):
    with pytest.raises(NotFound):
        phala.cvm(UUID)
    with pytest.raises(Refused):
        phala.cvm("..")
    stranger = PhalaAdapter(PhalaCloud(api_key="phak_wrong", base_url=control.api_url))
    with pytest.raises(Unauthorized) as no:
        stranger.cvm(cvm.vm_uuid)
    assert no.value.reason is Reason.PHALA_UNAUTHORIZED
    stranger.close()


@pytest.mark.chain
def test_the_whole_way(phala: PhalaAdapter, cvm: OnChainCvm):
    started = datetime.now(UTC)
    prepared = prepare(phala, cvm)
    assert (prepared.app_contract, prepared.device_id, prepared.chain_id) == (cvm.app, "0x" + DEVICE, 31337)
    assert prepared.commit_token.get_secret_value() not in repr(prepared)
    with pytest.raises(NotVisibleYet):  # 465
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, TRANSACTION)
    assert phala.operations(cvm.vm_uuid, started) == []

    transaction = cvm.register(prepared.compose_hash[2:])
    with pytest.raises(NotVisibleYet):  # 467: not that transaction
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, TRANSACTION)
    correlation_id = phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
    with pytest.raises((Busy, TokenDead)):  # a second commit
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
    cvm.settle()
    with pytest.raises(TokenDead):  # spent
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)

    (operation,) = phala.operations(cvm.vm_uuid, started)
    assert (operation.correlation_id, operation.status) == (correlation_id, OperationStatus.COMPLETED)
    assert operation.compose_hash == prepared.compose_hash
    assert phala.operations(cvm.vm_uuid, operation.started_at) == [operation]
    assert phala.operations(cvm.vm_uuid, operation.started_at + timedelta(milliseconds=1)) == []
    assert phala.running(cvm.vm_uuid) == Running(prepared.compose_hash, prepared.compose_hash, "running")


@pytest.mark.chain
def test_the_sentinel_instead_of_a_transaction(phala: PhalaAdapter, cvm: OnChainCvm):
    prepared = prepare(phala, cvm)
    cvm.register(prepared.compose_hash[2:])
    assert phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, "already-registered")


@pytest.mark.chain
def test_operations_come_newest_first_and_tell_failures(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    started = datetime.now(UTC)
    transaction = cvm.register(prepare(phala, cvm).compose_hash[2:])
    for mishap in ("operation_failure", None):
        if mishap:
            control.add_mishap(cvm.vm_uuid, mishap, "the node\nis on fire")
        prepared = prepare(phala, cvm)
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
        cvm.settle()
    completed, failed = phala.operations(cvm.vm_uuid, started)
    assert (failed.status, completed.status) == (OperationStatus.FAILED, OperationStatus.COMPLETED)
    assert failed.error == "the node is on fire"
    assert completed.error is None


@pytest.mark.chain
def test_a_newer_prepare_kills_the_token(phala: PhalaAdapter, cvm: OnChainCvm):
    first, second = prepare(phala, cvm), prepare(phala, cvm)
    transaction = cvm.register(first.compose_hash[2:])
    assert first.compose_hash == second.compose_hash
    with pytest.raises(TokenDead) as dead:
        phala.commit(cvm.vm_uuid, first.commit_token, first.compose_hash, transaction)
    assert first.commit_token.get_secret_value() not in dead.value.detail
    assert phala.commit(cvm.vm_uuid, second.commit_token, second.compose_hash, transaction)


@pytest.mark.chain
def test_a_busy_cvm(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    control.hold(cvm.vm_uuid)
    with pytest.raises(Busy):
        phala.prepare(cvm.vm_uuid, PATCH)
    control.release(cvm.vm_uuid)
    assert isinstance(phala.prepare(cvm.vm_uuid, PATCH), Prepared)


@pytest.mark.chain
def test_a_patch_phala_refuses(phala: PhalaAdapter, cvm: OnChainCvm):
    for patch in ({"docker_compose_file": "services: [unclosed"}, {"name": "other-cvm"}, {"id": UUID}):
        with pytest.raises(Refused) as no:
            phala.prepare(cvm.vm_uuid, patch)
        assert no.value.reason is Reason.PREPARE_REFUSED


@pytest.mark.chain
def test_a_lost_answer_to_a_commit_leaves_the_outcome_unknown(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    prepared = prepare(phala, cvm)
    transaction = cvm.register(prepared.compose_hash[2:])
    control.drop_after("POST", "/cvms/*/commit-update")
    with pytest.raises(Unreachable) as lost:
        phala.commit(cvm.vm_uuid, prepared.commit_token, prepared.compose_hash, transaction)
    assert lost.value.outcome_unknown
    assert len(control.accepted_commits(cvm.vm_uuid)) == 1


@pytest.mark.chain
def test_a_private_attestation_is_no_fault_but_a_failing_one_is(phala: PhalaAdapter, control: Control, cvm: OnChainCvm):
    hash_now = "0x" + cvm.info["compose_hash"]
    control.answer("GET", "/cvms/*/attestation", status=403, content_type="application/json", body='{"detail": "no"}')
    assert phala.running(cvm.vm_uuid) == Running(None, hash_now, "running")
    control.fail("GET", "/cvms/*/attestation", 503, times=2, retry_after=7)
    with pytest.raises(Unreachable) as fault:
        phala.running(cvm.vm_uuid)
    assert fault.value.retry_after == 7
    assert phala.running(cvm.vm_uuid) == Running(hash_now, hash_now, "running")


# Answers no sandbox gives. MockTransport hands them to the real client.


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
