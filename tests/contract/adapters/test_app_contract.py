"""What the chain adapter reads of real app contracts, and of contracts that are none, on a real anvil."""

import pytest

from sandbox.chain.accounts import DEPLOYER, OUTSIDER
from sandbox.chain.apps import Generation, deploy_dstack_app, deploy_timelock, transfer_to_safe
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import ZERO_ADDRESS, deploy_safe
from service.adapters.chain import JsonRpcChain
from service.domain.chain import AppOwnership
from tests.support.hostile_http import Counting

pytestmark = pytest.mark.chain

EACH_GENERATION = pytest.mark.parametrize("generation", ["one-step", "two-step"])


def read(chain: JsonRpcChain, contract: str) -> AppOwnership:
    return chain.ownership(contract, chain.view().head)


def by_owner(local: LocalChain, app: str, signature: str, *arguments: object) -> None:
    local.send(DEPLOYER.address, app, encode_call(signature, *arguments))


def answering(word: str) -> bytes:
    """Creation code of a contract that answers one 32-byte word to everything."""
    runtime = "7f" + word + "60005260206000f3"
    return bytes.fromhex("602a600c600039602a6000f3" + runtime)


@EACH_GENERATION
def test_a_new_app(local: LocalChain, chain: JsonRpcChain, generation: Generation):
    app = deploy_dstack_app(local, generation)
    assert read(chain, app) == AppOwnership(
        has_code=True,
        owner=DEPLOYER.address,
        pending_owner=None,
        is_app=True,
        allows_any_device=False,
        requires_tcb_up_to_date=False,
    )


@EACH_GENERATION
def test_an_app_that_allows_any_device(local: LocalChain, chain: JsonRpcChain, generation: Generation):
    app = deploy_dstack_app(local, generation, allow_any_device=True)
    assert read(chain, app).allows_any_device
    by_owner(local, app, "setAllowAnyDevice(bool)", False)
    assert not read(chain, app).allows_any_device


def test_an_app_that_requires_an_up_to_date_tcb(local: LocalChain, chain: JsonRpcChain):
    app = deploy_dstack_app(local)
    for flag in (True, False):
        by_owner(local, app, "setRequireTcbUpToDate(bool)", flag)
        assert read(chain, app).requires_tcb_up_to_date is flag


@EACH_GENERATION
def test_an_app_nobody_owns_any_more(local: LocalChain, chain: JsonRpcChain, generation: Generation):
    app = deploy_dstack_app(local, generation)
    by_owner(local, app, "renounceOwnership()")
    assert read(chain, app) == AppOwnership(True, ZERO_ADDRESS, None)


def test_an_app_of_a_timelock(local: LocalChain, chain: JsonRpcChain):
    timelock = deploy_timelock(local, [DEPLOYER.address], [DEPLOYER.address], minimum_delay=1)
    assert read(chain, deploy_dstack_app(local, owner=timelock)) == AppOwnership(True, timelock, None)


def test_what_is_no_app(local: LocalChain, chain: JsonRpcChain):
    nothing = AppOwnership(has_code=False, owner=None, pending_owner=None, is_app=False)
    assert read(chain, OUTSIDER.address) == nothing
    safe = deploy_safe(local)
    assert read(chain, safe) == AppOwnership(True, None, None, is_app=False)
    timelock = deploy_timelock(local, [DEPLOYER.address], [DEPLOYER.address], minimum_delay=1)
    assert read(chain, timelock) == AppOwnership(True, None, None, is_app=False)
    app = deploy_dstack_app(local)
    transfer_to_safe(local, app, safe)
    assert read(chain, app) == AppOwnership(True, safe, None)


@pytest.mark.parametrize("word", ["00" * 32, "ff" * 32, "00" * 31 + "02"])
def test_a_contract_with_an_answer_to_everything_is_no_app(local: LocalChain, chain: JsonRpcChain, word: str):
    assert not read(chain, local.deploy(answering(word))).is_app


def test_it_takes_one_http_request(local: LocalChain, chain: JsonRpcChain, counting: Counting):
    app = deploy_dstack_app(local)
    at = chain.view().head
    counting.reset()
    chain.ownership(app, at)
    assert counting.requests == 1
