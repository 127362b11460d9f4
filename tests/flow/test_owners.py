"""Who owns the app: Safes of every supported version, owners that are no Safe, and owners that cannot approve."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sandbox.chain.accounts import DEPLOYER, OUTSIDER
from sandbox.chain.local import encode_call
from sandbox.chain.safes import DEPLOYMENTS, SafeVersion, approve_and_execute, multi_send
from sandbox.deployment import CHAIN_NAME, WORKSPACE
from sandbox.world import App
from service.domain.calls import DELEGATECALL, MULTI_SEND_CALL_ONLY
from service.domain.reasons import Reason
from tests.support.stack import Json, Stack, compose, first_cvm

PREDECESSOR = SALT = bytes(32)
OTHER_HASH = bytes.fromhex("a1" * 32)
MODULE = "0x" + "61" * 20
OPERATION = "(address,uint256,bytes,bytes32,bytes32"


@dataclass(frozen=True, slots=True)
class Owned:
    """Apps by who owns them; their CVMs' devices are not allowed yet."""

    by_safe: dict[SafeVersion, App]
    by_timelock: App
    by_account: App


@pytest.fixture(scope="module")
def owned(running_stack: Stack) -> Iterator[Owned]:
    world = running_stack.world
    versions: tuple[SafeVersion, ...] = ("1.3.0", "1.5.0")
    by_safe = {version: world.add_app(safe_version=version, allow_device=False) for version in versions}
    unusual = by_safe["1.5.0"]
    for target, call in (
        (unusual.address, encode_call("setRequireTcbUpToDate(bool)", True)),
        (unusual.owner, encode_call("enableModule(address)", MODULE)),
    ):
        approve_and_execute(world.chain, unusual.owner, target, call)
    timelock = world.add_timelock(OUTSIDER.address, minimum_delay=1)
    by_timelock = world.add_app(owner=timelock)
    by_account = world.add_app(owner=OUTSIDER.address, allow_device=False)
    safes = [app.owner for app in by_safe.values()]
    with running_stack.workspace_with(safes=safes, external_apps=[by_timelock.address, by_account.address]):
        yield Owned(by_safe, by_timelock, by_account)


def completes(stack: Stack, request_id: str, app: App, transaction_hash: str | None = None) -> Json:
    completed = stack.wait_for(request_id, "completed")
    running = stack.world.phala.cvm(first_cvm(app))["running_compose_hash"]
    assert "0x" + running == completed["compose_hash"]
    if transaction_hash is not None:
        # Where the state was read before the log, no transaction is named.
        assert completed["execution"]["transaction_hash"] in (transaction_hash, None)
    return completed


def fails(stack: Stack, cvm: str, tag: str, reason: Reason) -> Json:
    failed = stack.wait_for(stack.submit(cvm, compose(tag)), "failed")
    assert failed["reason"]["code"] == reason
    assert stack.world.phala.ledger("prepare", cvm) == []
    return failed


@pytest.mark.parametrize(
    ("version", "modules", "warned_of"), [("1.3.0", [], []), ("1.5.0", [MODULE], ["requireTcbUpToDate", MODULE])]
)
def test_a_safe_of_another_version_approves_hash_and_device_at_once(
    stack: Stack, owned: Owned, version: SafeVersion, modules: list[str], warned_of: list[str]
):
    app = owned.by_safe[version]
    request_id = stack.submit(first_cvm(app), compose(f"Safe {version}"))

    approval = stack.wait_for(request_id, "proposed")["approval"]
    assert (approval["target"], approval["operation"]) == (MULTI_SEND_CALL_ONLY, DELEGATECALL)
    assert approval["devices"] == [app.device_id]
    assert approval["safe_eip3770"] == f"{CHAIN_NAME}:{app.owner}"
    facts = approval["safe_facts"]
    assert (facts["version"], facts["singleton"], facts["l2"]) == (version, DEPLOYMENTS[version].singleton, True)
    assert (facts["guard"], facts["modules"], facts["threshold"], len(facts["owners"])) == (None, modules, 2, 3)
    transaction_hash = stack.approve(request_id)

    warnings = completes(stack, request_id, app, transaction_hash)["warnings"]
    assert [word in warning for word, warning in zip(warned_of, warnings, strict=True)] == [True] * len(warned_of)


