"""Each invariant of the outside world holds of a good one, and finds what was planted against it."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.ledgers import LEDGERS, Invariant, Outside

CVM, APP, HASH, DEVICE = "00000000-0000-4000-8000-00000000abcd", "0xApp", "0x" + "c0" * 32, "0x" + "de" * 32
TOKEN = "31fa651c-6e1f-45d4-bfad-dfe4b8e52950"
REQUEST: dict[str, Any] = {
    "id": "cr_1",
    "state": "completed",
    "vm_uuid": CVM,
    "compose_hash": HASH,
    "app_contract": APP,
    "device_id": DEVICE,
    "evidence_block_number": 100,
    "commit_attempted_at": "then",
    "updated_at": 1,
}
COMMIT: dict[str, Any] = {"vm_uuid": CVM, "compose_hash": HASH[2:].upper(), "at": 10.0}
GOOD = Outside(
    requests=(REQUEST,),
    commits=(COMMIT,),
    executed=((APP, HASH),),
    waiting=(),
    allowed=lambda *what: what == (APP, HASH, DEVICE, 100),
    heads=((9.0, 101), (10.1, 102)),
    received={"evt_1": True, "evt_2": True},
    events=frozenset({"evt_1", "evt_2"}),
    running={CVM: HASH},
    written={"log": b"nothing here, 31fa651c-6e1f-45d4-bfad-dfe4b8e52951"},
    tokens=frozenset({TOKEN}),
)
PLANTED: dict[str, list[Outside]] = {
    "one_accepted_commit_per_request": [replace(GOOD, commits=(COMMIT, COMMIT)), replace(GOOD, commits=())],
    "no_commit_of_another_hash": [replace(GOOD, commits=({**COMMIT, "compose_hash": "0e" * 32},))],
    "no_commit_before_a_final_approval": [
        replace(GOOD, heads=((9.0, 100), (10.1, 101))),
        replace(GOOD, allowed=lambda *_: False),
    ],
    "one_executed_approval_per_identity": [replace(GOOD, executed=((APP, HASH), (APP, HASH)))],
    "one_waiting_approval_per_identity": [replace(GOOD, waiting=((APP, HASH), (APP, HASH)))],
    "every_event_arrived": [
        replace(GOOD, received={"evt_1": True}),
        replace(GOOD, received={"evt_1": True, "evt_2": False}),
    ],
    "completed_cvms_run_it": [replace(GOOD, running={CVM: "0x" + "0e" * 32})],
    "no_token_written_down": [
        replace(GOOD, written={"log": b"say " + TOKEN.upper().encode()}),
        replace(GOOD, written={"log": TOKEN.replace("-", "").encode()}),
    ],
}


def test_every_invariant_has_a_violation():
    assert set(PLANTED) == {invariant.__name__ for invariant in LEDGERS}


@pytest.mark.parametrize("invariant", LEDGERS, ids=lambda invariant: invariant.__name__)
def test_an_invariant_finds_what_was_planted(invariant: Invariant):
    assert invariant(GOOD) == []
    for outside in PLANTED[invariant.__name__]:
        assert invariant(outside) != []
