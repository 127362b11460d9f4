"""What fails around Countersign: it waits, says why, and goes on where it was."""

import time

import pytest

from sandbox.world import App
from service.domain.reasons import Reason
from tests.support.stack import Stack, compose, first_cvm

AWAY_SECONDS = 12
HANGING_SECONDS = 15


def _assert_once(stack: Stack, app: App, cvm: str, compose_hash: str) -> None:
    assert len(stack.accepted_commits(cvm)) == 1
    assert len(stack.proposals(app, compose_hash)) == 1
    assert "0x" + stack.world.phala.cvm(cvm)["running_compose_hash"] == compose_hash


@pytest.mark.fault(
    "workers",
    "One of two workers is killed under load",
    "the other does the rest, everything once",
    "15 s, the lease of what was under way, and 1 s of sweep",
)
def test_two_workers_one_of_which_dies_do_everything_once(stack: Stack):
    apps = [stack.world.add_app(cvms=4) for _ in range(3)]
    with stack.another_worker() as second:
        requests = {cvm: stack.submit(cvm, compose("two workers")) for app in apps for cvm in app.cvm_uuids}
        for app in apps:
            stack.approve(requests[app.cvm_uuids[0]])
        second.kill()

        for app in apps:
            for cvm in app.cvm_uuids:
                completed = stack.wait_for(requests[cvm], "completed")
                _assert_once(stack, app, cvm, completed["compose_hash"])


@pytest.mark.fault(
    "broker",
    "Redis is away",
    "the API takes requests as ever; workers go on when it is back",
    "until it is back, then 1 s of sweep",
)
def test_a_broker_that_is_away_delays_and_loses_nothing(stack: Stack):
    app = stack.world.add_app(cvms=2)
    before, during = app.cvm_uuids
    request_id = stack.submit(before, compose("broker away"))
    stack.wait_for(request_id, "proposed")
    signed = stack.sign(request_id)
    with stack.without("redis"):
        away = time.monotonic()
        late = stack.submit(during, compose("broker away"))
        stack.execute(signed)
        stack.wait_until(lambda: time.monotonic() > away + AWAY_SECONDS)
        assert stack.get(late)["state"] == "received"

    completed = stack.wait_for(request_id, "completed")
    _assert_once(stack, app, before, completed["compose_hash"])
    completed = stack.wait_for(late, "completed")
    _assert_once(stack, app, during, completed["compose_hash"])


