"""What holds a commit after its approval, over real parts."""

from typing import Any

from service.domain.reasons import Reason
from tests.support.stack import Stack, compose, first_cvm

FREEZE = "/v1/workspace/freeze"


def _act(stack: Stack, request_id: str, verb: str) -> dict[str, Any]:
    answer = stack.client.post(f"/v1/change-requests/{request_id}/{verb}")
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def test_a_held_request_commits_once_it_is_released(stack: Stack):
    cvm = first_cvm(stack.world.add_app())
    request_id = stack.submit(cvm, compose("held"), commit_policy="hold")
    stack.approve(request_id)
    stack.wait_for_reason(request_id, Reason.HELD_FOR_RELEASE)
    assert stack.accepted_commits(cvm) == []

    released = _act(stack, request_id, "release")

    completed = stack.wait_for(request_id, "completed")
    assert completed["released_by"] == released["released_by"]
    told = [name for name in stack.event_names(request_id) if name in ("registered", "held", "released", "committed")]
    assert told == ["registered", "held", "released", "committed"]


def test_a_rollout_is_frozen_then_stops_at_its_first_failure(stack: Stack):
    """Two CVMs of one app, one commit at a time; which of them comes first is nobody's business."""
    cvms = stack.world.add_app(cvms=2).cvm_uuids
    for cvm in cvms:
        stack.world.phala.add_mishap(cvm, "operation_failure", "the node is full")
    stack.deployment.apply_workspace(parallel_commits=1)
    try:
        stack.client.post(FREEZE, json={"reason": "an incident"}).raise_for_status()
        requests = {stack.submit(cvm, compose("rollout")): cvm for cvm in cvms}
        stack.approve(next(iter(requests)))
        for request_id in requests:
            stack.wait_for_reason(request_id, Reason.COMMITS_FROZEN)
        assert [stack.accepted_commits(cvm) for cvm in cvms] == [[], []]
        stack.client.delete(FREEZE).raise_for_status()

        stack.wait_until(lambda: any(stack.get(each)["state"] == "failed" for each in requests), seconds=60)
        failed, held = sorted(requests, key=lambda each: stack.get(each)["state"] != "failed")
        stack.wait_for_reason(held, Reason.HELD_AFTER_FAILURE)
        assert failed in stack.get(held)["reason"]["detail"]
        assert stack.accepted_commits(requests[held]) == []

        again = _act(stack, failed, "retry")

        completed = stack.wait_for(again["id"], "completed")
        assert completed["retry_of"] == failed
        assert "proposed" not in stack.event_names(again["id"]), "the hash is approved already"
        assert stack.get(held)["reason"]["code"] == Reason.HELD_AFTER_FAILURE
        _act(stack, held, "cancel")
        stack.wait_for(held, "cancelled")
        assert stack.accepted_commits(requests[held]) == []
    finally:
        stack.client.delete(FREEZE).raise_for_status()
        stack.deployment.apply_workspace(parallel_commits=10)
