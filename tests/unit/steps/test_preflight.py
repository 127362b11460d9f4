from dataclasses import replace

import pytest

from service.domain.approver import Approver
from service.domain.calls import MULTI_SEND_CALL_ONLY
from service.domain.chain import AppOwnership
from service.domain.errors import Refused
from service.domain.hexes import ZERO_ADDRESS
from service.domain.reasons import Reason
from service.domain.snapshots import WorkspacePolicy
from service.steps.preflight import app_of, preflight
from tests.support.builders import APP, CHAIN_ID, COMPOSE_HASH, DEVICE, SAFE, workspace
from tests.support.fake_chain import FakeChain
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner

STRANGER = "0x" + "99" * 20
EXTERNAL = workspace(external_apps=frozenset({(CHAIN_ID, APP)}))


class Check:
    def __init__(self, chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner) -> None:
        self.chain, self.queue, self.signer = chain, queue, signer

    def __call__(self, policy: WorkspacePolicy | None = None, devices: tuple[str, ...] = (DEVICE,)) -> Approver:
        head = self.chain.view().head
        return preflight(
            policy or workspace(),
            APP,
            app_of(APP, self.chain, head),
            COMPOSE_HASH,
            devices,
            chain=self.chain,
            queue=self.queue,
            proposer=self.signer.address,
            at=head,
        )

    def refuses(self, reason: Reason, policy: WorkspacePolicy | None = None) -> str:
        with pytest.raises(Refused) as caught:
            self(policy)
        assert caught.value.reason is reason
        return caught.value.detail


@pytest.fixture
def check(chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner) -> Check:
    return Check(chain, queue, signer)


def owned_by(owner: str | None, pending: str | None = None) -> AppOwnership:
    return AppOwnership(has_code=True, owner=owner, pending_owner=pending)


def test_the_safe_that_owns_the_app_is_found(check: Check) -> None:
    approver = check()

    assert (approver.app.owner, approver.safe) == (SAFE, check.chain.safes[SAFE])
    assert approver.warnings(CHAIN_ID) == ()


def test_an_app_without_code(check: Check) -> None:
    check.chain.owners.clear()

    check.refuses(Reason.APP_CONTRACT_MISSING)
    check.refuses(Reason.APP_CONTRACT_MISSING, EXTERNAL)


@pytest.mark.parametrize("owner", [SAFE, STRANGER, None])
def test_a_contract_that_is_no_app(check: Check, owner: str | None) -> None:
    check.chain.owners[APP] = replace(owned_by(owner), is_app=False)

    check.refuses(Reason.APP_CONTRACT_FOREIGN)
    check.refuses(Reason.APP_CONTRACT_FOREIGN, EXTERNAL)


@pytest.mark.parametrize("owner", [STRANGER, None])
def test_an_app_of_somebody_else(check: Check, owner: str | None) -> None:
    check.chain.owners[APP] = owned_by(owner)

    check.refuses(Reason.APP_OWNER_NOT_REGISTERED)


@pytest.mark.parametrize("pending", [None, SAFE])
def test_an_app_nobody_owns_any_more(check: Check, pending: str | None) -> None:
    check.chain.owners[APP] = owned_by(ZERO_ADDRESS, pending)

    check.refuses(Reason.APP_OWNERSHIP_RENOUNCED)
    check.refuses(Reason.APP_OWNERSHIP_RENOUNCED, EXTERNAL)


def test_a_safe_registered_on_another_chain_does_not_count(check: Check) -> None:
    check.refuses(Reason.APP_OWNER_NOT_REGISTERED, workspace(safes=frozenset({(CHAIN_ID + 1, SAFE)})))


def test_a_transfer_the_safe_has_not_accepted(check: Check) -> None:
    check.chain.owners[APP] = owned_by(STRANGER, SAFE)

    detail = check.refuses(Reason.APP_OWNERSHIP_PENDING)
    assert detail == f"{APP} is still owned by {STRANGER}: the Safe {SAFE} must call acceptOwnership() on it"


def test_a_transfer_to_another_registered_safe_leaves_the_approval_with_the_present_owner(check: Check) -> None:
    check.chain.owners[APP] = owned_by(SAFE, STRANGER)

    approver = check(workspace(safes=frozenset({(CHAIN_ID, SAFE), (CHAIN_ID, STRANGER)})))

    assert approver.safe is not None
    assert approver.safe.address == SAFE
    (warning,) = approver.warnings(CHAIN_ID)
    assert f"transferred to {STRANGER}" in warning


def test_a_registered_address_that_is_no_safe(check: Check) -> None:
    check.chain.safes.clear()

    check.refuses(Reason.APP_OWNER_NO_SAFE)


@pytest.mark.parametrize("version", ["0.1.0", "1.1.1", "1.2.0", "1.6.0", "1.30.0", "2.0.0", "11.3.0"])
def test_a_safe_we_do_not_know_how_to_hash_for(check: Check, version: str) -> None:
    check.chain.safes[SAFE] = replace(check.chain.safes[SAFE], version=version)

    assert version in check.refuses(Reason.SAFE_VERSION_UNSUPPORTED)


@pytest.mark.parametrize("version", ["1.3.0", "1.3.0+L2", "1.4.0", "1.4.1+L2", "1.5.0"])
def test_safes_we_hash_for(check: Check, version: str) -> None:
    check.chain.safes[SAFE] = replace(check.chain.safes[SAFE], version=version)

    assert check().safe is not None


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


@pytest.mark.parametrize("code_hash", [None, "0x" + "ab" * 32])
def test_a_multi_send_that_is_missing_or_another(check: Check, code_hash: str | None) -> None:
    check.chain.code_hashes = {} if code_hash is None else {MULTI_SEND_CALL_ONLY: code_hash}

    check.refuses(Reason.MULTISEND_MISSING)
    assert check(devices=()).safe is not None


def test_an_external_app_is_not_asked_for_a_safe(check: Check) -> None:
    check.chain.owners[APP] = owned_by(STRANGER)

    approver = check(EXTERNAL)

    assert (approver.app.owner, approver.safe) == (STRANGER, None)
    assert check.queue.calls == []
