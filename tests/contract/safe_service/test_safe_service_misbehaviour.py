"""The sandbox told to misbehave, and what it says it was asked."""

import time

import httpx
import pytest

from sandbox.chain.accounts import OUTSIDER, OWNERS
from sandbox.chain.safes import SafeTx, deploy_safe
from sandbox.safe_service.control import CONFIRMATIONS, PROPOSALS, TRANSACTION
from tests.support.safe_service import SafeWorld

pytestmark = pytest.mark.chain
TX = SafeTx(to=OUTSIDER.address, data=b"\x01", nonce=0)


def test_too_many_requests_with_retry_after_for_the_next_requests_only(world: SafeWorld):
    safe = deploy_safe(world.chain)
    world.control.fail("POST", PROPOSALS, status=429, times=2, retry_after=7)
    for _ in range(2):
        refused = world.propose(safe, TX, OWNERS[0])
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert world.listed(safe) == []  # another method is not concerned, and nothing was taken
    assert world.propose(safe, TX, OWNERS[0]).status_code == 201


def test_a_server_error_hits_the_path_it_is_meant_for(world: SafeWorld):
    safe = deploy_safe(world.chain)
    world.propose(safe, TX, OWNERS[0])
    tx_hash = world.hash_of(safe, TX)
    world.control.fail("*", TRANSACTION, status=502)
    assert world.client.get("/api/v1/about/").status_code == 200
    assert world.client.get(f"/api/v2/multisig-transactions/{tx_hash}/").status_code == 502
    assert world.transaction(tx_hash)["safeTxHash"] == tx_hash


def test_dropped_after_accepting_the_effect_is_there_and_dropped_before_it_is_not(world: SafeWorld):
    safe = deploy_safe(world.chain)
    world.control.drop_before("POST", PROPOSALS)
    with pytest.raises(httpx.RemoteProtocolError):
        world.propose(safe, TX, OWNERS[0])
    assert world.listed(safe) == []
    world.control.drop_after("POST", PROPOSALS)
    with pytest.raises(httpx.RemoteProtocolError):
        world.propose(safe, TX, OWNERS[0])
    assert world.listed(safe) == [world.hash_of(safe, TX)]
    world.control.drop_after("POST", CONFIRMATIONS)
    with pytest.raises(httpx.RemoteProtocolError):
        world.confirm(world.hash_of(safe, TX), world.sign(safe, TX, OWNERS[1]))
    assert len(world.transaction(world.hash_of(safe, TX))["confirmations"]) == 2


def test_latency_delays_the_answer(world: SafeWorld):
    world.control.slow_down("GET", "/api/v1/about/", seconds=0.3)
    started = time.monotonic()
    assert world.client.get("/api/v1/about/").status_code == 200
    assert time.monotonic() - started >= 0.3


def test_faults_are_forgotten_on_request(world: SafeWorld):
    world.control.fail("*", "*", times=100)
    world.control.clear_faults()
    assert world.client.get("/api/v1/about/").status_code == 200


def test_the_ledger_counts_requests_by_route_and_lists_accepted_proposals(world: SafeWorld):
    safe = deploy_safe(world.chain)
    world.control.fail("POST", PROPOSALS)
    for sender in (OWNERS[0], OUTSIDER, OWNERS[0]):
        world.propose(safe, TX, sender)
    world.transaction(world.hash_of(safe, TX))
    world.client.get(f"/api/v1/safes/{safe}")
    ledger = world.control.ledger()
    assert ledger["requests"] == {
        "POST /api/v2/safes/{address}/multisig-transactions/": 3,
        "GET /api/v2/multisig-transactions/{hash}/": 1,
        "GET /api/v1/safes/{address}": 1,
    }
    sent = {"safe": safe, "safeTxHash": world.hash_of(safe, TX), "nonce": 0}
    assert ledger["proposals"] == [{**sent, "sender": OWNERS[0].address, "origin": "tests"}]
    world.control.clear_ledger()
    assert world.control.ledger() == {"requests": {}, "proposals": []}
