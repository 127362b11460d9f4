"""Chain facts: stored once, orphaned, revived; and the doorbell for exactly those they concern."""

import pytest
from sqlalchemy import select

from service.domain.chain import Block, ChainFact, ChainView, Cursor, FactKind, Observation
from service.domain.states import State
from service.store import observations, snapshots
from service.store.database import Database
from service.store.tables import ChainCursor, ChangeRequest
from service.store.tables import ChainFact as Row
from tests.support import rows
from tests.support.threads import together

ANOTHER_CHAIN = 1
BEFORE_FINAL = frozenset({State.PREPARED, State.PROPOSED, State.EXECUTED})
WAITING = BEFORE_FINAL | {State.REGISTERED}
FLAG = "0x" + "0" * 63 + "1"


@pytest.fixture(autouse=True)
def _chains(database: Database) -> None:
    observations.ensure_chains(database, [rows.CHAIN_ID, ANOTHER_CHAIN])


def _block(number: int) -> Block:
    return Block(number, f"0x{number:064x}")


def _observe(
    database: Database,
    *facts: ChainFact,
    orphaned: tuple[ChainFact, ...] = (),
    cursor: int = 90,
    final: int = 95,
    behind: int = 0,
    chain_id: int = rows.CHAIN_ID,
) -> int:
    rows.shift(database, ChainCursor, chain_id, due_at=0)
    seen = Observation(ChainView(_block(110), _block(final)), Cursor(_block(cursor)), facts, orphaned, behind)
    lease = rows.lease(database, ChainCursor, chain_id)
    return len(observations.apply(database, lease, seen, interval_seconds=30, now=rows.NOW).rung)


def _look(database: Database, chain_id: int = rows.CHAIN_ID) -> observations.Look:
    """What a worker that takes the chain now is given; it gives it back at once."""
    rows.shift(database, ChainCursor, chain_id, due_at=0, lease_until=None)
    look = observations.take(database, chain_id)
    assert look is not None
    rows.shift(database, ChainCursor, chain_id, lease_until=None)
    return look


def _facts(database: Database) -> list[Row]:
    with database.transaction() as session:
        return list(session.scalars(select(Row).order_by(Row.id)))


def _waiting(database: Database, workspace: str, state: State = State.PROPOSED, **columns: object) -> str:
    request_id = rows.change_request(database, workspace, state, **columns)
    rows.shift(database, ChangeRequest, request_id, due_at=600)
    return request_id


class TestCursor:
    def test_a_new_chain_is_due_and_unread(self, database: Database):
        assert rows.is_due(database, ChainCursor, rows.CHAIN_ID)
        look = _look(database)
        assert (look.cursor, look.known) == (None, ())

    def test_it_is_kept_when_chains_are_configured_again(self, database: Database):
        _observe(database, cursor=90)
        together([lambda: observations.ensure_chains(database, [rows.CHAIN_ID, 2])] * 4)
        assert _look(database).cursor == Cursor(_block(90))

    def test_it_moves_with_what_was_seen_and_each_chain_has_its_own(self, database: Database):
        _observe(database, cursor=90, final=95)
        row = rows.read(database, ChainCursor, rows.CHAIN_ID)
        assert (row.block_number, row.head_number, row.final_number) == (90, 110, 95)
        assert (row.lease_until, row.attempts) == (None, 0)
        assert _look(database, ANOTHER_CHAIN).cursor is None

    def test_it_comes_again_after_the_interval_or_at_once_when_behind(self, database: Database):
        _observe(database)
        assert 25 < (rows.due_in(database, ChainCursor, rows.CHAIN_ID) or 0) <= 30
        _observe(database, behind=1)
        assert (rows.due_in(database, ChainCursor, rows.CHAIN_ID) or 0) <= 0

    def test_a_chain_that_is_behind_and_got_nowhere_waits_like_any_other(self, database: Database):
        lease = rows.lease(database, ChainCursor, rows.CHAIN_ID)
        seen = Observation(ChainView(_block(9), _block(9)), Cursor(_block(1)), (), (), behind=8, moved=False)
        observations.apply(database, lease, seen, interval_seconds=30, now=rows.NOW)
        assert 25 < (rows.due_in(database, ChainCursor, rows.CHAIN_ID) or 0) <= 30

    def test_a_block_heard_of_while_reading_is_read_at_once(self, database: Database):
        lease = rows.lease(database, ChainCursor, rows.CHAIN_ID)
        observations.ring_chain(database, rows.CHAIN_ID)
        seen = Observation(ChainView(_block(1), _block(1)), Cursor(_block(1)), (), (), 0)
        observations.apply(database, lease, seen, interval_seconds=30, now=rows.NOW)
        assert rows.is_due(database, ChainCursor, rows.CHAIN_ID)

    def test_a_failed_look_keeps_it_and_says_why(self, database: Database):
        _observe(database, cursor=90)
        for attempts in (1, 2):
            rows.shift(database, ChainCursor, rows.CHAIN_ID, due_at=0)
            lease = rows.lease(database, ChainCursor, rows.CHAIN_ID)
            observations.fail(database, lease, detail="no answer \0", wait_seconds=5)
            row = rows.read(database, ChainCursor, rows.CHAIN_ID)
            assert (row.block_number, row.attempts, row.lease_until) == (90, attempts, None)
            assert row.detail.startswith("no answer")
        _observe(database)
        assert rows.read(database, ChainCursor, rows.CHAIN_ID).attempts == 0


