"""API keys in the database."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import func, text, update

from service.domain.api_keys import Scope, digest, mint
from service.store import api_keys
from service.store.api_keys import MOST_LIVE, KeyEnded, KeyUnknown, NewKey, TooManyKeys
from service.store.database import Database
from service.store.tables import ApiKey
from tests.support import rows
from tests.support.threads import together

DAY = timedelta(days=1)


def _new(workspace: str, scope: Scope = Scope.SUBMIT, lifetime: timedelta | None = None) -> NewKey:
    return NewKey(workspace, "ci", scope, "command line", lifetime)


def _expire(database: Database, key_id: str) -> None:
    with database.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=func.now()))


def _found(database: Database, key: SecretStr) -> str | None:
    holder = api_keys.find(database, key.get_secret_value())
    return None if holder is None else holder.key_id


class TestFind:
    def test_a_new_key_is_found_with_what_it_may_do(self, database: Database, workspace: str):
        row, key = api_keys.create(database, _new(workspace), rows.ACTOR)
        holder = api_keys.find(database, key.get_secret_value())
        assert holder == api_keys.Holder(row.id, workspace, "acme", Scope.SUBMIT, "ci")
        assert (row.works, row.name, row.created_by, row.expires_at) == (True, "ci", "command line", None)

    def test_only_the_hash_is_stored(self, database: Database, workspace: str):
        row, key = api_keys.create(database, _new(workspace), rows.ACTOR)
        with database.transaction() as session:
            stored = session.scalars(text("SELECT to_jsonb(k)::text FROM api_keys k")).one()
        assert key.get_secret_value() not in stored
        assert key.get_secret_value()[8:20] not in stored
        assert rows.read(database, ApiKey, row.id).digest == digest(key.get_secret_value())

    def test_an_unknown_key_is_not_found(self, database: Database, workspace: str):
        api_keys.create(database, _new(workspace), rows.ACTOR)
        assert _found(database, SecretStr(mint(b"?" * 32))) is None

    def test_a_key_ends_when_it_expires(self, database: Database, workspace: str):
        row, key = api_keys.create(database, _new(workspace, lifetime=DAY), rows.ACTOR)
        assert row.expires_at == row.created_at + DAY
        assert _found(database, key) == row.id
        _expire(database, row.id)
        assert _found(database, key) is None

    def test_a_key_ends_when_it_is_revoked_and_stays_so(self, database: Database, workspace: str):
        row, key = api_keys.create(database, _new(workspace), rows.ACTOR)
        revoked = api_keys.revoke(database, workspace, row.id, rows.ACTOR)
        assert revoked is not None
        assert not revoked.works
        assert _found(database, key) is None
        again = api_keys.revoke(database, workspace, row.id, rows.ACTOR)
        assert again is not None
        assert again.revoked_at == revoked.revoked_at


class TestRotate:
    def test_both_keys_work_until_the_overlap_ends(self, database: Database, workspace: str):
        old, old_key = api_keys.create(database, _new(workspace, Scope.MANAGE, 30 * DAY), rows.ACTOR)
        new, new_key = api_keys.rotate(database, workspace, old.id, overlap=DAY, created_by="key_x", actor=rows.ACTOR)
        assert [_found(database, old_key), _found(database, new_key)] == [old.id, new.id]
        assert (new.scope, new.name, new.replaces, new.created_by) == ("manage", "ci", old.id, "key_x")
        assert new.expires_at == new.created_at + 30 * DAY
        assert rows.read(database, ApiKey, old.id).expires_at == new.created_at + DAY

    def test_without_overlap_the_old_key_ends_at_once(self, database: Database, workspace: str):
        old, old_key = api_keys.create(database, _new(workspace), rows.ACTOR)
        new, new_key = api_keys.rotate(
            database, workspace, old.id, overlap=timedelta(0), created_by="command line", actor=rows.ACTOR
        )
        assert [_found(database, old_key), _found(database, new_key)] == [None, new.id]
        assert new.expires_at is None

    def test_an_overlap_makes_no_key_live_longer(self, database: Database, workspace: str):
        old, _ = api_keys.create(database, _new(workspace, lifetime=timedelta(hours=1)), rows.ACTOR)
        api_keys.rotate(database, workspace, old.id, overlap=DAY, created_by="command line", actor=rows.ACTOR)
        assert rows.read(database, ApiKey, old.id).expires_at == old.expires_at

    def test_a_key_that_ended_or_is_anothers_is_not_rotated(self, database: Database, workspace: str):
        revoked, _ = api_keys.create(database, _new(workspace), rows.ACTOR)
        expired, _ = api_keys.create(database, _new(workspace), rows.ACTOR)
        theirs, _ = api_keys.create(database, _new(rows.workspace(database, "other")), rows.ACTOR)
        api_keys.revoke(database, workspace, revoked.id, rows.ACTOR)
        _expire(database, expired.id)
        for key_id in (revoked.id, expired.id, theirs.id):
            with pytest.raises(KeyEnded):
                api_keys.rotate(database, workspace, key_id, overlap=DAY, created_by="command line", actor=rows.ACTOR)


def test_a_workspace_has_no_more_keys_than_its_bound_however_many_ask_at_once(database: Database, workspace: str):
    ended = [api_keys.create(database, _new(workspace), rows.ACTOR)[0].id for _ in range(2)]
    for key_id in ended:
        api_keys.revoke(database, workspace, key_id, rows.ACTOR)
    for number in range(MOST_LIVE - 2):
        rows.api_key(database, workspace, f"key {number}")

    def make() -> bool:
        try:
            api_keys.create(database, _new(workspace), rows.ACTOR)
        except TooManyKeys:
            return False
        return True

    calls: list[Callable[[], bool]] = [make] * 6
    assert sorted(together(calls)) == [False] * 4 + [True] * 2
    api_keys.create(database, _new(rows.workspace(database, "other")), rows.ACTOR)


def test_lists_are_newest_first_and_of_one_workspace(database: Database, workspace: str):
    other = rows.workspace(database, "other")
    first, second, theirs = (
        api_keys.create(database, _new(of), rows.ACTOR)[0].id for of in (workspace, workspace, other)
    )
    api_keys.revoke(database, workspace, first, rows.ACTOR)
    with database.transaction() as session:
        assert [row.id for row in api_keys.listing(session, workspace)] == [second]
        assert [row.id for row in api_keys.listing(session, workspace, ended=True)] == [second, first]
        assert {slug for slug, _ in api_keys.of_everybody(session, None)} == {"acme", "other"}
        assert [row.id for _, row in api_keys.of_everybody(session, "other")] == [theirs]
        assert api_keys.get(session, workspace, theirs) is None
    assert api_keys.revoke(database, workspace, theirs, rows.ACTOR) is None


def test_a_key_is_named_with_its_workspace(database: Database, workspace: str):
    row, _ = api_keys.create(database, _new(workspace), rows.ACTOR)
    assert api_keys.named(database, row.id)[0] == "acme"
    with pytest.raises(KeyUnknown, match="key_none"):
        api_keys.named(database, "key_none")


def test_its_use_is_noted(database: Database, workspace: str):
    row, _ = api_keys.create(database, _new(workspace), rows.ACTOR)
    assert row.last_used_at is None
    api_keys.used(database, row.id)
    assert rows.read(database, ApiKey, row.id).last_used_at >= row.created_at