@pytest.mark.fault(
    "database",
    "PostgreSQL restarts",
    "connections are made anew; steps that were cut off are taken again; no event is missing",
    "15 s, the lease of what was under way, and 1 s of sweep",
)
def test_a_database_that_restarts_delays_and_loses_nothing(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    request_id = stack.submit(cvm, compose("database restarts"))
    stack.wait_for(request_id, "proposed")
    signed = stack.sign(request_id)
    with stack.without("postgres"):
        stack.execute(signed)

    completed = stack.wait_for(request_id, "completed")
    _assert_once(stack, app, cvm, completed["compose_hash"])
    names = stack.event_names(request_id)
    assert [event["seq"] for event in stack.events(request_id)] == list(range(1, len(names) + 1))


@pytest.mark.fault(
    "chain",
    "The block of the approval vanishes in a reorg",
    "back to `proposed` with `reorged`; nothing is committed before it is final again",
    "the next block",
)
def test_an_approval_that_vanishes_in_a_reorg_is_waited_for_again(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    request_id = stack.submit(cvm, compose("reorg"))
    stack.wait_for(request_id, "proposed")
    stack.world.mine_on_demand()
    approval = stack.sign(request_id)
    stack.execute(approval)
    stack.wait_for(request_id, "executed")

    stack.reorg(1)

    stack.wait_until(lambda: "reorged" in stack.event_names(request_id))
    again = stack.wait_for(request_id, "proposed")
    assert again["approval"]["safe_tx_hash"] == approval.safe_tx_hash
    assert stack.accepted_commits(cvm) == []
    stack.execute(approval)
    stack.world.mine_by_the_clock()
    completed = stack.wait_for(request_id, "completed")
    _assert_once(stack, app, cvm, completed["compose_hash"])


@pytest.mark.fault(
    "Safe Transaction Service",
    "It is down before the prepare, or while the owners execute",
    "nothing is prepared until it is back; an execution is seen on chain",
    "1 s to 10 min after it is back",
)
def test_a_safe_service_that_is_down_is_waited_for(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    with stack.safe_service_down():
        request_id = stack.submit(cvm, compose("safe service down"))
        stack.wait_for_reason(request_id, Reason.SAFE_SERVICE_UNREACHABLE)
        assert stack.world.phala.ledger("prepare", cvm) == []
    stack.wait_for(request_id, "proposed")
    signed = stack.sign(request_id)
    with stack.safe_service_down():
        stack.execute(signed)
        completed = stack.wait_for(request_id, "completed")
    _assert_once(stack, app, cvm, completed["compose_hash"])


@pytest.mark.fault(
    "Safe Transaction Service",
    "It fails or hangs for some Safes",
    "those wait, others go on",
    "1 s to 10 min between tries",
)
def test_safes_whose_queues_fail_or_hang_delay_no_other(stack: Stack):
    faults: tuple[dict[str, float], ...] = ({"status": 500}, {"status": 404}, {"delay_seconds": HANGING_SECONDS})
    broken, fine = [stack.world.add_app() for _ in faults], stack.world.add_app()
    with stack.safes_broken({app.owner: fault for app, fault in zip(broken, faults, strict=True)}):
        waiting = [stack.submit(first_cvm(app), compose("broken Safe")) for app in broken]
        for request_id in waiting:
            stack.wait_for(request_id, "prepared")
        beside = stack.submit(first_cvm(fine), compose("beside broken Safes"))
        stack.approve(beside)
        completed = stack.wait_for(beside, "completed", seconds=20)
        for request_id in waiting[:2]:
            stack.wait_for_reason(request_id, Reason.SAFE_SERVICE_UNREACHABLE, seconds=5)
        assert {stack.get(request_id)["state"] for request_id in waiting} == {"prepared"}

    _assert_once(stack, fine, first_cvm(fine), completed["compose_hash"])
    for app, request_id in zip(broken, waiting, strict=True):
        stack.approve(request_id)
        completed = stack.wait_for(request_id, "completed")
        _assert_once(stack, app, first_cvm(app), completed["compose_hash"])


@pytest.mark.fault(
    "Phala Cloud",
    "Phala Cloud is down before prepare, commit or track",
    "the request waits with `phala_unreachable`",
    "1 to 60 s after it is back, the pause between tries",
)
def test_phala_cloud_that_is_down_at_each_step_is_waited_for(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    with stack.phala_down():
        request_id = stack.submit(cvm, compose("phala down"))
        stack.wait_for_reason(request_id, Reason.PHALA_UNREACHABLE)
    stack.wait_for(request_id, "proposed")
    signed = stack.sign(request_id)
    with stack.phala_down():
        stack.execute(signed)
        stack.wait_for(request_id, "registered")
        stack.wait_for_reason(request_id, Reason.PHALA_UNREACHABLE)
    stack.world.phala.settings(restart_seconds=3)
    try:
        stack.wait_for(request_id, "committed")
        with stack.phala_down():
            stack.wait_for_reason(request_id, Reason.PHALA_UNREACHABLE)
        completed = stack.wait_for(request_id, "completed")
    finally:
        stack.world.phala.settings(restart_seconds=0.3)
    _assert_once(stack, app, cvm, completed["compose_hash"])


@pytest.mark.fault(
    "Phala Cloud",
    "It accepts the commit, the answer is lost",
    "the operation is found and its correlation id adopted",
    "the same step; else 1 to 60 s between looks",
)
def test_a_commit_whose_answer_is_lost_is_found(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    request_id = stack.submit(cvm, compose("answer lost"))
    stack.world.phala.drop_after("POST", "/cvms/*/commit-update")

    stack.approve(request_id)

    completed = stack.wait_for(request_id, "completed")
    _assert_once(stack, app, cvm, completed["compose_hash"])
    (accepted,) = stack.accepted_commits(cvm)
    assert completed["commit"]["correlation_id"] == accepted["correlation_id"]


@pytest.mark.fault(
    "Phala Cloud",
    "465, 467 or 468 after the approval was final: its node lags",
    "the same commit is sent again within a window",
    "10 min at most, 1 to 60 s between tries",
)
def test_a_phala_cloud_behind_the_chain_is_asked_again(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    request_id = stack.submit(cvm, compose("behind"))
    stack.world.phala.lag(5)

    stack.approve(request_id)

    stack.wait_for_reason(request_id, Reason.PHALA_LAGS)
    completed = stack.wait_for(request_id, "completed")
    _assert_once(stack, app, cvm, completed["compose_hash"])


def test_a_new_request_does_not_join_what_is_being_withdrawn(stack: Stack):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    first = stack.submit(cvm, compose("withdrawn and asked again"))
    old = stack.wait_for(first, "proposed")
    stack.sign(first, owners=1)
    with stack.safe_service_down():
        stack.client.post(f"/v1/change-requests/{first}/cancel").raise_for_status()
        stack.wait_for(first, "cancelled")
        again = stack.submit(cvm, compose("withdrawn and asked again"))
        stack.wait_for_reason(again, Reason.SAFE_SERVICE_UNREACHABLE)

    new = stack.wait_for(again, "proposed")
    assert new["compose_hash"] == old["compose_hash"]
    assert new["approval"]["nonce"] == old["approval"]["nonce"] + 1
    stack.reject(first)
    stack.approve(again)
    stack.wait_for(again, "completed")
    assert len(stack.accepted_commits(cvm)) == 1
