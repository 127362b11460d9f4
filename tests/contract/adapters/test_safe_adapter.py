"""The Safe Transaction Service adapter: what holds for the fake too, then what only the real one can show."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DELEGATE, OUTSIDER, OWNERS
from sandbox.chain.local import LocalChain
from sandbox.jsonrpc import JsonRpc
from sandbox.safe_service.server import running
from service.adapters.safe import TransactionService
from service.domain.calls import rejection_call
from service.domain.errors import Refused, Unreachable
from service.domain.reasons import Reason
from service.ports import QueuedTransaction
from tests.support.fakes import FixedClock
from tests.support.queue_worlds import FakeQueueWorld, QueueWorld, RealQueueWorld, signer_of

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def node() -> Iterator[LocalChain]:
    with Anvil() as anvil, closing(JsonRpc(anvil.rpc_url)) as rpc:
        yield LocalChain(rpc)


@pytest.fixture(scope="module")
def address(node: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("safe") / "safe.sqlite", rpc_url=node.rpc.url) as address:
        yield address


@pytest.fixture
def real(node: LocalChain, address: str) -> Iterator[RealQueueWorld]:
    with (
        httpx.Client(base_url=address, timeout=20) as client,
        closing(TransactionService(address, chain_id=31337, signer=signer_of(DELEGATE))) as queue,
    ):
        yield RealQueueWorld(node, address, client, queue)
        client.delete("/_sandbox/faults")


@pytest.fixture(params=["real", "fake"])
def world(request: pytest.FixtureRequest) -> QueueWorld:
    if request.param == "fake":
        return FakeQueueWorld()
    real: RealQueueWorld = request.getfixturevalue("real")
    return real


def test_an_unknown_transaction_is_none(world: QueueWorld):
    assert world.queue.get("0x" + "12" * 32) is None
    assert list(world.queue.at_nonce(world.safe, 0)) == []


def test_a_posted_transaction_is_there_without_confirmations(world: QueueWorld):
    ours = world.transaction(0)
    world.post(ours)
    expected = QueuedTransaction(ours.safe_tx_hash, 0, ours.call.to, ours.call.data, False, None, None, ())
    assert world.queue.get(ours.safe_tx_hash) == expected
    assert list(world.queue.at_nonce(world.safe, 0)) == [expected]
    world.post(ours)
    assert list(world.queue.at_nonce(world.safe, 0)) == [expected]


def test_an_empty_call_reads_back_as_0x(world: QueueWorld):
    rejection = world.transaction(0, rejection_call(world.safe))
    world.post(rejection)
    told = world.queue.get(rejection.safe_tx_hash)
    assert told is not None
    assert (told.to, told.data) == (world.safe, "0x")


def test_two_transactions_at_one_nonce(world: QueueWorld):
    ours, rejection = world.transaction(3), world.transaction(3, rejection_call(world.safe))
    world.post(ours)
    world.post(rejection)
    world.post(world.transaction(4))
    found = {told.safe_tx_hash for told in world.queue.at_nonce(world.safe, 3)}
    assert found == {ours.safe_tx_hash, rejection.safe_tx_hash}


def test_what_is_pending_from_a_nonce_on(world: QueueWorld):
    def pending(nonce: int) -> dict[str, tuple[tuple[str, str], ...]]:
        return {one.safe_tx_hash: one.confirmations for one in world.queue.pending(world.safe, nonce)}

    assert pending(0) == {}
    low, high, rival = world.transaction(0), world.transaction(5), world.transaction(5, rejection_call(world.safe))
    for transaction in (low, high, rival):
        world.post(transaction)
    signature = world.confirm(high, OWNERS[1])
    confirmed = {high.safe_tx_hash: ((OWNERS[1].address, signature),), rival.safe_tx_hash: ()}
    assert pending(0) == {low.safe_tx_hash: (), **confirmed}
    assert pending(1) == pending(5) == confirmed
    assert pending(6) == {}


def test_confirmations_in_order_of_creation(world: QueueWorld):
    ours = world.transaction(0)
    world.post(ours)
    signatures = [(owner.address, world.confirm(ours, owner)) for owner in (OWNERS[2], OWNERS[0])]
    told = world.queue.get(ours.safe_tx_hash)
    assert told is not None
    assert list(told.confirmations) == signatures


def test_an_executed_transaction(world: QueueWorld):
    ours, rival = world.transaction(0), world.transaction(0, rejection_call(world.safe))
    world.post(ours)
    world.post(rival)
    transaction_hash = world.execute(ours)
    told, other = world.queue.get(ours.safe_tx_hash), world.queue.get(rival.safe_tx_hash)
    assert told is not None
    assert (told.is_executed, told.is_successful, told.transaction_hash) == (True, True, transaction_hash)
    assert other is not None
    assert (other.is_executed, other.transaction_hash) == (False, None)
    assert [one.safe_tx_hash for one in world.queue.pending(world.safe, 0)] == [rival.safe_tx_hash]
    assert list(world.queue.pending(world.safe, 1)) == []
    with pytest.raises(Refused):
        world.queue.delete(world.safe, ours.safe_tx_hash)
    with pytest.raises(Refused):
        world.post(world.transaction(0, rejection_call(OUTSIDER.address)))


def test_delegators(world: QueueWorld):
    assert world.queue.delegators(world.safe, DELEGATE.address) == {OWNERS[0].address}
    assert world.queue.delegators(world.safe, OUTSIDER.address) == frozenset()


def test_strangers_and_false_hashes_are_refused(world: QueueWorld):
    ours = world.transaction(0)
    with pytest.raises(Refused):
        world.post(ours, by=OUTSIDER)
    with pytest.raises(Refused):  # signed by somebody else than the sender
        world.queue.post(ours, signer_of(OUTSIDER).sign(ours.safe_tx_hash), DELEGATE.address, "Countersign")
    false = replace(ours, safe_tx_hash=world.transaction(1).safe_tx_hash)
    with pytest.raises(Refused):
        world.post(false)
    assert world.queue.get(ours.safe_tx_hash) is None


def test_deleting_ours_and_deleting_it_again(world: QueueWorld):
    ours = world.transaction(0)
    world.post(ours)
    world.queue.delete(world.safe, ours.safe_tx_hash)
    assert world.queue.get(ours.safe_tx_hash) is None
    world.queue.delete(world.safe, ours.safe_tx_hash)
    assert list(world.queue.pending(world.safe, 0)) == []


# The real one alone.


def test_what_owners_see(real: RealQueueWorld):
    ours = real.transaction(0)
    origin = '{"url": "https://countersign.example", "name": "Countersign ' + "x" * 100 + '"}'
    real.post(ours, origin=origin)
    shown = real.client.get(f"/api/v2/multisig-transactions/{ours.safe_tx_hash}/").json()
    assert shown["origin"] == origin
    assert (shown["proposer"], shown["proposedByDelegate"]) == (OWNERS[0].address, DELEGATE.address)
    assert (shown["trusted"], shown["confirmations"]) == (True, [])


def test_an_origin_that_is_too_long_is_refused_here(real: RealQueueWorld):
    real.post(real.transaction(0), origin="x" * 200)
    with pytest.raises(Refused, match="200"):
        real.post(real.transaction(1), origin="x" * 201)


def test_refusals_carry_the_services_own_words(real: RealQueueWorld):
    with pytest.raises(Refused, match=f"Sender={OUTSIDER.address} is not an owner or delegate") as no:
        real.post(real.transaction(0), by=OUTSIDER)
    assert no.value.reason is Reason.PROPOSAL_REFUSED
    assert len(no.value.detail) <= 330


def test_delegates_for_all_safes_and_expired_ones(real: RealQueueWorld):
    queue, signer = real.queue, signer_of(DELEGATE)
    real.add_delegate(OWNERS[1], None)
    soon = datetime.now(UTC) + timedelta(hours=1)
    real.add_delegate(OWNERS[2], real.safe, expires=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert queue.delegators(real.safe, DELEGATE.address) == {owner.address for owner in OWNERS}
    assert queue.delegators(real.safe.lower(), DELEGATE.address.lower()) == {owner.address for owner in OWNERS}
    later = FixedClock(soon + timedelta(minutes=1))
    with closing(TransactionService(real.address, chain_id=31337, signer=signer, clock=later)) as tomorrow:
        assert tomorrow.delegators(real.safe, DELEGATE.address) == {OWNERS[0].address, OWNERS[1].address}
    other_safe = RealQueueWorld(real.chain, real.address, real.client, queue).safe
    assert OWNERS[2].address not in queue.delegators(other_safe, DELEGATE.address)


def test_another_proposers_transaction_cannot_be_deleted(real: RealQueueWorld):
    theirs = real.transaction(0)
    real.post(theirs, by=OWNERS[1])
    with pytest.raises(Refused, match="not the proposer"):
        real.queue.delete(real.safe, theirs.safe_tx_hash)


def test_pages_are_followed(real: RealQueueWorld):
    posted = set()
    for number in range(3):
        ours = real.transaction(0, rejection_call(OWNERS[number].address))
        real.post(ours)
        posted.add(ours.safe_tx_hash)
    small = httpx.MockTransport(lambda request: _one_row_a_page(real.address, request))
    with closing(
        TransactionService("http://small.test", chain_id=31337, signer=signer_of(DELEGATE), transport=small)
    ) as queue:
        assert {told.safe_tx_hash for told in queue.at_nonce(real.safe, 0)} == posted


def _one_row_a_page(address: str, request: httpx.Request) -> httpx.Response:
    """The same service, with pages of one row and a ``next`` that leads elsewhere."""
    query = dict(request.url.params) | {"limit": "1"}
    answer = httpx.get(address + request.url.path, params=query, timeout=20).json()
    answer["next"] = answer["next"] and "http://169.254.169.254/steal-my-key"
    return httpx.Response(200, json=answer)


def test_base_urls_with_and_without_api(real: RealQueueWorld):
    ours = real.transaction(0)
    real.post(ours)
    for base in (f"{real.address}/api", f"{real.address}/api/", f"{real.address}/"):
        with closing(TransactionService(base, chain_id=31337, signer=signer_of(DELEGATE))) as queue:
            assert queue.get(ours.safe_tx_hash) is not None


@pytest.mark.fault(
    "Safe Transaction Service",
    "It takes a proposal, the answer is lost",
    "the outcome counts as unknown; the next try looks by safeTxHash first",
    "1 s to 10 min between tries",
)
def test_a_lost_answer_to_a_post_leaves_the_outcome_unknown(real: RealQueueWorld):
    ours = real.transaction(0)
    fault = {"method": "POST", "path": "/api/v2/safes/*", "drop": True, "when": "after"}
    real.client.post("/_sandbox/faults", json=fault).raise_for_status()
    with pytest.raises(Unreachable) as lost:
        real.post(ours)
    assert lost.value.outcome_unknown
    assert real.queue.get(ours.safe_tx_hash) is not None