class TestTaking:
    def test_one_worker_at_a_time_and_only_when_it_is_due(self, database: Database):
        assert observations.take(database, rows.CHAIN_ID) is not None
        assert observations.take(database, rows.CHAIN_ID) is None, "held"
        rows.shift(database, ChainCursor, rows.CHAIN_ID, lease_until=-1)
        again = observations.take(database, rows.CHAIN_ID)
        assert again is not None, "its holder is gone"
        assert again.lease.fence == 2
        assert observations.take(database, 4711) is None, "no such chain"
        _observe(database, chain_id=ANOTHER_CHAIN)
        assert observations.take(database, ANOTHER_CHAIN) is None, "not due"

    def test_what_was_read_and_how_far_behind_it_is_comes_back(self, database: Database):
        lease = rows.lease(database, ChainCursor, rows.CHAIN_ID)
        cursor = Cursor(_block(90), read_to=95, gap=1000)
        seen = Observation(ChainView(_block(110), _block(100)), cursor, (), (), 5, "catching up")
        observations.apply(database, lease, seen, interval_seconds=30, now=rows.NOW)
        look = _look(database)
        assert (look.cursor, look.attempts, look.detail) == (cursor, 0, "catching up")

    def test_only_facts_that_are_not_final_are_looked_at_again(self, database: Database, workspace: str):
        _waiting(database, workspace)
        old, new, gone = rows.fact(90), rows.fact(100), rows.fact(101)
        _observe(database, old, new, gone, cursor=90)
        _observe(database, orphaned=(gone,), cursor=90)
        assert _look(database).known == (new,)


