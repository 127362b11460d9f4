"""What blocks a workspace: noted by whoever meets it, forgotten by whoever finds it well, and nobody else waits."""

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import func, update

from service.adapters.watched_phala import WatchedPhala
from service.domain.chain import SafeState
from service.domain.errors import Unauthorized, Unreachable
from service.domain.reasons import Reason
from service.domain.snapshots import ProposalState
from service.domain.states import State
from service.store import registered, standing, workspace_settings, workspaces
from service.store.database import Database
from service.store.leases import LeaseKeeper
from service.store.standing import KeyStanding
from service.store.tables import ChangeRequest, Proposal, RegisteredSafe, Workspace, WorkspaceFault
from service.store.workspace_settings import Changes
from service.wiring import Timings, WorkerParts
from tests.support import rows
from tests.support.fake_chain import FakeChain
from tests.support.fake_phala import FakePhala
from tests.support.fake_safe_queue import FakeSafeQueue
from tests.support.fakes import FakeSigner, FixedClock
from workers import serve

SAFE = f"safe:{rows.CHAIN_ID}:{rows.SAFE}"
REFUSED = Unauthorized("Phala Cloud: Invalid API key")


@dataclass
class _Accounts:
    """One Phala Cloud for all workspaces, with an eye on the key of each."""

    database: Database
    phala: FakePhala

    def of(self, workspace_id: str) -> WatchedPhala:
        account = workspaces.phala_account(self.database, workspace_id)
        return WatchedPhala(self.phala, KeyStanding(self.database, workspace_id, account.key_set_at, account.faults))


@pytest.fixture
def phala() -> FakePhala:
    return FakePhala(FixedClock())


@pytest.fixture
def queue(parts: WorkerParts) -> FakeSafeQueue:
    found: Any = parts.queues[rows.CHAIN_ID]
    assert isinstance(found, FakeSafeQueue)
    return found


@pytest.fixture
def parts(database: Database, phala: FakePhala) -> WorkerParts:
    """A worker whose key is a delegate of the one owner of the Safe."""
    signer, owner = FakeSigner(), FakeSigner(11)
    chain = FakeChain()
    chain.safes[rows.SAFE] = SafeState(rows.SAFE, "1.4.1", (owner.address,), 1, 0)
    queue = FakeSafeQueue([owner.address], {signer.address: frozenset({owner.address})})
    outside: dict[str, Any] = {
        "chains": {rows.CHAIN_ID: chain},
        "queues": {rows.CHAIN_ID: queue},
        "signer": signer,
        "poster": None,
        "phala": _Accounts(database, phala),
    }
    timings = Timings(observe=5, safe_poll=60, recheck=600, track=5)
    return WorkerParts(database=database, clock=FixedClock(), keeper=LeaseKeeper(database), timings=timings, **outside)


def _blocks(database: Database, workspace_id: str) -> dict[str | None, Reason]:
    with database.transaction() as session:
        row = session.get_one(Workspace, workspace_id)
        return {one.subject: one.reason for one in standing.hindrances(session, row)}


def _waits(database: Database, request_id: str) -> tuple[str, str | None]:
    row = rows.read(database, ChangeRequest, request_id)
    return row.state, row.reason


def _due_now(database: Database, request_id: str) -> bool:
    seconds = rows.due_in(database, ChangeRequest, request_id)
    return seconds is not None and seconds <= 0


def _set_key(database: Database, workspace_id: str, key: str) -> None:
    workspace_settings.change(database, workspace_id, Changes(phala_api_key=SecretStr(key)), rows.ACTOR)


def test_a_refused_key_blocks_until_a_look_succeeds(
    database: Database, workspace: str, parts: WorkerParts, phala: FakePhala
):
    first, second = (rows.change_request(database, workspace, cvm_id=phala.info.name) for _ in range(2))
    phala.fail("cvm", REFUSED)
    phala.fail("cvm", REFUSED)
    for request_id in (first, second):
        assert serve.serve_request(parts, request_id) is State.RECEIVED
        assert _waits(database, request_id) == (State.RECEIVED, Reason.PHALA_UNAUTHORIZED)
        assert not _due_now(database, request_id)
    assert _blocks(database, workspace) == {"phala:key": Reason.PHALA_UNAUTHORIZED}

    rows.shift(database, ChangeRequest, first, due_at=-1)
    assert serve.serve_request(parts, first) is State.PREPARED

    assert _blocks(database, workspace) == {}
    assert _due_now(database, second), "what waits for the same is looked at again at once"


