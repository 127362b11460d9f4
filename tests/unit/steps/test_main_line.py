"""One change request through every step, each acting on what the one before stored."""

from dataclasses import replace
from functools import partial

from pydantic import SecretStr

from service.domain.chain import FactKind
from service.domain.outcomes import Advance, Facts, Outcome, Wait
from service.domain.phala_facts import OperationStatus
from service.domain.snapshots import ChangeRequest, ProposalState
from service.domain.states import State, may_follow
from service.steps.await_approval import await_approval
from service.steps.commit import commit
from service.steps.prepare import prepare
from service.steps.propose import propose
from service.steps.track import track
from tests.support.builders import PATCH, change_request, proposal
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock, RecordingRequestIntents


def stored(request: ChangeRequest, facts: Facts) -> ChangeRequest:
    """What the store makes of facts."""
    columns: dict[str, object] = dict(facts)
    for unseen in ("cvm_name", "running_evidence"):
        columns.pop(unseen, None)
    token = columns.get("commit_token")
    if isinstance(token, str):
        columns["commit_token"] = SecretStr(token)
    return replace(request, **columns)  # type: ignore[arg-type]  # columns by name


def applied(request: ChangeRequest, outcome: Outcome, intents: RecordingRequestIntents) -> ChangeRequest:
    for facts in (*intents.recorded, outcome.facts):
        request = stored(request, facts)
    intents.recorded.clear()
    if isinstance(outcome, Wait):
        return request
    assert may_follow(request.state, outcome.to)
    return replace(request, state=outcome.to)


def test_from_a_patch_to_the_running_hash(
    phala: FakePhala,
    chain: FakeChain,
    chains: dict[int, FakeChain],
    queues: dict[int, FakeSafeQueue],
    signer: FakeSigner,
    intents: RecordingRequestIntents,
    clock: FixedClock,
) -> None:
    propose_ = partial(propose, chains=chains, queues=queues, signer=signer, intents=intents, clock=clock)
    await_ = partial(await_approval, chains=chains, clock=clock, recheck_seconds=30.0)
    approved = phala.hash_of(PATCH)

    outcome = prepare(
        change_request(), phala=phala, chains=chains, queues=queues, signer=signer, intents=intents, clock=clock
    )
    request = applied(change_request(), outcome, intents)
    assert request.state is State.PREPARED

    request = applied(request, propose_(request), intents)
    assert request.state is State.PREPARED
    request = replace(request, proposal=proposal(ProposalState.QUEUED, compose_hash=approved))
    request = applied(request, propose_(request), intents)
    assert request.state is State.PROPOSED

    block = chain.mine((FactKind.HASH_ADDED, approved))
    request = replace(request, facts=tuple(chain.facts(block.number, block.number)))
    request = applied(request, await_(request), intents)
    assert request.state is State.EXECUTED
    request = applied(request, await_(request), intents)
    assert request.state is State.EXECUTED
    chain.mine(empty=chain.depth)
    request = applied(request, await_(request), intents)
    assert request.state is State.REGISTERED

    outcome = commit(request, phala=phala, chains=chains, intents=intents, clock=clock, new_id=lambda: "attempt-1")
    request = applied(request, outcome, intents)
    assert request.state is State.COMMITTED
    assert request.commit_token is None
    ((_, committed_hash, transaction_hash),) = phala.commits
    assert committed_hash == approved
    assert transaction_hash == request.facts[0].transaction_hash

    request = applied(request, track(request, phala=phala, clock=clock), intents)
    assert request.state is State.COMMITTED
    phala.finish(OperationStatus.COMPLETED)
    outcome = track(request, phala=phala, clock=clock)

    assert outcome == Advance(State.COMPLETED, {"running_evidence": "attestation"})
    assert phala.runs.attested_hash == approved
