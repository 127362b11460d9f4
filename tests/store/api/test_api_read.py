import itertools
from datetime import timedelta
from typing import Any

import pytest

from service.domain.alerts import ALERT_ADVICE, AlertCode
from service.domain.approver import Approver
from service.domain.calls import MULTI_SEND_CALL_ONLY, rejection_call
from service.domain.chain import AppOwnership, SafeState
from service.domain.outcomes import Advance, Notice, Wait
from service.domain.reasons import ADVICE, Reason
from service.domain.snapshots import ProposalState, SafeTransactionKind, SafeTransactionState
from service.domain.states import MEANINGS, TERMINAL, State
from service.store import transitions
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.builders import SINGLETON
from tests.support.served_api import Api

PATH = "/v1/change-requests"
OWNER = "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb"
CONTRACT = "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"
APPROVER = Approver(
    AppOwnership(has_code=True, owner=rows.SAFE, pending_owner=None),
    SafeState(rows.SAFE, "1.4.1", (OWNER,), 1, 5, singleton=SINGLETON, l2=True, guard=rows.OTHER_APP),
)


def read(api: Api, request_id: str) -> dict[str, Any]:
    answer = api.acme.get(f"{PATH}/{request_id}")
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


@pytest.mark.parametrize("state", State)
def test_a_request_is_shown_in_every_state(api: Api, database: Database, workspaces: dict[str, str], state: State):
    request_id = rows.change_request(database, workspaces["acme"], state)
    shown = read(api, request_id)
    assert (shown["state"], shown["state_meaning"]) == (state.value, MEANINGS[state])
    assert (shown["next"] is None) == (state in TERMINAL)
    assert (shown["commit"] is not None) == (state is State.COMMITTED)
    assert (shown["execution"] is not None) == (state in (State.EXECUTED, State.REGISTERED))
    assert shown in api.acme.get(PATH).json()["items"]


def test_a_safe_approval_shows_what_owners_check(api: Api, database: Database, workspaces: dict[str, str]):
    seen = {"owners": [OWNER, CONTRACT, rows.OTHER_SAFE], "threshold": 2, "guard": None, "modules": []}
    alerts = [{"code": "threshold_changed", "message": "threshold changed: 1 -> 2"}]
    proposal_id = rows.proposal(
        database, workspaces["acme"], safe_seen=seen, alerts=alerts, approver=APPROVER.as_json()
    )
    signed = {"confirmations": [OWNER], "signature_kinds": {OWNER: "eth_sign"}, "contract_signatures": [CONTRACT]}
    rows.approval(database, proposal_id, nonce=7, threshold=2, **signed)
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, proposal_id=proposal_id)
    shown = read(api, request_id)["approval"]
    (transaction,) = rows.transactions(database, proposal_id)
    calldata = "0xdfc77223" + rows.COMPOSE_HASH[2:]
    link = f"https://safe.example/transactions/tx?safe=local:{rows.SAFE}&id=multisig_{rows.SAFE}_{transaction.safe_tx_hash}"
    assert shown == {
        "kind": "safe",
        "state": "queued",
        "safe": rows.SAFE,
        "safe_eip3770": f"local:{rows.SAFE}",
        "safe_facts": {
            "version": "1.4.1",
            "singleton": SINGLETON,
            "l2": True,
            "guard": rows.OTHER_APP,
            "modules": [],
            "more_modules": False,
            "module_guard": None,
            "threshold": 1,
            "owners": [OWNER],
            "owners_eip3770": [f"local:{OWNER}"],
        },
        "nonce": 7,
        "safe_tx_hash": transaction.safe_tx_hash,
        "target": rows.APP,
        "calldata": calldata,
        "operation": 0,
        "calls": [
            {
                "to": rows.APP,
                "function": "addComposeHash(bytes32)",
                "argument": rows.COMPOSE_HASH,
                "calldata": calldata,
            }
        ],
        "devices": [],
        "confirmations": [OWNER],
        "signatures": [{"owner": OWNER, "kind": "eth_sign"}],
        "contract_signatures": [CONTRACT],
        "missing": [rows.OTHER_SAFE],
        "threshold": 2,
        "ready": False,
        "alerts": [
            {
                "code": "threshold_changed",
                "message": "threshold changed: 1 -> 2",
                "advice": ALERT_ADVICE[AlertCode.THRESHOLD_CHANGED],
            }
        ],
        "rejection": None,
        "detail": None,
        "links": {
            "safe_app_queue": f"https://safe.example/transactions/queue?safe=local:{rows.SAFE}",
            "safe_app_transaction": link,
            "safe_explorer": f"https://explorer.example/address/{rows.SAFE}",
        },
    }