def test_another_key_unblocks_at_once(database: Database, workspace: str, parts: WorkerParts, phala: FakePhala):
    request_id = rows.change_request(database, workspace, cvm_id=phala.info.name)
    phala.fail("cvm", REFUSED)
    serve.serve_request(parts, request_id)
    _set_key(database, workspace, "phala-key-of-acme")
    assert _blocks(database, workspace), "the same key again is no other key"

    _set_key(database, workspace, "another key")

    assert _blocks(database, workspace) == {}
    assert _due_now(database, request_id)


def test_a_look_with_the_key_before_says_nothing_about_the_new_one(database: Database, workspace: str):
    before = workspaces.phala_account(database, workspace)
    _set_key(database, workspace, "another key")
    KeyStanding(database, workspace, before.key_set_at, before.faults).refused("phala:key", "no")
    assert _blocks(database, workspace) == {}
    now = workspaces.phala_account(database, workspace)
    KeyStanding(database, workspace, now.key_set_at, now.faults).refused("phala:key", "no")
    assert _blocks(database, workspace) == {"phala:key": Reason.PHALA_UNAUTHORIZED}


def test_a_right_that_the_key_lacks_for_one_cvm_is_found_by_using_it(
    database: Database, workspace: str, parts: WorkerParts, phala: FakePhala
):
    request_id = rows.change_request(database, workspace, cvm_id=phala.info.name)
    phala.fail("prepare", Unauthorized("Phala Cloud: not permitted", key_refused=False))
    assert serve.serve_request(parts, request_id) is State.RECEIVED
    lacks = {f"phala:update:{phala.info.vm_uuid}": Reason.PHALA_UNAUTHORIZED}
    assert _blocks(database, workspace) == lacks

    parts.phala.of(workspace).cvm(phala.info.vm_uuid)
    assert _blocks(database, workspace) == lacks, "to read is another right"
    phala.fail("prepare", Unreachable("no answer", reason=Reason.PHALA_UNREACHABLE))
    with pytest.raises(Unreachable):
        parts.phala.of(workspace).prepare(phala.info.vm_uuid, rows.PATCH)
    assert _blocks(database, workspace) == lacks, "silence says nothing"

    rows.shift(database, ChangeRequest, request_id, due_at=-1)
    assert serve.serve_request(parts, request_id) is State.PREPARED
    assert _blocks(database, workspace) == {}


def test_a_missing_delegate_blocks_until_a_proposal_can_be_joined(
    database: Database, workspace: str, parts: WorkerParts, queue: FakeSafeQueue, phala: FakePhala
):
    request_id = rows.change_request(database, workspace, cvm_id=phala.info.name)
    delegates = dict(queue.delegates)
    queue.delegates.clear()
    assert serve.serve_request(parts, request_id) is State.RECEIVED
    assert "prepare" not in phala.calls
    assert _blocks(database, workspace) == {SAFE: Reason.PROPOSER_NOT_DELEGATE}
    assert _waits(database, request_id) == (State.RECEIVED, Reason.PROPOSER_NOT_DELEGATE)

    queue.delegates.update(delegates)
    with database.transaction() as session:
        assert standing.look_again(session, workspace) == 1
    assert serve.serve_request(parts, request_id) is State.PREPARED
    assert _blocks(database, workspace), "nothing was asked of the Safe's queue since"
    serve.serve_request(parts, request_id)
    assert rows.read(database, ChangeRequest, request_id).proposal_id is not None
    assert _blocks(database, workspace) == {}


def test_a_delegate_that_is_gone_while_owners_sign_is_told_and_found_again(
    database: Database, workspace: str, parts: WorkerParts, queue: FakeSafeQueue, phala: FakePhala
):
    request_id = rows.change_request(database, workspace, cvm_id=phala.info.name)
    for _ in range(2):
        serve.serve_request(parts, request_id)
    proposal_id = rows.read(database, ChangeRequest, request_id).proposal_id
    assert serve.serve_proposal(parts, proposal_id) is ProposalState.QUEUED
    delegates = dict(queue.delegates)
    queue.delegates.clear()

    def look() -> None:
        rows.shift(database, Proposal, proposal_id, due_at=-1)
        with database.transaction() as session:
            session.execute(update(Proposal).values(delegate_checked_at=None, queue_due_at=None))
        assert serve.serve_proposal(parts, proposal_id) is ProposalState.QUEUED

    look()
    assert _blocks(database, workspace) == {SAFE: Reason.PROPOSER_NOT_DELEGATE}

    queue.delegates.update(delegates)
    look()
    assert _blocks(database, workspace) == {}


