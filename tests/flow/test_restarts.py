"""The worker is killed, or the broker loses everything, in each live state: the request completes all the same."""

import pytest

from sandbox.world import App
from tests.support.stack import Stack, compose, first_cvm

LATE = 4.0
LIVE_STATES = ("received", "prepared", "proposed", "executed", "registered", "committed")


def _arrive(stack: Stack, state: str, request_id: str) -> None:
    """Bring the request to a state and hold it there, with a call under way where the state has one."""
    if state in {"received", "prepared"}:
        stack.wait_for(request_id, state)
        return
    stack.wait_for(request_id, "proposed")
    if state == "proposed":
        return
    if state == "executed":
        stack.world.mine_on_demand()
    stack.execute(stack.sign(request_id))
    stack.wait_for(request_id, state)


def _slow_down(stack: Stack, state: str) -> None:
    """Have the call of the state take effect at once and answer late: the worker dies not knowing."""
    if state == "received":
        stack.world.phala.slow_down("PATCH", "/cvms/*", LATE, after=True)
    elif state == "prepared":
        stack.slow_safe_service(LATE)
    elif state == "registered":
        stack.world.phala.slow_down("POST", "/cvms/*/commit-update", LATE, after=True)


def _in_call(stack: Stack, state: str, app: App) -> bool:
    """Whether the outside already saw the call of the state."""
    cvm = first_cvm(app)
    if state == "received":
        return bool(stack.world.phala.ledger("prepare", cvm))
    if state == "prepared":
        return bool(stack.proposals(app, stack.prepared_hash(cvm)))
    if state == "registered":
        return bool(stack.accepted_commits(cvm))
    return True


@pytest.mark.fault(
    "workers",
    "A worker is killed in each state, within a call where there is one",
    "another takes the row over and looks what the call did; one proposal, one commit",
    "15 s, the lease of what was under way, and 1 s of sweep",
)
@pytest.mark.fault(
    "broker",
    "Redis loses everything and the worker dies, in each state",
    "the sweep rings again for what is due; one proposal, one commit",
    "15 s, the lease of what was under way, and 1 s of sweep",
)
@pytest.mark.parametrize("fault", ["worker killed", "broker flushed"])
@pytest.mark.parametrize("state", LIVE_STATES)
def test_it_completes_with_one_proposal_and_one_commit(stack: Stack, state: str, fault: str):
    app = stack.world.add_app()
    cvm = first_cvm(app)
    _slow_down(stack, state)
    request_id = stack.submit(cvm, compose(f"{state} {fault}"))
    _arrive(stack, state, request_id)
    stack.wait_until(lambda: _in_call(stack, state, app))

    if fault == "worker killed":
        stack.kill("worker")
        stack.restart("worker")
    else:
        stack.flush_broker()
        stack.kill("worker")
        stack.restart("worker")
    stack.world.mine_by_the_clock()
    if stack.get(request_id)["state"] in {"received", "prepared", "proposed"}:
        stack.approve(request_id)

    completed = stack.wait_for(request_id, "completed", seconds=90)
    assert len(stack.accepted_commits(cvm)) == 1
    assert len(stack.proposals(app, completed["compose_hash"])) == 1
    assert "0x" + stack.world.phala.cvm(cvm)["running_compose_hash"] == completed["compose_hash"]
    names = stack.event_names(request_id)
    assert [event["seq"] for event in stack.events(request_id)] == list(range(1, len(names) + 1))
