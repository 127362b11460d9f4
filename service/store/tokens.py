"""Commit tokens as columns: sealed, with the fingerprint by which each is recognised for ever."""

from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from service.store.database import Database
from service.store.tables import CommitToken

TOKEN: Final = "commit_token"  # noqa: S105 - the name of a column


def columns(database: Database, request_id: str, token: SecretStr) -> dict[str, Any]:
    """A commit token as the columns of a change request."""
    return {
        "commit_token_sealed": database.sealer.seal(token, purpose=TOKEN, row_id=request_id),
        "commit_token_fingerprint": database.sealer.fingerprint(token),
    }


def hold(session: Session, request_id: str, fingerprint: bytes) -> bool:
    """Remember that a request holds a token; ``False`` if it was known before, this request's or another's."""
    statement = insert(CommitToken).values(fingerprint=fingerprint, change_request_id=request_id)
    held = session.scalar(statement.on_conflict_do_nothing().returning(CommitToken.fingerprint))
    return held is not None