@pytest.mark.parametrize(
    ("state", "confirmations", "ready"),
    [
        (SafeTransactionState.QUEUED, [OWNER, CONTRACT], True),
        (SafeTransactionState.QUEUED, [OWNER], False),
        (SafeTransactionState.EXECUTED, [OWNER, CONTRACT], False),
    ],
)
def test_an_approval_is_ready_when_enough_owners_signed_what_waits(
    api: Api,
    database: Database,
    workspaces: dict[str, str],
    state: SafeTransactionState,
    confirmations: list[str],
    ready: bool,
):
    proposal_id = rows.proposal(database, workspaces["acme"])
    rows.approval(database, proposal_id, state=state, confirmations=confirmations, threshold=2)
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, proposal_id=proposal_id)
    assert read(api, request_id)["approval"]["ready"] is ready


def test_a_batch_shows_its_calls_one_by_one(api: Api, database: Database, workspaces: dict[str, str]):
    proposal_id = rows.proposal(database, workspaces["acme"], devices=[rows.DEVICE])
    rows.approval(database, proposal_id)
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, proposal_id=proposal_id)
    shown = read(api, request_id)["approval"]
    assert (shown["target"], shown["operation"]) == (MULTI_SEND_CALL_ONLY, 1)
    assert [(call["function"], call["argument"]) for call in shown["calls"]] == [
        ("addDevice(bytes32)", rows.DEVICE),
        ("addComposeHash(bytes32)", rows.COMPOSE_HASH),
    ]
    assert all(call["calldata"][2:] in shown["calldata"] for call in shown["calls"])


def test_a_proposal_without_a_transaction_yet_is_shown(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED)
    shown = read(api, request_id)["approval"]
    assert shown["nonce"] is shown["safe_tx_hash"] is shown["links"]["safe_app_transaction"] is None
    assert shown["confirmations"] == []


def test_the_newest_approval_and_its_rejection_are_shown(api: Api, database: Database, workspaces: dict[str, str]):
    proposal_id = rows.proposal(database, workspaces["acme"], ProposalState.WITHDRAWING)
    rows.approval(database, proposal_id, nonce=3, state=SafeTransactionState.REPLACED)
    rows.approval(database, proposal_id, nonce=4)
    call = rejection_call(rows.SAFE)
    rejection = {"kind": SafeTransactionKind.REJECTION.value, "to": call.to, "data": call.data}
    rows.approval(database, proposal_id, nonce=4, **rejection)
    request_id = rows.change_request(database, workspaces["acme"], State.CANCELLED, proposal_id=proposal_id)
    shown = read(api, request_id)["approval"]
    assert (shown["state"], shown["nonce"], shown["rejection"]["nonce"]) == ("withdrawing", 4, 4)
    assert "stay usable until this transaction executes" in shown["rejection"]["note"]


