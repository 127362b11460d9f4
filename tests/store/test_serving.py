"""Lease -> step -> apply on a real database: what goes wrong on the way ends up in the row."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from service.domain.chain import FactKind, SafeState
from service.domain.errors import Unreachable
from service.domain.origin import approval_origin, rejection_origin
from service.domain.reasons import Reason
from service.domain.snapshots import ProposalState
from service.domain.states import State
from service.ports import Answer
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.store.tables import ChangeRequest, Proposal, WebhookAttempt, WebhookDelivery, WebhookEndpoint
from service.wiring import Timings, WorkerParts
from tests.support import rows
from tests.support.builders import safe_transaction
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock
from tests.support.members import move
from tests.support.threads import together
from workers import serve

URL = "https://receiver.example/hook"


class _Accounts:
    def __init__(self, phala: FakePhala) -> None:
        self._phala = phala

    def of(self, workspace_id: str) -> FakePhala:
        assert workspace_id
        return self._phala


class _BrokenPoster:
    def post(self, url: str, headers: Any, body: bytes) -> Answer:
        raise RuntimeError(f"a defect at {url} with {len(headers)} headers and {len(body)} bytes")


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def phala(clock: FixedClock) -> FakePhala:
    return FakePhala(clock)


@pytest.fixture
def parts(database: Database, clock: FixedClock, phala: FakePhala) -> WorkerParts:
    """A worker that knows no chain."""
    accounts: Any = _Accounts(phala)
    return WorkerParts(
        database=database,
        clock=clock,
        keeper=LeaseKeeper(database),
        chains={},
        queues={},
        signer=FakeSigner(),
        poster=_BrokenPoster(),
        phala=accounts,
        timings=Timings(observe=5, safe_poll=60, recheck=600, track=5),
    )


@pytest.mark.fault(
    "database",
    "The database refuses an outcome",
    "the row waits with `internal_error`, the traceback is logged",
    "1 to 60 s between tries",
)
def test_an_outcome_that_cannot_be_stored_waits_and_is_shown(
    database: Database, workspace: str, parts: WorkerParts, phala: FakePhala, caplog: pytest.LogCaptureFixture
):
    """Phala Cloud answers a token that another change request holds already."""
    taken = rows.change_request(database, workspace, State.PREPARED)
    token = database.sealer.open(
        rows.read(database, ChangeRequest, taken).commit_token_sealed, purpose="commit_token", row_id=taken
    )
    request_id = rows.change_request(database, workspace, cvm_id=phala.info.name)
    phala.confusion = {"commit_token": token}
    signer, owner = FakeSigner(), FakeSigner(11)
    chain, queue = FakeChain(), FakeSafeQueue([owner.address], {signer.address: frozenset({owner.address})})
    chain.safes[rows.SAFE] = SafeState(rows.SAFE, "1.4.1", (owner.address,), 1, 0)
    links: dict[str, Any] = {"chains": {rows.CHAIN_ID: chain}, "queues": {rows.CHAIN_ID: queue}, "signer": signer}

    assert serve.serve_request(replace(parts, **links), request_id) is State.RECEIVED

    assert "prepare" in phala.calls
    row = rows.read(database, ChangeRequest, request_id)
    assert (row.state, row.reason, row.attempts) == (State.RECEIVED, Reason.INTERNAL_ERROR, 1)
    assert row.lease_until is None
    assert (rows.due_in(database, ChangeRequest, request_id) or 0) > 0
    assert token.get_secret_value() not in caplog.text


def test_a_proposal_on_a_chain_taken_out_of_the_configuration_waits_for_its_return(
    database: Database, workspace: str, parts: WorkerParts, caplog: pytest.LogCaptureFixture
):
    proposal_id = rows.proposal(database, workspace)

    assert serve.serve_proposal(parts, proposal_id) is ProposalState.QUEUED

    row = rows.read(database, Proposal, proposal_id)
    assert (row.detail, row.attempts) == (f"chain {rows.CHAIN_ID} is not configured", 1)
    assert "Traceback" not in caplog.text


def _queue_world(parts: WorkerParts) -> tuple[WorkerParts, FakeChain, FakeSafeQueue]:
    signer, owner = FakeSigner(), FakeSigner(11)
    chain, queue = FakeChain(), FakeSafeQueue([owner.address], {signer.address: frozenset({owner.address})})
    chain.safes[rows.SAFE] = SafeState(rows.SAFE, "1.4.1", (owner.address,), 1, 0)
    links: dict[str, Any] = {"chains": {rows.CHAIN_ID: chain}, "queues": {rows.CHAIN_ID: queue}, "signer": signer}
    return replace(parts, **links), chain, queue


def test_what_is_left_of_an_approved_proposal_is_taken_out_of_the_queue_once(
    database: Database, workspace: str, parts: WorkerParts
):
    parts, chain, queue = _queue_world(parts)
    chain.mine((FactKind.HASH_ADDED, rows.COMPOSE_HASH), empty=chain.depth)
    proposal_id = rows.proposal(database, workspace, ProposalState.APPROVED, due_at=rows.NOW)
    rows.approval(database, proposal_id)
    queue.add(safe_transaction())

    served = together([lambda: serve.serve_proposal(parts, proposal_id)] * 2)

    assert set(served) == {ProposalState.APPROVED, None}, "the other one found a lease, or nothing due"
    assert (queue.rows, queue.calls.count("delete")) == ({}, 1)
    assert [row.state for row in rows.transactions(database, proposal_id)] == ["deleted"]
    assert rows.read(database, Proposal, proposal_id).due_at is None


def test_owners_see_which_change_requests_wait_and_which_left(database: Database, workspace: str, parts: WorkerParts):
    parts, _, queue = _queue_world(parts)
    proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
    waiting, left = [
        rows.change_request(database, workspace, state, proposal_id=proposal_id)
        for state in (State.PREPARED, State.CANCELLED)
    ]
    serve.serve_proposal(parts, proposal_id)
    (posted,) = queue.rows
    owner = FakeSigner(11)
    queue.confirm(posted, owner.address, owner.sign(posted))
    move(database, waiting, State.PREPARED, State.CANCELLED)

    assert serve.serve_proposal(parts, proposal_id) is ProposalState.WITHDRAWN

    assert queue.origins == [approval_origin([waiting]), rejection_origin(sorted([waiting, left]))]


def test_a_broken_safe_delays_no_other(database: Database, workspace: str, parts: WorkerParts):
    parts, chain, queue = _queue_world(parts)
    chain.safes[rows.OTHER_SAFE] = replace(chain.safes[rows.SAFE], address=rows.OTHER_SAFE)
    places = {"broken": (rows.OTHER_SAFE, rows.OTHER_HASH), "fine": (rows.SAFE, rows.COMPOSE_HASH)}
    posting = {
        name: rows.proposal(database, workspace, ProposalState.POSTING, safe=safe, compose_hash=compose_hash)
        for name, (safe, compose_hash) in places.items()
    }
    for proposal_id in posting.values():
        rows.change_request(database, workspace, State.PREPARED, proposal_id=proposal_id)
    queue.fail("pending", Unreachable("HTTP 429", reason=Reason.SAFE_SERVICE_UNREACHABLE, retry_after=40_000))

    assert serve.serve_proposal(parts, posting["broken"]) is ProposalState.POSTING
    assert serve.serve_proposal(parts, posting["fine"]) is ProposalState.QUEUED

    assert (rows.due_in(database, Proposal, posting["broken"]) or 0) > 39_000, "what the service asks for is obeyed"
    broken = rows.read(database, Proposal, posting["broken"])
    assert (broken.fault, broken.detail) == (Reason.SAFE_SERVICE_UNREACHABLE, "HTTP 429")
    assert rows.read(database, Proposal, posting["fine"]).fault is None


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (Unreachable("HTTP 503", reason=Reason.SAFE_SERVICE_UNREACHABLE), 600),
        (Unreachable("no route", reason=Reason.RPC_UNREACHABLE), 60),
    ],
)
def test_only_what_has_a_quota_is_asked_again_after_long_pauses(
    database: Database, workspace: str, parts: WorkerParts, error: Unreachable, wait: float
):
    parts, chain, _ = _queue_world(parts)
    proposal_id = rows.proposal(database, workspace, ProposalState.POSTING, attempts=20)
    rows.change_request(database, workspace, State.PREPARED, proposal_id=proposal_id)
    chain.fail("view", error)

    serve.serve_proposal(parts, proposal_id)

    assert wait - 10 < (rows.due_in(database, Proposal, proposal_id) or 0) <= wait


def test_a_request_that_needs_the_safe_service_spares_it_too(
    database: Database, workspace: str, parts: WorkerParts, phala: FakePhala
):
    parts, _, queue = _queue_world(parts)
    request_id = rows.change_request(database, workspace, cvm_id=phala.info.name, attempts=20)
    queue.fail("delegators", Unreachable("HTTP 503", reason=Reason.SAFE_SERVICE_UNREACHABLE))

    serve.serve_request(parts, request_id)

    assert rows.read(database, ChangeRequest, request_id).reason == Reason.SAFE_SERVICE_UNREACHABLE
    assert 590 < (rows.due_in(database, ChangeRequest, request_id) or 0) <= 600


def test_a_delivery_that_cannot_be_made_counts_as_an_attempt(
    database: Database, parts: WorkerParts, caplog: pytest.LogCaptureFixture
):
    listening = rows.workspace(database, webhooks=[(URL, SecretStr("whsec_c2VjcmV0"))])
    request_id = rows.change_request(database, listening, cancel_requested_at=rows.NOW)
    serve.serve_request(parts, request_id)
    (delivery,) = rows.deliveries(database)

    assert not serve.serve_endpoint(parts, delivery.endpoint_id)

    row = rows.read(database, WebhookDelivery, delivery.id)
    assert (row.state, row.attempts, row.step) == ("pending", 1, 1)
    with database.transaction() as session:
        (attempt,) = session.scalars(select(WebhookAttempt))
    assert (attempt.status, attempt.fault, attempt.detail) == (None, "internal_error", "RuntimeError")
    assert "a webhook could not be sent" in caplog.text


def _without_the_key(parts: WorkerParts) -> WorkerParts:
    """The same worker after the encryption key was changed instead of added."""
    changed = Database(parts.database.engine, rows.sealer("another"))
    return replace(parts, database=changed)


@pytest.mark.fault(
    "workers",
    "A worker lacks the key that sealed a token",
    "the request waits with `secret_unreadable`, nothing is lost",
    "60 s after the key is back",
)
def test_a_token_that_does_not_open_waits_for_the_key_and_says_so(
    database: Database, workspace: str, parts: WorkerParts
):
    request_id = rows.change_request(database, workspace, State.PREPARED)

    assert serve.serve_request(_without_the_key(parts), request_id) is State.PREPARED

    row = rows.read(database, ChangeRequest, request_id)
    assert (row.reason, row.attempts, row.lease_until) == (Reason.SECRET_UNREADABLE, 1, None)
    assert "COUNTERSIGN_ENCRYPTION_KEYS" in row.detail
    assert row.commit_token_sealed is not None


def test_a_request_whose_token_does_not_open_can_still_be_cancelled(
    database: Database, workspace: str, parts: WorkerParts
):
    request_id = rows.change_request(database, workspace, State.PREPARED, cancel_requested_at=rows.NOW)
    assert serve.serve_request(_without_the_key(parts), request_id) is State.CANCELLED


@pytest.mark.fault(
    "webhooks out",
    "The key that sealed a webhook secret is missing",
    "the delivery waits, the receiver is not blamed",
    "60 s after the key is back",
)
def test_a_delivery_whose_secret_does_not_open_waits_for_the_key(database: Database, parts: WorkerParts):
    listening = rows.workspace(database, webhooks=[(URL, SecretStr("whsec_c2VjcmV0"))])
    request_id = rows.change_request(database, listening, cancel_requested_at=rows.NOW)
    serve.serve_request(parts, request_id)
    (delivery,) = rows.deliveries(database)

    assert not serve.serve_endpoint(_without_the_key(parts), delivery.endpoint_id)

    row = rows.read(database, WebhookDelivery, delivery.id)
    assert (row.state, row.attempts, row.step) == ("pending", 1, 0)
    endpoint = rows.read(database, WebhookEndpoint, delivery.endpoint_id)
    assert (endpoint.lease_until, endpoint.failing_since) == (None, None)
    assert not rows.is_due(database, WebhookEndpoint, delivery.endpoint_id)
    with database.transaction() as session:
        (attempt,) = session.scalars(select(WebhookAttempt))
    assert "COUNTERSIGN_ENCRYPTION_KEYS" in attempt.detail
