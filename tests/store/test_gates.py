"""The gates before a commit: what a snapshot shows, and what holds when others write at the same moment."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from service.domain.actors import Actor, ActorKind
from service.domain.acts import Act
from service.domain.chain import ChainFact, FactKind
from service.domain.errors import LeaseLost
from service.domain.gates import CommitPolicy, Freeze, Gates
from service.domain.outcomes import Advance, Facts, Wait
from service.domain.reasons import Reason
from service.domain.states import State
from service.store import audit, freezes, leases, news, snapshots, transitions, wishes
from service.store.database import Database
from service.store.leases import Lease
from service.store.tables import ChangeRequest, Event, Workspace
from service.store.wishes import AlreadyEnded, CommitStarted
from tests.support import rows, wire
from tests.support.threads import holding, in_background, together, wait_until_blocked

ATTEMPT = Facts(commit_attempt_id="attempt", commit_attempted_at=rows.NOW)
LATER = rows.NOW + timedelta(minutes=1)
SOMEBODY, ANOTHER = (Actor(ActorKind.API_KEY, each, "ci") for each in ("key_1", "key_2"))
OTHER_APP = "0x41675C099F32341bf84BFc5382aF534df5C7461a"


def registered(database: Database, workspace: str, **columns: Any) -> str:
    return rows.change_request(database, workspace, State.REGISTERED, **columns)


def failed(database: Database, workspace: str, **columns: Any) -> str:
    """A request whose update failed at Phala Cloud, after the others were made."""
    values = {"correlation_id": "corr", "state_entered_at": LATER, **columns}
    return rows.change_request(database, workspace, State.FAILED, **values)


def gates_of(database: Database, request_id: str) -> Gates:
    with database.transaction() as session:
        return snapshots.change_request(database, session, request_id).gates


def attempt(database: Database, lease: Lease, facts: Facts = ATTEMPT) -> bool:
    """Whether the attempt was stored."""
    try:
        transitions.record(database, lease, facts, commits=True)
    except LeaseLost:
        return False
    return True


def attempted(database: Database, request_id: str) -> bool:
    return attempt(database, rows.lease(database, ChangeRequest, request_id))


class TestSnapshot:
    def test_policy_of_the_workspace_and_of_the_request(self, database: Database, workspace: str):
        held = rows.workspace(database, "held", commit_policy=CommitPolicy.HOLD, parallel_commits=3)
        assert gates_of(database, registered(database, workspace)) == Gates()
        assert gates_of(database, registered(database, held)) == Gates(CommitPolicy.HOLD, parallel=3)
        assert gates_of(database, registered(database, held, commit_policy="auto")).policy is CommitPolicy.AUTO
        assert gates_of(database, registered(database, workspace, commit_policy="hold")).policy is CommitPolicy.HOLD

    def test_the_freeze_is_seen_with_its_words(self, database: Database, workspace: str):
        freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY)
        request_id = registered(database, workspace)
        assert gates_of(database, request_id).freeze == Freeze(rows.NOW, "key_1", "an incident")
        freezes.unfreeze(database, workspace, SOMEBODY)
        assert gates_of(database, request_id).freeze is None

    @pytest.mark.parametrize(
        ("state", "columns", "counts"),
        [
            (State.REGISTERED, {}, False),
            (State.REGISTERED, {"commit_attempted_at": rows.NOW}, True),
            (State.COMMITTED, {}, True),
            (State.COMMITTED, {"app_contract": OTHER_APP}, False),
            (State.COMMITTED, {"chain_id": 1}, False),
            (State.COMPLETED, {"commit_attempted_at": rows.NOW}, False),
            (State.FAILED, {"commit_attempted_at": rows.NOW}, False),
        ],
    )
    def test_in_flight_is_between_the_first_attempt_and_the_end(
        self, database: Database, workspace: str, state: State, columns: dict[str, Any], *, counts: bool
    ):
        other = rows.change_request(database, workspace, state, **columns)
        mine = registered(database, workspace)
        assert gates_of(database, mine).in_flight == ((other,) if counts else ())
        assert attempted(database, mine) is not counts

    def test_another_workspace_is_no_rollout_of_ours(self, database: Database, workspace: str):
        elsewhere = rows.workspace(database, "elsewhere")
        rows.change_request(database, elsewhere, State.COMMITTED)
        failed(database, elsewhere)
        mine = registered(database, workspace)
        assert gates_of(database, mine) == Gates()
        assert attempted(database, mine)

    @pytest.mark.parametrize(
        ("columns", "counts"),
        [
            ({}, True),
            ({"correlation_id": None}, False),
            ({"compose_hash": "0x" + "0e" * 32}, False),
            ({"app_contract": OTHER_APP}, False),
            ({"state_entered_at": rows.NOW - timedelta(minutes=1)}, False),
        ],
    )
    def test_a_failed_update_of_the_rollout_holds_those_that_were_there(
        self, database: Database, workspace: str, columns: dict[str, Any], *, counts: bool
    ):
        other = failed(database, workspace, **columns)
        mine = registered(database, workspace)
        assert gates_of(database, mine).failed == (other if counts else None)
        assert attempted(database, mine) is not counts

    def test_a_retry_is_not_held_by_what_it_retries(self, database: Database, workspace: str):
        failed(database, workspace)
        assert attempted(database, registered(database, workspace, created_at=LATER))

    @pytest.mark.parametrize(
        ("fact", "counts"),
        [
            (rows.fact(101, FactKind.HASH_REMOVED), True),
            (rows.fact(100, FactKind.DEVICE_REMOVED, rows.DEVICE), True),
            (rows.fact(101, FactKind.ANY_DEVICE_SET, "0x" + "00" * 32), True),
            (rows.fact(99, FactKind.HASH_REMOVED), False),
            (rows.fact(101, FactKind.HASH_ADDED), False),
            (rows.fact(101, FactKind.HASH_REMOVED, "0x" + "0e" * 32), False),
            (rows.fact(101, FactKind.HASH_REMOVED, app_contract=OTHER_APP), False),
        ],
    )
    def test_a_removal_since_the_approval_is_seen(
        self, database: Database, workspace: str, fact: ChainFact, *, counts: bool
    ):
        request_id = registered(database, workspace)
        with database.transaction() as session:
            news.spread(session, rows.CHAIN_ID, [fact], (), final=0, now=rows.NOW)
        assert gates_of(database, request_id).removed is counts


class TestAttempt:
    """What a snapshot missed is checked again when the attempt is stored; the lease is given back for it."""

    def _is_left(self, database: Database, request_id: str) -> None:
        row = rows.read(database, ChangeRequest, request_id)
        assert (row.commit_attempt_id, row.commit_attempted_at, row.lease_until) == (None, None, None)
        assert rows.is_due(database, ChangeRequest, request_id), "its gate is shown at once"

    def test_a_freeze_before_it(self, database: Database, workspace: str):
        request_id = registered(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY)
        assert not attempt(database, lease)
        self._is_left(database, request_id)

    def test_a_freeze_that_is_being_stored_is_waited_for(self, database: Database, workspace: str):
        request_id = registered(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        frozen = (
            "UPDATE workspaces SET commits_frozen_at = now(), commits_frozen_by = 'k', commits_frozen_reason = 'r'"
            " WHERE id = :id"
        )
        with holding(database, frozen, id=workspace) as freezing, in_background(lambda: attempt(database, lease)) as it:
            wait_until_blocked(database, 1)
            freezing.commit()
            assert it.result() is False
        self._is_left(database, request_id)

    def test_a_freeze_waits_for_an_attempt_that_is_being_stored(self, database: Database, workspace: str):
        lock = "SELECT id FROM workspaces WHERE id = :id FOR NO KEY UPDATE"
        freeze = in_background(lambda: freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY))
        with holding(database, lock, id=workspace) as attempting, freeze as frozen:
            wait_until_blocked(database, 1)
            attempting.commit()
            assert frozen.result().by == "key_1"

    def test_a_freeze_holds_a_later_attempt_too(self, database: Database, workspace: str):
        request_id = registered(database, workspace, commit_attempted_at=rows.NOW)
        freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY)
        assert not attempted(database, request_id)
        freezes.unfreeze(database, workspace, SOMEBODY)
        assert attempted(database, request_id)

    def test_a_policy_that_became_hold(self, database: Database, workspace: str):
        request_id = registered(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        rows.workspace(database, commit_policy=CommitPolicy.HOLD)
        assert not attempt(database, lease)
        wishes.release(database, workspace, request_id, rows.NOW, SOMEBODY)
        assert attempted(database, request_id)

    def test_a_change_that_is_applied_at_once(self, database: Database, workspace: str):
        """Its attempt is a prepare; that of a change that waits for its approval is held by nothing."""
        rows.change_request(database, workspace, State.COMMITTED)
        freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY)
        columns = {"allow_without_approval": True, "chain_id": rows.CHAIN_ID, "app_contract": rows.APP}
        at_once = rows.change_request(database, workspace, **columns)
        lease = rows.lease(database, ChangeRequest, at_once)
        prepare = Facts(prepare_attempted_at=rows.NOW)
        assert not attempt(database, lease, prepare)
        row = rows.read(database, ChangeRequest, at_once)
        assert (row.prepare_attempted_at, row.lease_until) == (None, None)
        lease = rows.lease(database, ChangeRequest, at_once)
        transitions.record(database, lease, prepare)
        freezes.unfreeze(database, workspace, SOMEBODY)
        assert attempt(database, lease, prepare), "commits of its app in flight are not in its way"

    def test_a_successor(self, database: Database, workspace: str):
        request_id = registered(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        with database.transaction() as session:
            session.get_one(ChangeRequest, request_id).superseded_by = "cr_9"
        assert not attempt(database, lease)
        self._is_left(database, request_id)

    def test_a_failure(self, database: Database, workspace: str):
        request_id = registered(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        failed(database, workspace)
        assert not attempt(database, lease)

    @pytest.mark.parametrize(("parallel", "requests"), [(1, 6), (2, 6)])
    def test_many_workers_at_one_moment_never_exceed_the_limit(
        self, database: Database, workspace: str, parallel: int, requests: int
    ):
        rows.workspace(database, parallel_commits=parallel)
        taken = [rows.lease(database, ChangeRequest, registered(database, workspace)) for _ in range(requests)]
        stored = together([lambda lease=lease: attempt(database, lease) for lease in taken])
        assert stored.count(True) == parallel
        for lease, won in zip(taken, stored, strict=True):
            seen = len(gates_of(database, str(lease.row_id)).in_flight)
            assert seen == (parallel - 1 if won else parallel)

    def test_two_that_are_in_flight_do_not_wait_for_each_other(self, database: Database, workspace: str):
        """The limit was lowered meanwhile."""
        both = [registered(database, workspace, commit_attempted_at=rows.NOW) for _ in "12"]
        assert [attempted(database, each) for each in both] == [True, True]

    def test_another_app_is_not_in_the_way(self, database: Database, workspace: str):
        assert attempted(database, registered(database, workspace))
        assert attempted(database, registered(database, workspace, app_contract=OTHER_APP))

    def test_it_costs_one_statement_more_than_the_write(self, database: Database, workspace: str):
        lease = rows.lease(database, ChangeRequest, registered(database, workspace))
        with database.together() as alone, alone.transaction() as session:
            session.execute(select(1))  # begins the transaction
            with wire.statements(session) as count:
                assert attempt(alone, lease)
        assert count.executed == 2


class TestRelease:
    def test_who_and_when_are_kept_and_told(self, database: Database, workspace: str):
        request_id = registered(database, workspace, commit_policy="hold")
        rows.shift(database, ChangeRequest, request_id, due_at=600)
        row = wishes.release(database, workspace, request_id, rows.NOW, SOMEBODY)
        assert row is not None
        assert (row.released_at, row.released_by) == (rows.NOW, "key_1")
        assert rows.is_due(database, ChangeRequest, request_id)
        (released,) = rows.events(database, request_id)
        assert (released.type, released.actor) == ("change_request.released", SOMEBODY.as_json())
        wishes.release(database, workspace, request_id, LATER, ANOTHER)
        assert rows.read(database, ChangeRequest, request_id).released_by == "key_1"
        assert len(rows.events(database, request_id)) == 1

    def test_after_a_failure_it_takes_another_release(self, database: Database, workspace: str):
        request_id = registered(database, workspace, released_at=rows.NOW, released_by="key_1")
        failed(database, workspace)
        assert gates_of(database, request_id).failed
        # The clock of whoever releases is behind that of the worker that saw the failure.
        row = wishes.release(database, workspace, request_id, rows.NOW, ANOTHER)
        assert row is not None
        assert (row.released_at, row.released_by) == (LATER, "key_2")
        assert gates_of(database, request_id).failed is None
        assert attempted(database, request_id)

    @pytest.mark.parametrize(
        ("state", "columns", "error"),
        [
            (State.REGISTERED, {"commit_attempted_at": rows.NOW}, CommitStarted),
            (State.COMMITTED, {}, CommitStarted),
            (State.COMPLETED, {}, AlreadyEnded),
            (State.CANCELLED, {}, AlreadyEnded),
        ],
    )
    def test_it_may_be_too_late(
        self, database: Database, workspace: str, state: State, columns: dict[str, Any], error: type[Exception]
    ):
        request_id = rows.change_request(database, workspace, state, **columns)
        with pytest.raises(error):
            wishes.release(database, workspace, request_id, rows.NOW, SOMEBODY)

    def test_it_may_come_before_the_hold(self, database: Database, workspace: str):
        request_id = rows.change_request(database, workspace, State.PROPOSED, commit_policy="hold")
        assert wishes.release(database, workspace, request_id, rows.NOW, SOMEBODY)

    def test_anothers_request_does_not_exist(self, database: Database, workspace: str):
        other = rows.workspace(database, "other")
        assert wishes.release(database, other, registered(database, workspace), rows.NOW, SOMEBODY) is None


class TestRinging:
    """Who waits is rung for when a gate opens; until then it is looked at rarely."""

    def _waiting(self, database: Database, workspace: str, reason: Reason, **columns: Any) -> str:
        request_id = registered(database, workspace, **columns)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.apply(database, lease, State.REGISTERED, Wait(60, reason), rows.NOW)
        assert not rows.is_due(database, ChangeRequest, request_id)
        return request_id

    @pytest.mark.parametrize("target", [State.COMPLETED, State.FAILED])
    def test_the_end_of_another_commit(self, database: Database, workspace: str, target: State):
        waiting = self._waiting(database, workspace, Reason.WAITING_FOR_OTHER_COMMITS)
        elsewhere = self._waiting(database, workspace, Reason.WAITING_FOR_OTHER_COMMITS, app_contract=OTHER_APP)
        frozen = self._waiting(database, workspace, Reason.COMMITS_FROZEN)
        running = rows.change_request(database, workspace, State.COMMITTED)
        lease = rows.lease(database, ChangeRequest, running)
        ended = Advance(target, reason=Reason.OPERATION_FAILED if target is State.FAILED else None)
        transitions.apply(database, lease, State.COMMITTED, ended, rows.NOW)
        assert rows.read(database, ChangeRequest, running).due_at is None
        due = [rows.is_due(database, ChangeRequest, each) for each in (waiting, elsewhere, frozen)]
        assert due == [True, False, False]

    def test_the_end_of_a_freeze(self, database: Database, workspace: str):
        freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY)
        frozen = self._waiting(database, workspace, Reason.COMMITS_FROZEN)
        held = self._waiting(database, workspace, Reason.HELD_FOR_RELEASE)
        freezes.unfreeze(database, workspace, SOMEBODY)
        assert [rows.is_due(database, ChangeRequest, each) for each in (frozen, held)] == [True, False]

    def test_ends_and_rings_for_the_same_rows_never_wait_in_a_circle(self, database: Database, workspace: str):
        """Commits that end ring for those that wait, while a chain rings for all of them."""
        rows.workspace(database, parallel_commits=8)
        both = [
            registered(database, workspace, commit_attempted_at=rows.NOW if turn % 2 else None,
                       reason=None if turn % 2 else Reason.WAITING_FOR_OTHER_COMMITS.value)
            for turn in range(8)
        ]  # fmt: skip
        taken = [rows.lease(database, ChangeRequest, each) for each in both[1::2]]
        end = Advance(State.FAILED, reason=Reason.COMMIT_REFUSED)

        def ring() -> None:
            for _ in range(10):
                with database.transaction() as session:
                    leases.ring(session, ChangeRequest, ChangeRequest.state == State.REGISTERED.value)

        together(
            [lambda lease=lease: transitions.apply(database, lease, State.REGISTERED, end, rows.NOW) for lease in taken]
            + [ring] * 2
        )
        states = [rows.read(database, ChangeRequest, each).state for each in both]
        assert states == ["registered", "failed"] * 4


class TestTelling:
    """A freeze and its end are acts on the workspace, in its chain."""

    def _acts(self, database: Database, workspace: str) -> list[tuple[dict[str, Any] | None, dict[str, Any]]]:
        query = select(Event).where(Event.workspace_id == workspace, Event.type == Act.WORKSPACE_UPDATED)
        with database.transaction() as session:
            acts = session.scalars(query.order_by(Event.seq)).all()
        return [(act.actor, json.loads(act.body)["data"]["changes"]) for act in acts]

    def test_each_change_says_who_when_and_why(self, database: Database, workspace: str):
        first, second = rows.NOW.isoformat(), LATER.isoformat()
        freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY)
        freezes.freeze(database, workspace, "an incident", LATER, SOMEBODY)
        for _ in "12":
            freezes.unfreeze(database, workspace, ANOTHER)
        assert self._acts(database, workspace) == [
            (
                SOMEBODY.as_json(),
                {
                    "commits_frozen_at": {"from": None, "to": first},
                    "commits_frozen_by": {"from": None, "to": "key_1"},
                    "commits_frozen_reason": {"from": None, "to": "an incident"},
                },
            ),
            (SOMEBODY.as_json(), {"commits_frozen_at": {"from": first, "to": second}}),
            (
                ANOTHER.as_json(),
                {
                    "commits_frozen_at": {"from": second, "to": None},
                    "commits_frozen_by": {"from": "key_1", "to": None},
                    "commits_frozen_reason": {"from": "an incident", "to": None},
                },
            ),
        ]
        found = [step for step in audit.check(database, audit.Wanted()) if isinstance(step, audit.Checked)]
        assert found == [audit.Checked(workspace, 4)]

    def test_a_freeze_beside_new_settings_is_told_once(self, database: Database, workspace: str):
        """Whoever applies the file of workspaces meanwhile did not freeze it."""
        lock = "SELECT id FROM workspaces WHERE id = :id FOR NO KEY UPDATE"
        freeze = in_background(lambda: freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY))
        save = in_background(lambda: rows.workspace(database, deadline_seconds=600))
        with holding(database, lock, id=workspace) as first, freeze as frozen:
            wait_until_blocked(database, 1)
            with save as saved:
                wait_until_blocked(database, 2)
                first.commit()
                assert (frozen.result().by, saved.result()) == ("key_1", workspace)
        assert [(actor, set(changes)) for actor, changes in self._acts(database, workspace)] == [
            (SOMEBODY.as_json(), {"commits_frozen_at", "commits_frozen_by", "commits_frozen_reason"}),
            (rows.ACTOR.as_json(), {"deadline_seconds"}),
        ]


def test_a_freeze_is_whole_or_not_there(database: Database, workspace: str):
    half = text("UPDATE workspaces SET commits_frozen_at = now() WHERE id = :id")
    with database.engine.connect() as connection, pytest.raises(IntegrityError, match="ck_workspaces_freeze"):
        connection.execute(half, {"id": workspace})
    freezes.freeze(database, workspace, "an incident", rows.NOW, SOMEBODY)
    rows.workspace(database)  # the workspace file is applied again
    assert rows.read(database, Workspace, workspace).commits_frozen_by == "key_1"
    assert freezes.current(database, workspace) == Freeze(rows.NOW, "key_1", "an incident")