@pytest.mark.parametrize("devices", [[], [rows.DEVICE]])
def test_an_external_approval_shows_what_has_to_be_called(
    api: Api, database: Database, workspaces: dict[str, str], devices: list[str]
):
    approver = {"owner": OWNER, "pending_owner": None, "safe": None}
    proposal_id = rows.proposal(
        database, workspaces["acme"], ProposalState.EXTERNAL, devices=devices, approver=approver
    )
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, proposal_id=proposal_id)
    shown = read(api, request_id)["approval"]
    calldata = "0xdfc77223" + rows.COMPOSE_HASH[2:]
    assert (shown["kind"], shown["target"]) == ("external", rows.APP)
    assert shown["calldata"] == (None if devices else calldata)
    assert shown["calls"][-1]["calldata"] == calldata
    assert len(shown["calls"]) == len(devices) + 1
    assert (shown["owner"], shown["owner_eip3770"]) == (OWNER, f"local:{OWNER}")
    assert shown["owner_explorer_url"] == f"https://explorer.example/address/{OWNER}"
    assert shown["note"].startswith(f"The owner of the app contract, {OWNER}, makes these calls")


@pytest.mark.parametrize("approver", [None, {"owner": None, "pending_owner": None, "safe": None}])
def test_an_external_approval_whose_owner_is_not_known(
    api: Api, database: Database, workspaces: dict[str, str], approver: dict[str, Any] | None
):
    proposal_id = rows.proposal(database, workspaces["acme"], ProposalState.EXTERNAL, approver=approver)
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, proposal_id=proposal_id)
    shown = read(api, request_id)["approval"]
    assert shown["owner"] is shown["owner_eip3770"] is shown["owner_explorer_url"] is None
    assert shown["note"].startswith("Whoever may change the app contract's allowlist makes these calls")


@pytest.mark.parametrize("change", [{"one_more": 1}, {}])
def test_facts_of_a_safe_may_be_those_of_another_version(
    api: Api, database: Database, workspaces: dict[str, str], change: dict[str, Any]
):
    stored = APPROVER.as_json()
    approver = {**stored, "safe": {**stored["safe"], **change}}
    proposal_id = rows.proposal(database, workspaces["acme"], approver=approver)
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, proposal_id=proposal_id)
    assert read(api, request_id)["approval"]["safe_facts"]["owners"] == [OWNER]


def test_the_app_contract_is_shown_with_its_chain_and_explorer(
    api: Api, database: Database, workspaces: dict[str, str]
):
    shown = read(api, rows.change_request(database, workspaces["acme"], State.REGISTERED))
    assert shown["app_contract_eip3770"] == f"local:{rows.APP}"
    assert shown["app_contract_explorer_url"] == f"https://explorer.example/address/{rows.APP}"
    received = read(api, rows.change_request(database, workspaces["acme"], app_contract=None))
    assert received["app_contract_eip3770"] is received["app_contract_explorer_url"] is None


def test_an_execution_links_to_the_explorer(api: Api, database: Database, workspaces: dict[str, str]):
    transaction_hash = "0x" + "ab" * 32
    request_id = rows.change_request(database, workspaces["acme"], State.REGISTERED, transaction_hash=transaction_hash)
    assert read(api, request_id)["execution"] == {
        "transaction_hash": transaction_hash,
        "block_number": 100,
        "block_hash": "0x" + "b1" * 32,
        "explorer_url": f"https://explorer.example/tx/{transaction_hash}",
    }


def test_a_chain_that_is_not_configured_any_more_has_no_links(api: Api, database: Database, workspaces: dict[str, str]):
    proposal_id = rows.proposal(database, workspaces["acme"], chain_id=10)
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, chain_id=10, proposal_id=proposal_id)
    shown = read(api, request_id)
    assert shown["chain"] == {"id": 10, "name": None}
    assert shown["approval"]["safe_eip3770"] is None
    assert set(shown["approval"]["links"].values()) == {None}
    assert shown["app_contract_eip3770"] is shown["app_contract_explorer_url"] is None


