"""Change requests that share an approval, and those that do not."""

import pytest

from service.domain.reasons import Reason
from tests.support.stack import Stack, compose

NO_SUCH_DEVICE = "0x" + "d1" * 32


def test_ten_cvms_of_one_app_with_one_hash_need_one_proposal(stack: Stack):
    app = stack.world.add_app(cvms=10)
    requests = {cvm: stack.submit(cvm, compose("ten")) for cvm in app.cvm_uuids}
    proposed = [stack.wait_for(request_id, "proposed") for request_id in requests.values()]
    assert len({request["approval"]["safe_tx_hash"] for request in proposed}) == 1

    cancelled = next(iter(requests))
    answer = stack.client.post(f"/v1/change-requests/{requests[cancelled]}/cancel")
    assert answer.status_code == 202, answer.text
    stack.wait_for(requests[cancelled], "cancelled")
    others = {cvm: request_id for cvm, request_id in requests.items() if cvm != cancelled}
    stack.approve(next(iter(others.values())))

    for cvm, request_id in others.items():
        completed = stack.wait_for(request_id, "completed")
        assert len(stack.accepted_commits(cvm)) == 1
    assert len(stack.proposals(app, completed["compose_hash"])) == 1
    assert stack.accepted_commits(cancelled) == []


def test_an_approval_releases_only_the_device_it_allows(stack: Stack):
    app = stack.world.add_app()
    on_allowed, on_other = app.cvm_uuids[0], stack.world.add_cvm(app, "payments", device_id=NO_SUCH_DEVICE)
    first = stack.submit(on_allowed, compose("devices"))
    second = stack.submit(on_other, compose("devices"))
    proposed = [stack.wait_for(request_id, "proposed") for request_id in (first, second)]
    assert proposed[0]["compose_hash"] == proposed[1]["compose_hash"]
    assert proposed[0]["approval"]["safe_tx_hash"] != proposed[1]["approval"]["safe_tx_hash"]
    assert proposed[1]["approval"]["devices"] == [NO_SUCH_DEVICE]

    first_to_execute, left = sorted((first, second), key=lambda one: stack.get(one)["approval"]["nonce"])
    stack.execute(stack.sign(first_to_execute))
    stack.wait_for(first_to_execute, "completed")
    if left == second:
        assert stack.get(second)["state"] == "proposed"
        assert stack.accepted_commits(on_other) == []
        stack.execute(stack.sign(second))
    stack.wait_for(left, "completed")


def test_cancelling_the_last_one_withdraws_the_proposal(stack: Stack):
    app = stack.world.add_app()
    request_id = stack.submit(app.cvm_uuids[0], compose("withdrawn"))
    request = stack.wait_for(request_id, "proposed")

    stack.client.post(f"/v1/change-requests/{request_id}/cancel").raise_for_status()

    cancelled = stack.wait_for(request_id, "cancelled")
    assert cancelled["reason"]["code"] == Reason.CANCELLED_BY_USER
    stack.wait_until(lambda: stack.get(request_id)["approval"]["state"] == "withdrawn")
    assert stack.proposals(app, request["compose_hash"]) == []


@pytest.mark.fault(
    "people", "Two people change one CVM", "the second fails with `cvm_busy` and the first one's id", "the first step"
)
def test_a_second_request_for_a_busy_cvm_fails_and_names_the_first(stack: Stack):
    cvm = stack.world.add_app().cvm_uuids[0]
    first = stack.submit(cvm, compose("busy first"))
    stack.wait_for(first, "proposed")

    second = stack.submit(cvm, compose("busy second"))

    failed = stack.wait_for(second, "failed")
    assert failed["reason"]["code"] == Reason.CVM_BUSY
    assert first in failed["reason"]["detail"]
    assert stack.get(first)["state"] == "proposed"
