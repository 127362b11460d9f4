"""API keys: made, found, listed, replaced, ended. The key itself is handed out once and never stored."""

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from service.domain.actors import Actor
from service.domain.acts import Act
from service.domain.api_keys import RANDOM_BYTES, Scope, digest, hint, mint
from service.store import acts
from service.store.database import Database, Prepared
from service.store.locks import lock_name
from service.store.tables import ApiKey, Workspace

MOST_LIVE: Final = 100
"""Keys of a workspace that work at the same time."""

_FIND = Prepared(
    """
    SELECT k.id, k.digest, k.workspace_id, w.slug, k.scope, k.name
    FROM api_keys k JOIN workspaces w ON w.id = k.workspace_id
    WHERE k.digest = %(digest)s AND k.revoked_at IS NULL
        AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
    """,
    {},
)
_WITH_SLUG = select(Workspace.slug, ApiKey).join(Workspace, Workspace.id == ApiKey.workspace_id)


class KeyUnknown(Exception):
    """There is no key of that id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id}")


class KeyEnded(Exception):
    """The key is revoked or expired."""

    def __init__(self) -> None:
        super().__init__("the key was revoked or has expired: create a new one")


class TooManyKeys(Exception):
    """The workspace has ``MOST_LIVE`` keys."""

    def __init__(self) -> None:
        super().__init__(f"the workspace has {MOST_LIVE} API keys that work: revoke some")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a key that works."""

    key_id: str
    workspace_id: str
    workspace: str
    scope: Scope
    name: str = ""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is asked for.

    Attributes:
        created_by: ``command line``, or the id of a key.
        lifetime: None is for good.
    """

    workspace_id: str
    name: str
    scope: Scope
    created_by: str
    lifetime: timedelta | None = None


def create(database: Database, asked: NewKey, actor: Actor) -> tuple[ApiKey, SecretStr]:
    """Make a key; its row, and the key, which nobody can read again.

    Raises:
        TooManyKeys: see there.
    """
    with database.transaction() as session:
        made = _create(database, session, asked, replaces=None)
        _note(database, session, made[0], Act.KEY_CREATED, actor)
        return made


def _note(database: Database, session: Session, row: ApiKey, act: Act, actor: Actor, **more: object) -> None:
    key = {"id": row.id, "name": row.name, "scope": row.scope, "expires_at": _iso(row.expires_at)}
    acts.append(database, session, row.workspace_id, act, actor=actor, data={"api_key": key, **more})


def _create(database: Database, session: Session, asked: NewKey, *, replaces: str | None) -> tuple[ApiKey, SecretStr]:
    lock_name(session, f"api keys:{asked.workspace_id}")
    live = select(func.count()).select_from(ApiKey).where(ApiKey.workspace_id == asked.workspace_id, ApiKey.works)
    if session.scalars(live).one() >= MOST_LIVE:
        raise TooManyKeys
    key = mint(os.urandom(RANDOM_BYTES))
    values: dict[str, Any] = {
        "id": database.new_id("key"),
        "workspace_id": asked.workspace_id,
        "digest": digest(key),
        "hint": hint(key),
        "name": asked.name,
        "scope": asked.scope.value,
        "created_by": asked.created_by,
        "replaces": replaces,
        "expires_at": None if asked.lifetime is None else func.now() + asked.lifetime,
    }
    session.execute(insert(ApiKey).values(**values))
    return session.get_one(ApiKey, values["id"]), SecretStr(key)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def find(database: Database, key: str) -> Holder | None:
    """Who holds a key, if it works now.

    The index finds the row by the hash, about which timing tells nothing that would help to find the key; the hash is
    compared once more in constant time all the same.
    """
    presented = digest(key)
    rows = database.look(_FIND, {"digest": presented})
    if not rows:
        return None
    ((key_id, kept, workspace_id, slug, scope, name),) = rows
    found = Holder(key_id, workspace_id, slug, Scope(scope), name)
    return found if hmac.compare_digest(bytes(kept), presented) else None


def get(session: Session, workspace_id: str, key_id: str) -> ApiKey | None:
    """A key of the workspace, whether it works or not."""
    return session.scalars(select(ApiKey).where(ApiKey.id == key_id, ApiKey.workspace_id == workspace_id)).one_or_none()


def listing(session: Session, workspace_id: str, *, ended: bool = False) -> Sequence[ApiKey]:
    """The keys of a workspace that work, newest first; with ``ended`` the others too."""
    statement = select(ApiKey).where(ApiKey.workspace_id == workspace_id)
    if not ended:
        statement = statement.where(ApiKey.works)
    return session.scalars(statement.order_by(ApiKey.id.desc())).all()


def revoke(database: Database, workspace_id: str, key_id: str, actor: Actor) -> ApiKey | None:
    """End a key now; one that ended stays as it is. ``None`` if there is no such key."""
    ours = (ApiKey.id == key_id, ApiKey.workspace_id == workspace_id)
    with database.transaction() as session:
        ended = update(ApiKey).where(*ours, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
        done = session.scalars(ended.returning(ApiKey.id)).one_or_none()
        row = get(session, workspace_id, key_id)
        if done is not None and row is not None:
            _note(database, session, row, Act.KEY_REVOKED, actor)
        return row


def rotate(
    database: Database, workspace_id: str, key_id: str, *, overlap: timedelta, created_by: str, actor: Actor
) -> tuple[ApiKey, SecretStr]:
    """Make a key that does the same for as long, and end the old one after ``overlap``.

    Raises:
        KeyEnded: the workspace has no such key that works.
        TooManyKeys: see there.
    """
    with database.transaction() as session:
        old = session.scalars(
            select(ApiKey)
            .where(ApiKey.id == key_id, ApiKey.workspace_id == workspace_id, ApiKey.works)
            .with_for_update()
        ).one_or_none()
        if old is None:
            raise KeyEnded
        lifetime = None if old.expires_at is None else old.expires_at - old.created_at
        asked = NewKey(workspace_id, old.name, Scope(old.scope), created_by, lifetime)
        made = _create(database, session, asked, replaces=old.id)
        ends = func.least(ApiKey.expires_at, func.now() + overlap)  # least() passes over null
        changed = update(ApiKey).where(ApiKey.id == old.id).values(expires_at=ends).returning(ApiKey.expires_at)
        replaced = {"id": old.id, "expires_at": _iso(session.scalars(changed).one())}
        _note(database, session, made[0], Act.KEY_ROTATED, actor, replaced=replaced)
        return made


def used(database: Database, key_id: str) -> None:
    """Note that a key was used just now."""
    with database.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=func.now()))


def named(database: Database, key_id: str) -> tuple[str, ApiKey]:
    """A key with the slug of its workspace, for operators, who name keys only.

    Raises:
        KeyUnknown: there is none.
    """
    with database.transaction() as session:
        row = session.execute(_WITH_SLUG.where(ApiKey.id == key_id)).one_or_none()
    if row is None:
        raise KeyUnknown(key_id)
    return row[0], row[1]


def of_everybody(session: Session, slug: str | None) -> Sequence[tuple[str, ApiKey]]:
    """All keys with the slug of their workspace, newest first; of one workspace if ``slug`` names it."""
    statement = _WITH_SLUG
    if slug is not None:
        statement = statement.where(Workspace.slug == slug)
    return [(row[0], row[1]) for row in session.execute(statement.order_by(ApiKey.id.desc()))]