def test_what_a_request_waits_for_is_told_with_advice(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    taken = rows.lease(database, ChangeRequest, request_id)
    outcome = Wait(60, Reason.PHALA_UNREACHABLE, "timed out", failed_attempt=True)
    transitions.apply(database, taken, State.RECEIVED, outcome, rows.NOW)
    shown = read(api, request_id)
    reason = Reason.PHALA_UNREACHABLE
    assert shown["reason"] == {"code": reason.value, "advice": ADVICE[reason], "detail": "timed out"}
    assert (shown["next"]["attempts"], shown["next"]["waiting_for"]) == (1, reason.value)


def test_why_it_failed_is_told_with_advice(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(
        database, workspaces["acme"], State.FAILED, reason=Reason.CVM_NOT_FOUND.value, detail="no such CVM"
    )
    shown = read(api, request_id)
    assert shown["reason"]["code"] == "cvm_not_found"
    assert shown["next"] is None


def test_no_token_is_ever_shown(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.PREPARED)
    row = rows.read(database, ChangeRequest, request_id)
    text = api.acme.get(f"{PATH}/{request_id}").text
    assert row.commit_token_sealed.hex() not in text
    assert row.commit_token_fingerprint.hex() not in text
    assert "token-" not in text
    assert read(api, request_id)["token_expires_at"] == "2026-03-15T12:00:00Z"


def test_events_are_listed_in_order_and_page_by_page(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"])
    notices = tuple((Notice.ALERT, {"number": number}) for number in range(5))
    for _ in range(2):
        rows.shift(database, ChangeRequest, request_id, due_at=-1)
        taken = rows.lease(database, ChangeRequest, request_id)
        wait = Wait(0, Reason.PHALA_BUSY, notices=notices)
        transitions.apply(database, taken, State.RECEIVED, wait, rows.NOW + timedelta(seconds=1))
    url = f"{PATH}/{request_id}/events"
    everything = api.acme.get(url).json()
    assert [event["seq"] for event in everything["items"]] == list(range(1, 11))
    first = everything["items"][0]
    assert (first["type"], first["state"]) == ("change_request.alert", "received")
    assert first["timestamp"] == "2026-03-01T12:00:01Z"
    assert first["data"]["number"] == 0
    assert first["data"]["links"]["self"] == f"https://countersign.example{PATH}/{request_id}"
    read_on: list[int] = []
    after = 0
    for _ in range(4):
        page = api.acme.get(url, params={"after": after, "limit": 3}).json()
        read_on += [event["seq"] for event in page["items"]]
        after = page["last_seq"]
    assert read_on == list(range(1, 11))
    end = api.acme.get(url, params={"after": after}).json()
    assert (end["items"], end["last_seq"]) == ([], after)


def listed(api: Api, **query: object) -> list[str]:
    answer = api.acme.get(PATH, params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["items"]]


def test_filters_narrow_the_list(api: Api, database: Database, workspaces: dict[str, str]):
    acme = workspaces["acme"]
    received = rows.change_request(database, acme, cvm_id="my-agent")
    failed = rows.change_request(database, acme, State.FAILED, cvm_id="my-agent", compose_hash=rows.OTHER_HASH)
    proposed = rows.change_request(database, acme, State.PROPOSED)
    uuid = rows.read(database, ChangeRequest, proposed).vm_uuid
    assert listed(api) == [proposed, failed, received]
    assert listed(api, state="failed") == [failed]
    assert listed(api, live="true") == [proposed, received]
    assert listed(api, live="false") == [failed]
    assert listed(api, cvm_id="my-agent") == [failed, received]
    assert listed(api, cvm_id="my-agent", live="true") == [received]
    assert listed(api, cvm_id=uuid) == [proposed]
    assert listed(api, compose_hash=rows.OTHER_HASH) == [failed]
    assert listed(api, compose_hash=rows.COMPOSE_HASH[2:].upper()) == [proposed]
    assert listed(api, cvm_id="nobody") == []


def test_pages_follow_each_other_without_gap_or_repeat(api: Api, database: Database, workspaces: dict[str, str]):
    ids = [rows.change_request(database, workspaces["acme"]) for _ in range(5)]
    query: dict[str, Any] = {"limit": 2}
    pages = []
    for _ in range(3):
        page = api.acme.get(PATH, params=query).json()
        pages.append([one["id"] for one in page["items"]])
        query["cursor"] = page["next_cursor"]
        # What comes later is not part of a listing under way.
        rows.change_request(database, workspaces["acme"])
    assert pages == [ids[4:2:-1], ids[2:0:-1], ids[0:1]]
    assert query["cursor"] is None


def test_a_full_last_page_has_no_next_one(api: Api, database: Database, workspaces: dict[str, str]):
    for _ in range(2):
        rows.change_request(database, workspaces["acme"])
    assert api.acme.get(PATH, params={"limit": 2}).json()["next_cursor"] is None


def test_a_page_reads_its_approvals_at_once(api: Api, database: Database, workspaces: dict[str, str]):
    shared = rows.proposal(database, workspaces["acme"])
    rows.approval(database, shared, nonce=1)
    own = rows.proposal(database, workspaces["acme"], compose_hash=rows.OTHER_HASH)
    rows.approval(database, own, nonce=2)
    for proposal_id in (shared, own, shared):
        rows.change_request(database, workspaces["acme"], State.PROPOSED, proposal_id=proposal_id)
    items = api.acme.get(PATH).json()["items"]
    assert [one["approval"]["nonce"] for one in items] == [1, 2, 1]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        *itertools.product(
            [""],
            [
                {"state": "done"},
                {"live": "maybe"},
                {"limit": "0"},
                {"limit": "101"},
                {"limit": "x"},
                {"cursor": "x"},
                {"cursor": "Y3JfMDA"},
                {"cursor": "é" * 3},
                {"cursor": "\0"},
                {"cvm_id": "\0"},
                {"compose_hash": "0x" + "a" * 63},
                {"colour": "red"},
            ],
        ),
        *itertools.product(
            ["/{id}"],
            [{"wait": "-1"}, {"wait": "61"}, {"wait": "nan"}, {"wait": "inf"}, {"state": "done"}, {"colour": "red"}],
        ),
        *itertools.product(
            ["/{id}/events"],
            [{"after": "-1"}, {"after": "9" * 30}, {"limit": "0"}, {"limit": "1001"}, {"colour": "red"}],
        ),
    ],
)
def test_a_wrong_parameter_is_named(idle_api: Api, path: str, query: dict[str, str]):
    answer = idle_api.acme.get(PATH + path.format(id=f"cr_{'0' * 32}"), params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [part["parameter"] for part in answer.json()["errors"]] == list(query)


def test_a_workspace_sees_nothing_of_another(api: Api, database: Database, workspaces: dict[str, str]):
    theirs = rows.change_request(database, workspaces["acme"], State.PROPOSED, cvm_id="shared-name")
    never = f"cr_{'0' * 32}"
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        hidden, missing = (api.other.request(method, f"{PATH}/{one}{path}") for one in (theirs, never))
        assert hidden.status_code == missing.status_code == 404
        assert hidden.json() | {"request_id": ""} == missing.json() | {"request_id": ""}
    assert api.other.get(PATH, params={"cvm_id": "shared-name"}).json()["items"] == []
    assert rows.read(database, ChangeRequest, theirs).cancel_requested_at is None


def test_an_approval_goes_with_its_requests(api: Api, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED)
    taken = rows.lease(database, ChangeRequest, request_id)
    evidence = {"evidence_block_hash": "0x" + "b1" * 32, "evidence_block_number": 5}
    transitions.apply(database, taken, State.PROPOSED, Advance(State.EXECUTED, evidence), rows.NOW)
    shown = read(api, request_id)
    assert (shown["state"], shown["execution"]["transaction_hash"]) == ("executed", None)
    assert shown["execution"]["explorer_url"] is None
    assert shown["approval"]["kind"] == "safe"