def test_removing_a_safe_takes_what_was_wrong_with_it_along(database: Database, workspace: str):
    standing.note(database, workspace, SAFE, Reason.APP_OWNER_NO_SAFE, "there is no Safe")
    request_id = rows.change_request(database, workspace, reason=Reason.APP_OWNER_NO_SAFE, attempts=5)
    rows.shift(database, ChangeRequest, request_id, due_at=3600)
    assert registered.remove(database, workspace, RegisteredSafe, rows.CHAIN_ID, rows.SAFE, rows.ACTOR) is not None
    assert _blocks(database, workspace) == {}
    assert _due_now(database, request_id)


def test_a_fault_that_nobody_meets_any_more_is_forgotten_after_a_day(database: Database, workspace: str):
    for subject in ("phala:key", SAFE):
        standing.note(database, workspace, subject, Reason.PHALA_UNAUTHORIZED, "no")
    with database.transaction() as session:
        old = func.now() - standing.KEPT
        session.execute(update(WorkspaceFault).where(WorkspaceFault.subject == SAFE).values(seen_at=old, since=old))
    assert standing.forget_old(database) == 1
    assert set(_blocks(database, workspace)) == {"phala:key"}


def test_the_first_time_stands_while_a_fault_is_met_again(database: Database, workspace: str):
    standing.note(database, workspace, SAFE, Reason.APP_OWNER_NO_SAFE, "there is no Safe")
    first = rows.read(database, Workspace, workspace)
    with database.transaction() as session:
        (before,) = standing.hindrances(session, first)
    standing.note(database, workspace, SAFE, Reason.PROPOSER_NOT_DELEGATE, "no delegate")
    with database.transaction() as session:
        (after,) = standing.hindrances(session, first)
    assert (after.reason, after.detail, after.since) == (Reason.PROPOSER_NOT_DELEGATE, "no delegate", before.since)
    assert (after.seen_at or after.since) > before.since


def test_a_blocked_workspace_is_held_and_delays_nobody_else(
    database: Database, workspace: str, parts: WorkerParts, phala: FakePhala
):
    other = rows.workspace(database, "other")
    held, free = (rows.change_request(database, one, cvm_id=phala.info.name) for one in (workspace, other))
    standing.block(database, workspace, "the invoice is unpaid", rows.ACTOR)

    assert serve.serve_request(parts, held) is State.RECEIVED
    assert phala.calls == []
    row = rows.read(database, ChangeRequest, held)
    assert (row.reason, row.detail, row.attempts) == (Reason.WORKSPACE_BLOCKED, "the invoice is unpaid", 0)
    assert _blocks(database, workspace) == {None: Reason.WORKSPACE_BLOCKED}
    assert serve.serve_request(parts, free) is State.PREPARED

    assert standing.unblock(database, workspace, rows.ACTOR) == 1
    assert _due_now(database, held)
    assert _blocks(database, workspace) == {}


def test_what_is_held_can_be_cancelled_and_what_was_sent_is_followed(
    database: Database, workspace: str, parts: WorkerParts, phala: FakePhala
):
    standing.block(database, workspace, "no", rows.ACTOR)
    cancelled = rows.change_request(database, workspace, State.REGISTERED, cancel_requested_at=rows.NOW)
    assert serve.serve_request(parts, cancelled) is State.CANCELLED
    assert phala.calls == []
    committed = rows.change_request(database, workspace, State.COMMITTED, vm_uuid=phala.info.vm_uuid)
    serve.serve_request(parts, committed)
    assert phala.calls != []


def test_nothing_is_posted_for_a_blocked_workspace(
    database: Database, workspace: str, parts: WorkerParts, queue: FakeSafeQueue
):
    proposal_id = rows.proposal(database, workspace, ProposalState.POSTING)
    rows.change_request(database, workspace, State.PROPOSED, proposal_id=proposal_id)
    standing.block(database, workspace, "no", rows.ACTOR)
    assert serve.serve_proposal(parts, proposal_id) is ProposalState.POSTING
    assert "post" not in queue.calls
    assert rows.read(database, Proposal, proposal_id).fault == Reason.WORKSPACE_BLOCKED
