"""A world in which everything is in order: a Safe of three owners owns the app, our key is a delegate."""

from functools import partial

import pytest

from service.domain.chain import FactKind, SafeState
from service.domain.outcomes import ProposalOutcome
from service.domain.phala_facts import Prepared
from service.domain.schedules import SafePace
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.steps.signatures import signatures
from tests.support.builders import (
    CHAIN_ID,
    DEVICE,
    PATCH,
    SAFE,
    SINGLETON,
    VM_UUID,
    change_request,
    safe_transaction,
)
from tests.support.committing import TRANSACTION
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock, RecordingRequestIntents


@pytest.fixture(autouse=True)
def no_network(socket_disabled: None) -> None:
    """Steps reach the world through ports only."""


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def phala(clock: FixedClock) -> FakePhala:
    return FakePhala(clock)


@pytest.fixture
def signer() -> FakeSigner:
    return FakeSigner(1)


@pytest.fixture
def owners() -> tuple[FakeSigner, FakeSigner, FakeSigner]:
    return FakeSigner(11), FakeSigner(12), FakeSigner(13)


@pytest.fixture
def chain(owners: tuple[FakeSigner, ...]) -> FakeChain:
    chain = FakeChain()
    addresses = tuple(owner.address for owner in owners)
    chain.safes[SAFE] = SafeState(
        address=SAFE, version="1.4.1", owners=addresses, threshold=2, nonce=0, singleton=SINGLETON, l2=True
    )
    chain.mine((FactKind.DEVICE_ADDED, DEVICE), empty=chain.depth)
    return chain


@pytest.fixture
def chains(chain: FakeChain) -> dict[int, FakeChain]:
    return {CHAIN_ID: chain}


@pytest.fixture
def queue(owners: tuple[FakeSigner, ...], signer: FakeSigner) -> FakeSafeQueue:
    addresses = [owner.address for owner in owners]
    return FakeSafeQueue(addresses, {signer.address: frozenset({addresses[0]})})


@pytest.fixture
def queues(queue: FakeSafeQueue) -> dict[int, FakeSafeQueue]:
    return {CHAIN_ID: queue}


@pytest.fixture
def look(chain: FakeChain, queue: FakeSafeQueue, signer: FakeSigner, clock: FixedClock) -> partial[ProposalOutcome]:
    """The step ``signatures`` on a transaction that is in the queue at nonce 0."""
    queue.add(safe_transaction())
    pace = SafePace(60.0)
    return partial(signatures, chain=chain, queue=queue, proposer=signer.address, clock=clock, pace=pace)


@pytest.fixture
def intents() -> RecordingRequestIntents:
    return RecordingRequestIntents()


@pytest.fixture
def compose_hash(phala: FakePhala, chain: FakeChain) -> str:
    """The hash of the patch, allowed at a final block."""
    approved = phala.hash_of(PATCH)
    chain.mine((FactKind.HASH_ADDED, approved), empty=chain.depth)
    return approved


@pytest.fixture
def registered(phala: FakePhala, compose_hash: str) -> ChangeRequest:
    answer = phala.prepare(VM_UUID, PATCH)
    phala.calls.clear()
    assert isinstance(answer, Prepared)
    return change_request(
        State.REGISTERED,
        compose_hash=compose_hash,
        commit_token=answer.commit_token,
        transaction_hash=TRANSACTION,
    )
