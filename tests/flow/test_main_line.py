"""The main job over real parts, as the people who use it see it."""

import pytest

from sandbox.deployment import WORKSPACE
from service.domain.reasons import Reason
from tests.support.stack import Stack, compose, first_cvm


def test_a_patch_travels_from_rest_to_a_cvm_that_runs_the_approved_hash(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    request_id = stack.submit(cvm, compose("main line"), title="main line")

    proposed = stack.wait_for(request_id, "proposed")
    approval = stack.approval(request_id)
    assert "0x" + approval.tx.data[4:].hex() == proposed["compose_hash"]
    assert approval.tx.to == app.address
    assert request_id in approval.origin
    signed = stack.sign(request_id)
    stack.wait_until(lambda: "threshold_reached" in stack.event_names(request_id))
    transaction_hash = stack.execute(signed)

    completed = stack.wait_for(request_id, "completed")
    assert completed["execution"]["transaction_hash"] == transaction_hash
    assert completed["commit"]["correlation_id"]
    assert "0x" + stack.world.phala.cvm(cvm)["running_compose_hash"] == completed["compose_hash"]
    assert len(stack.accepted_commits(cvm)) == 1
    assert len(stack.proposals(app, completed["compose_hash"])) == 1

    names = stack.event_names(request_id)
    line = ["received", "prepared", "proposed", "executed", "registered", "committed", "completed"]
    assert [name for name in names if name in line] == line
    assert "approval_added" in names
    assert [event["seq"] for event in stack.events(request_id)] == list(range(1, len(names) + 1))


def test_every_event_arrives_signed_at_the_endpoint(stack: Stack):
    app = stack.world.add_app()
    request_id = stack.submit(first_cvm(app), compose("webhooks"))
    stack.approve(request_id)
    stack.wait_for(request_id, "completed")
    expected = len(stack.events(request_id))

    def delivered() -> list[int]:
        ours = [one for one in stack.receiver.received() if one.payload["data"]["id"] == request_id]
        assert all(one.verified for one in ours)
        return sorted({one.payload["data"]["sequence"] for one in ours})

    stack.wait_until(lambda: delivered() == list(range(1, expected + 1)))


def test_a_prepared_update_is_carried_on_from_the_token(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    prepared = stack.prepare_elsewhere(cvm, compose("prepared"))

    answer = stack.post(prepared=prepared)

    assert answer.status_code == 202, answer.text
    assert prepared["commit_token"] not in answer.text
    request_id = answer.json()["id"]
    stack.approve(request_id)
    completed = stack.wait_for(request_id, "completed")
    assert completed["compose_hash"] == prepared["compose_hash"]
    assert completed["cvm"]["vm_uuid"] == cvm
    again = stack.post(prepared=prepared)
    assert again.status_code == 409


def test_an_already_allowed_hash_needs_no_signatures(stack: Stack):
    app = stack.world.add_app(cvms=2)
    first, second = app.cvm_uuids
    request_id = stack.submit(first, compose("allowed already"))
    stack.approve(request_id)
    approved = stack.wait_for(request_id, "completed")

    again = stack.submit(second, compose("allowed already"))

    completed = stack.wait_for(again, "completed")
    assert completed["compose_hash"] == approved["compose_hash"]
    assert "proposed" not in stack.event_names(again)
    assert len(stack.proposals(app, approved["compose_hash"])) == 1


def test_an_unexpected_approval_route_is_seen(stack: Stack):
    """Owners execute the same call from another tool: the contract is the truth, not our proposal."""
    app = stack.world.add_app()
    request_id = stack.submit(first_cvm(app), compose("another route"))
    request = stack.wait_for(request_id, "proposed")

    stack.approve_elsewhere(app, request["compose_hash"])

    completed = stack.wait_for(request_id, "completed")
    assert completed["execution"]["transaction_hash"] != request["approval"]["safe_tx_hash"]


@pytest.mark.fault("people", "Owners execute a rejection", "`rejected`", "the finality of the chain")
def test_a_rejection_ends_the_request(stack: Stack):
    app = stack.world.add_app()
    request_id = stack.submit(first_cvm(app), compose("rejected"))
    stack.wait_for(request_id, "proposed")

    stack.reject(request_id)

    rejected = stack.wait_for(request_id, "rejected")
    assert rejected["reason"]["code"] == Reason.REJECTED_BY_OWNERS
    assert stack.accepted_commits(first_cvm(app)) == []


def test_the_workspace_is_named(stack: Stack):
    request_id = stack.submit(first_cvm(stack.world.add_app()), compose("workspace"))
    assert stack.get(request_id)["workspace"] == WORKSPACE