def test_a_timelock_schedules_and_executes(stack: Stack, owned: Owned):
    app = owned.by_timelock
    request_id = stack.submit(first_cvm(app), compose("timelock"))

    waiting = stack.wait_for(request_id, "proposed")
    approval = waiting["approval"]
    assert (approval["kind"], approval["owner"], approval["target"]) == ("external", app.owner, app.address)
    assert app.owner in approval["note"]
    stack.wait_for_reason(request_id, Reason.WAITING_FOR_EXTERNAL_APPROVAL)
    operation = (approval["target"], 0, bytes.fromhex(approval["calldata"][2:]), PREDECESSOR, SALT)
    chain = stack.world.chain
    schedule = encode_call(f"schedule{OPERATION},uint256)", *operation, 1)
    chain.send(OUTSIDER.address, app.owner, schedule)
    identity = chain.call(app.owner, f"hashOperation{OPERATION})", *operation, returns="bytes32")
    stack.wait_until(lambda: chain.call(app.owner, "isOperationReady(bytes32)", identity, returns="bool"))
    receipt = chain.send(OUTSIDER.address, app.owner, encode_call(f"execute{OPERATION})", *operation))

    completes(stack, request_id, app, receipt["transactionHash"])


def test_an_account_makes_the_calls_one_by_one(stack: Stack, owned: Owned):
    app = owned.by_account
    request_id = stack.submit(first_cvm(app), compose("account"))

    approval = stack.wait_for(request_id, "proposed")["approval"]
    assert (approval["owner"], approval["calldata"]) == (OUTSIDER.address, None)
    assert approval["owner_eip3770"] == f"{CHAIN_NAME}:{OUTSIDER.address}"
    for call in approval["calls"]:
        stack.world.chain.send(OUTSIDER.address, call["to"], bytes.fromhex(call["calldata"][2:]))

    completes(stack, request_id, app)


@pytest.mark.fault(
    "people",
    "Owners approve by another route",
    "the contract is the truth: seen on chain, committed",
    "the next block, and finality",
)
def test_a_batch_from_another_interface_approves_among_other_calls(stack: Stack):
    app = stack.world.add_app()
    request_id = stack.submit(first_cvm(app), compose("batch"))
    request = stack.wait_for(request_id, "proposed")
    hashes = (OTHER_HASH, bytes.fromhex(request["compose_hash"][2:]))
    calls = [(app.address, encode_call("addComposeHash(bytes32)", each)) for each in hashes]
    noise = (OUTSIDER.address, b"")

    receipt = approve_and_execute(
        stack.world.chain, app.owner, MULTI_SEND_CALL_ONLY, multi_send([noise, *calls]), operation=DELEGATECALL
    )

    completes(stack, request_id, app, receipt["transactionHash"])
    assert len(stack.accepted_commits(first_cvm(app))) == 1


def test_an_ownership_that_the_safe_has_not_accepted(stack: Stack):
    app = stack.world.add_app(owner=DEPLOYER.address)
    safe = stack.world.setup.safe
    stack.world.chain.send(DEPLOYER.address, app.address, encode_call("transferOwnership(address)", safe))

    failed = fails(stack, first_cvm(app), "pending", Reason.APP_OWNERSHIP_PENDING)

    assert f"the Safe {safe} must call acceptOwnership()" in failed["reason"]["detail"]


def test_a_contract_that_is_no_app(stack: Stack):
    cvm = stack.world.phala.create_cvm(WORKSPACE, app_id=stack.world.setup.safe, device_id="7b" * 32)
    fails(stack, str(cvm["vm_uuid"]), "foreign", Reason.APP_CONTRACT_FOREIGN)
