"""Owners who approve on chain, change, or act elsewhere: the chain decides, people are told, the queue is left tidy."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from sandbox.anvil import CHAIN_ID
from sandbox.chain.accounts import OWNERS
from sandbox.chain.local import encode_call
from sandbox.chain.safes import SafeTx, SafeVersion, approve_and_execute, execute, next_nonce
from sandbox.wallet import QueuedApproval
from sandbox.world import App
from service.adapters.safe import TransactionService
from tests.support.queue_worlds import signer_of
from tests.support.stack import Stack, compose, first_cvm


@pytest.fixture(params=["1.3.0", "1.4.1", "1.5.0"])
def app(stack: Stack, request: pytest.FixtureRequest) -> Iterator[App]:
    """An app owned by a Safe of each version."""
    version: SafeVersion = request.param
    app = stack.world.add_app(safe_version=version)
    with stack.workspace_with(safes=[app.owner]):
        yield app


def _alerts(stack: Stack, request_id: str) -> list[str]:
    return [one["data"]["code"] for one in stack.events(request_id) if one["type"] == "change_request.alert"]


@pytest.mark.fault(
    "Safe Transaction Service",
    "It stays down while the owners approve",
    "approved on chain, seen there, committed",
    "no delay",
)
def test_owners_approve_and_execute_on_chain_while_the_safe_service_is_down(stack: Stack, app: App):
    request_id = stack.submit(first_cvm(app), compose("on chain"))
    stack.wait_for(request_id, "proposed")
    approval, digest = stack.approval(request_id), bytes.fromhex(stack.approval(request_id).safe_tx_hash[2:])
    owners = [owner.address for owner in OWNERS[:2]]
    with stack.safe_service_down():
        for owner in owners:
            stack.world.chain.send(owner, approval.safe, encode_call("approveHash(bytes32)", digest))
        stack.wait_until(lambda: "threshold_reached" in stack.event_names(request_id))
        shown = stack.get(request_id)["approval"]
        assert shown["ready"]
        assert shown["signatures"] == [{"owner": owner, "kind": "approved_hash"} for owner in shown["confirmations"]]
        assert sorted(shown["confirmations"]) == sorted(owners)
        assert shown["missing"] == [OWNERS[2].address]

        on_chain = {owner: bytes(12) + bytes.fromhex(owner[2:]) + bytes(32) + b"\x01" for owner in owners}
        execute(stack.world.chain, approval.safe, approval.tx, on_chain)
        stack.wait_for(request_id, "completed")
        stack.wait_until(lambda: stack.get(request_id)["approval"]["state"] == "approved")
    assert _alerts(stack, request_id) == []


@pytest.mark.fault(
    "people",
    "Another transaction uses our nonce",
    "the approval is proposed again at the next nonce",
    "the finality of the chain",
)
def test_an_owner_leaves_at_our_nonce_and_the_approval_is_proposed_again(stack: Stack, app: App):
    request_id = stack.submit(first_cvm(app), compose("replaced"))
    stack.wait_for(request_id, "proposed")
    first = stack.sign(request_id, owners=1)

    leaving = encode_call("removeOwner(address,address,uint256)", *_before(stack, first.safe), 2)
    approve_and_execute(stack.world.chain, first.safe, first.safe, leaving)

    stack.wait_until(lambda: stack.get(request_id)["approval"]["nonce"] == first.tx.nonce + 1)
    stack.wait_until(lambda: len(_alerts(stack, request_id)) == 2)
    assert _alerts(stack, request_id) == ["transaction_replaced", "owners_changed"]
    stack.execute(stack.sign(request_id))
    completed = stack.wait_for(request_id, "completed")
    assert len(stack.proposals(app, completed["compose_hash"])) == 2


def _before(stack: Stack, safe: str) -> tuple[str, str]:
    """The third owner, behind the one that points at them in the Safe's list."""
    owners = stack.world.chain.call(safe, "getOwners()", returns="address[]")
    place = owners.index(OWNERS[2].address)
    return owners[place - 1] if place else "0x" + "0" * 39 + "1", owners[place]


@pytest.mark.fault(
    "Safe Transaction Service",
    "An owner deletes our transaction from the queue",
    "posted again, and told with an alert",
    "the next look at the queue, 1 min to 4 h",
)
def test_what_owners_delete_leaves_no_hole_and_comes_back(stack: Stack):
    app = stack.world.add_app()
    assert app.owner
    nonce = next_nonce(stack.world.chain, app.owner)
    _propose_empty(stack, app.owner, nonce)
    request_id = stack.submit(first_cvm(app), compose("deleted"))
    assert stack.wait_for(request_id, "proposed")["approval"]["nonce"] == nonce + 1
    below = stack.world.wallet.pending(app.owner, nonce)[0]
    owner = TransactionService(stack.world.safe_service_url, chain_id=CHAIN_ID, signer=signer_of(OWNERS[0]))
    with closing(owner):
        owner.delete(app.owner, below.safe_tx_hash)
        stack.wait_until(lambda: _queued_at(stack, request_id, nonce))

        ours = stack.approval(request_id).safe_tx_hash
        owner.delete(app.owner, ours)
        stack.wait_until(lambda: _alerts(stack, request_id) == ["transaction_vanished"])
        stack.wait_until(lambda: owner.get(app.owner, ours) is not None)

    assert [one.safe_tx_hash for one in stack.world.wallet.pending(app.owner, nonce)] == [ours]
    stack.approve(request_id)
    stack.wait_for(request_id, "completed")


def _queued_at(stack: Stack, request_id: str, nonce: int) -> bool:
    approval = stack.get(request_id)["approval"]
    return bool(approval["nonce"] == nonce and approval["state"] == "queued")


def _propose_empty(stack: Stack, safe: str, nonce: int) -> None:
    empty = QueuedApproval(safe, SafeTx(to=safe, data=b"", nonce=nonce), "", "", {})
    stack.world.wallet.propose_rejection(empty, OWNERS[0])


@pytest.mark.fault(
    "people", "Owners approve by another route while ours waits", "ours is taken out of the queue", "the next look"
)
def test_an_approval_by_another_route_takes_ours_out_of_the_queue(stack: Stack):
    app = stack.world.add_app()
    assert app.owner
    nonce = next_nonce(stack.world.chain, app.owner)
    _propose_empty(stack, app.owner, nonce)
    request_id = stack.submit(first_cvm(app), compose("another route"))
    proposed = stack.wait_for(request_id, "proposed")
    assert proposed["approval"]["nonce"] == nonce + 1

    stack.approve_elsewhere(app, proposed["compose_hash"])

    completed = stack.wait_for(request_id, "completed")
    stack.wait_until(
        lambda: all(one["isExecuted"] for one in stack.proposals(app, completed["compose_hash"])), seconds=15
    )
    assert stack.world.wallet.pending(app.owner, nonce + 1) == []
