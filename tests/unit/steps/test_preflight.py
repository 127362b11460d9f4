from dataclasses import replace

import pytest

from service.domain.calls import inner_calls
from service.domain.chain import AppOwnership
from service.domain.errors import Refused
from service.domain.reasons import Reason
from service.domain.snapshots import WorkspacePolicy
from service.steps.preflight import preflight
from tests.support.builders import APP, CHAIN_ID, COMPOSE_HASH, DEVICE, SAFE, workspace
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner

STRANGER = "0x" + "99" * 20


class Check:
    def __init__(self, chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner) -> None:
        self.chain, self.queue, self.signer = chain, queue, signer

    def __call__(self, policy: WorkspacePolicy | None = None) -> str | None:
        return preflight(
            policy or workspace(),
            APP,
            inner_calls(COMPOSE_HASH, (DEVICE,)),
            chain=self.chain,
            queue=self.queue,
            proposer=self.signer.address,
            at=self.chain.view().head,
        )

    def refuses(self, reason: Reason, policy: WorkspacePolicy | None = None) -> None:
        with pytest.raises(Refused) as caught:
            self(policy)
        assert caught.value.reason is reason


@pytest.fixture
def check(chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner) -> Check:
    return Check(chain, queue, signer)


def owned_by(owner: str | None, pending: str | None = None) -> AppOwnership:
    return AppOwnership(has_code=True, owner=owner, pending_owner=pending)


def test_the_safe_that_owns_the_app_is_found(check: Check) -> None:
    assert check() == SAFE


def test_an_app_without_code(check: Check) -> None:
    check.chain.owners.clear()

    check.refuses(Reason.APP_CONTRACT_MISSING)


@pytest.mark.parametrize("owner", [STRANGER, None])
def test_an_app_of_somebody_else(check: Check, owner: str | None) -> None:
    check.chain.owners[APP] = owned_by(owner)

    check.refuses(Reason.APP_OWNER_NOT_REGISTERED)


def test_a_safe_registered_on_another_chain_does_not_count(check: Check) -> None:
    check.refuses(Reason.APP_OWNER_NOT_REGISTERED, workspace(safes=frozenset({(CHAIN_ID + 1, SAFE)})))


def test_a_transfer_the_safe_has_not_accepted(check: Check) -> None:
    check.chain.owners[APP] = owned_by(STRANGER, SAFE)

    check.refuses(Reason.APP_OWNERSHIP_PENDING)


def test_a_registered_address_that_is_no_safe(check: Check) -> None:
    check.chain.safes.clear()

    check.refuses(Reason.APP_OWNER_NOT_REGISTERED)


def test_a_safe_too_old_to_hash_for(check: Check) -> None:
    check.chain.safes[SAFE] = replace(check.chain.safes[SAFE], version="1.1.1")

    check.refuses(Reason.PROPOSAL_REFUSED)


@pytest.mark.parametrize("version", ["1.3.0", "1.3.0+L2", "1.4.1+L2", "1.5.0"])
def test_safes_we_hash_for(check: Check, version: str) -> None:
    check.chain.safes[SAFE] = replace(check.chain.safes[SAFE], version=version)

    assert check() == SAFE


def test_our_key_must_not_be_an_owner(check: Check) -> None:
    safe = check.chain.safes[SAFE]
    check.chain.safes[SAFE] = replace(safe, owners=(*safe.owners, check.signer.address))

    check.refuses(Reason.PROPOSER_IS_OWNER)


def test_our_key_must_be_a_delegate(check: Check) -> None:
    check.queue.delegates.clear()

    check.refuses(Reason.PROPOSER_NOT_DELEGATE)


def test_a_delegate_of_a_former_owner_is_none(check: Check) -> None:
    check.queue.delegates[check.signer.address] = frozenset({STRANGER})

    check.refuses(Reason.PROPOSER_NOT_DELEGATE)


def test_a_call_that_would_revert(check: Check) -> None:
    check.chain.reverts[APP] = "paused"

    check.refuses(Reason.SIMULATION_FAILED)


def test_an_external_app_is_not_asked_for_a_safe(check: Check) -> None:
    check.chain.owners[APP] = owned_by(STRANGER)

    assert check(workspace(external_apps=frozenset({(CHAIN_ID, APP)}))) is None
    assert check.queue.calls == []