class TestFacts:
    @pytest.fixture(autouse=True)
    def _somebody_waits(self, database: Database, workspace: str) -> None:
        _waiting(database, workspace, compose_hash=rows.OTHER_HASH, device_id=rows.OTHER_DEVICE)
        _waiting(database, workspace, compose_hash=rows.OTHER_HASH, chain_id=ANOTHER_CHAIN)

    @pytest.mark.parametrize("state", State)
    def test_they_are_kept_while_a_request_needs_their_contract(self, database: Database, workspace: str, state: State):
        rows.change_request(database, workspace, state, app_contract=rows.OTHER_APP)
        _observe(database, rows.fact(app_contract=rows.OTHER_APP))
        needs = state in (State.PREPARED, State.PROPOSED, State.EXECUTED, State.REGISTERED)
        assert len(_facts(database)) == needs

    def test_one_that_is_seen_again_is_stored_once_and_no_news(self, database: Database, workspace: str):
        request_id = _waiting(database, workspace)
        assert _observe(database, rows.fact()) == 1
        rows.shift(database, ChangeRequest, request_id, due_at=600)
        assert _observe(database, rows.fact()) == 0
        assert len(_facts(database)) == 1

    def test_one_twice_in_a_look_is_stored_once(self, database: Database, workspace: str):
        _waiting(database, workspace)
        assert _observe(database, rows.fact(), rows.fact()) == 1
        assert len(_facts(database)) == 1

    @pytest.mark.parametrize(
        "other",
        [
            rows.fact(log_index=1),
            rows.fact(transaction_hash="0x" + "bb" * 32),
            rows.fact(block=Block(100, "0x" + "0f" * 32)),
        ],
    )
    def test_place_and_block_tell_them_apart(self, database: Database, other: ChainFact):
        _observe(database, rows.fact(), other)
        assert len(_facts(database)) == 2

    def test_one_whose_block_vanished_is_kept_and_proves_nothing(self, database: Database, workspace: str):
        request_id = _waiting(database, workspace, State.EXECUTED)
        _observe(database, rows.fact())
        rows.shift(database, ChangeRequest, request_id, due_at=600)
        assert _observe(database, orphaned=(rows.fact(),)) == 1
        assert rows.is_due(database, ChangeRequest, request_id)
        assert _facts(database)[0].orphaned_at == rows.NOW
        with database.transaction() as session:
            assert snapshots.change_request(database, session, request_id).facts == ()
        rows.shift(database, ChangeRequest, request_id, due_at=600)
        assert _observe(database, orphaned=(rows.fact(),)) == 0, "once"

    def test_one_whose_block_came_back_counts_again(self, database: Database, workspace: str):
        request_id = _waiting(database, workspace)
        _observe(database, rows.fact())
        _observe(database, orphaned=(rows.fact(),))
        rows.shift(database, ChangeRequest, request_id, due_at=600)
        assert _observe(database, rows.fact()) == 1
        assert [row.orphaned_at for row in _facts(database)] == [None]
        with database.transaction() as session:
            assert snapshots.change_request(database, session, request_id).facts == (rows.fact(),)

    def test_a_request_sees_its_hash_its_device_and_the_switch_oldest_first(self, database: Database, workspace: str):
        request_id = _waiting(database, workspace)
        mine = (
            rows.fact(100, FactKind.DEVICE_ADDED, rows.DEVICE),
            rows.fact(101, FactKind.HASH_ADDED, log_index=1),
            rows.fact(101, FactKind.HASH_REMOVED, log_index=2),
            rows.fact(102, FactKind.ANY_DEVICE_SET, FLAG),
            rows.fact(103, FactKind.DEVICE_REMOVED, rows.DEVICE),
        )
        others = (
            rows.fact(100, FactKind.DEVICE_ADDED, rows.OTHER_DEVICE, log_index=7),
            rows.fact(100, FactKind.HASH_ADDED, rows.OTHER_HASH, log_index=8),
            rows.fact(100, FactKind.HASH_ADDED, app_contract=rows.OTHER_APP, log_index=9),
        )
        _observe(database, *reversed(mine), *others)
        _observe(database, rows.fact(99), chain_id=ANOTHER_CHAIN)
        with database.transaction() as session:
            assert snapshots.change_request(database, session, request_id).facts == mine


class TestRinging:
    @pytest.mark.parametrize("kind", [FactKind.HASH_ADDED, FactKind.HASH_REMOVED])
    def test_a_hash_concerns_its_requests(self, database: Database, workspace: str, kind: FactKind):
        mine = _waiting(database, workspace)
        other_hash = _waiting(database, workspace, compose_hash=rows.OTHER_HASH)
        other_app = _waiting(database, workspace, app_contract=rows.OTHER_APP)
        other_chain = _waiting(database, workspace, chain_id=ANOTHER_CHAIN)
        assert _observe(database, rows.fact(kind=kind)) == 1
        assert rows.is_due(database, ChangeRequest, mine)
        for request_id in (other_hash, other_app, other_chain):
            assert not rows.is_due(database, ChangeRequest, request_id)

    @pytest.mark.parametrize("kind", [FactKind.DEVICE_ADDED, FactKind.DEVICE_REMOVED])
    def test_a_device_concerns_its_requests(self, database: Database, workspace: str, kind: FactKind):
        mine = _waiting(database, workspace, compose_hash=rows.OTHER_HASH)
        other = _waiting(database, workspace, device_id=rows.OTHER_DEVICE)
        assert _observe(database, rows.fact(kind=kind, value=rows.DEVICE)) == 1
        assert rows.is_due(database, ChangeRequest, mine)
        assert not rows.is_due(database, ChangeRequest, other)

    def test_the_switch_concerns_the_whole_app(self, database: Database, workspace: str):
        mine = [
            _waiting(database, workspace),
            _waiting(database, workspace, compose_hash=rows.OTHER_HASH, device_id=rows.OTHER_DEVICE),
        ]
        other = _waiting(database, workspace, app_contract=rows.OTHER_APP)
        assert _observe(database, rows.fact(kind=FactKind.ANY_DEVICE_SET, value=FLAG)) == 2
        assert all(rows.is_due(database, ChangeRequest, each) for each in mine[:1])
        assert not rows.is_due(database, ChangeRequest, other)

    def test_a_hash_that_looks_like_a_device_is_none(self, database: Database, workspace: str):
        _waiting(database, workspace, compose_hash=rows.OTHER_HASH)
        assert _observe(database, rows.fact(value=rows.DEVICE)) == 0

    @pytest.mark.parametrize("state", State)
    @pytest.mark.parametrize(
        ("news", "concerned"),
        [
            (rows.fact(kind=FactKind.HASH_ADDED), BEFORE_FINAL),
            (rows.fact(kind=FactKind.DEVICE_ADDED, value=rows.DEVICE), BEFORE_FINAL),
            (rows.fact(kind=FactKind.HASH_REMOVED), WAITING),
            (rows.fact(kind=FactKind.DEVICE_REMOVED, value=rows.DEVICE), WAITING),
            (rows.fact(kind=FactKind.ANY_DEVICE_SET, value=FLAG), WAITING),
        ],
        ids=lambda value: value.kind.value if isinstance(value, ChainFact) else "",
    )
    def test_only_who_waits_for_the_chain_is_rung_for(
        self, database: Database, workspace: str, state: State, news: ChainFact, concerned: frozenset[State]
    ):
        """What is final already is only rung for when it may have been taken away."""
        request_id = rows.change_request(database, workspace, state)
        if rows.read(database, ChangeRequest, request_id).due_at is not None:
            rows.shift(database, ChangeRequest, request_id, due_at=600)
        before = rows.read(database, ChangeRequest, request_id).due_at
        assert _observe(database, news) == (state in concerned)
        assert (rows.read(database, ChangeRequest, request_id).due_at != before) == (state in concerned)

    def test_an_approval_whose_block_vanished_is_rung_for_even_when_it_was_final(
        self, database: Database, workspace: str
    ):
        request_id = _waiting(database, workspace, State.REGISTERED)
        assert _observe(database, rows.fact()) == 0
        assert _observe(database, orphaned=(rows.fact(),)) == 1
        assert rows.is_due(database, ChangeRequest, request_id)

    def test_a_removal_is_news_for_one_that_waits_for_phala_cloud(self, database: Database, workspace: str):
        request_id = _waiting(database, workspace, State.REGISTERED, attempts=9)
        assert _observe(database, rows.fact(kind=FactKind.HASH_REMOVED)) == 1
        assert rows.is_due(database, ChangeRequest, request_id)

    def test_the_states_of_those_rung_for_are_told(self, database: Database, workspace: str):
        waiting = {_waiting(database, workspace, state): state for state in (State.PROPOSED, State.EXECUTED)}
        seen = Observation(ChainView(_block(110), _block(95)), Cursor(_block(90)), (rows.fact(),), (), 0)
        lease = rows.lease(database, ChainCursor, rows.CHAIN_ID)
        applied = observations.apply(database, lease, seen, interval_seconds=30, now=rows.NOW)
        assert dict(applied.rung) == waiting
        assert not applied.again

    @pytest.mark.parametrize("facts", [(), (rows.fact(),)], ids=["no news", "news"])
    def test_a_block_that_is_heard_of_during_a_look_is_looked_at_at_once(
        self, facts: tuple[ChainFact, ...], database: Database, workspace: str
    ):
        _waiting(database, workspace)
        seen = Observation(ChainView(_block(110), _block(95)), Cursor(_block(90)), facts, (), 0)
        lease = rows.lease(database, ChainCursor, rows.CHAIN_ID)
        observations.ring_chain(database, rows.CHAIN_ID)
        assert observations.take(database, rows.CHAIN_ID) is None, "held"
        assert observations.apply(database, lease, seen, interval_seconds=30, now=rows.NOW).again
        assert observations.take(database, rows.CHAIN_ID) is not None

    def test_every_workspace_is_rung_for(self, database: Database, workspace: str):
        _waiting(database, workspace)
        _waiting(database, rows.workspace(database, "other"))
        assert _observe(database, rows.fact()) == 2

    def test_an_approval_that_became_final_is_rung_for(self, database: Database, workspace: str):
        due = _waiting(database, workspace, State.EXECUTED, evidence_block_number=100)
        later = _waiting(database, workspace, State.EXECUTED, evidence_block_number=101)
        assert _observe(database, final=99) == 0
        assert _observe(database, final=100) == 1
        assert rows.is_due(database, ChangeRequest, due)
        assert not rows.is_due(database, ChangeRequest, later)

    def test_one_that_fails_to_be_served_keeps_its_back_off(self, database: Database, workspace: str):
        request_id = _waiting(database, workspace, State.EXECUTED, evidence_block_number=100, attempts=3)
        assert _observe(database, final=100) == 0
        assert _observe(database, rows.fact(), final=100) == 1, "a fact is news for it, too"
        assert rows.is_due(database, ChangeRequest, request_id)
