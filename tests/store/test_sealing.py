"""Secret columns: they open with the right key, in the row and column they were sealed for, and nowhere else."""

import re

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from service.domain.states import State
from service.store import snapshots, workspaces
from service.store.database import Database
from service.store.sealing import Sealer, SealingError
from tests.support import rows

SECRET = SecretStr("5e3a2a35-2f0d-4d1c-9a55-6ad6a0cf9d10")


def _sealed(sealer: Sealer) -> bytes:
    return sealer.seal(SECRET, purpose="commit_token", row_id="cr_1")


def _opened(sealer: Sealer, sealed: bytes, purpose: str = "commit_token", row_id: str = "cr_1") -> str:
    return sealer.open(sealed, purpose=purpose, row_id=row_id).get_secret_value()


def test_a_sealed_value_opens_again_and_shows_nothing():
    sealed = _sealed(rows.sealer())
    assert _opened(rows.sealer(), sealed) == SECRET.get_secret_value()
    assert SECRET.get_secret_value().encode() not in sealed
    assert _sealed(rows.sealer()) != sealed, "each sealing has a nonce of its own"


@pytest.mark.parametrize("text", ["", "t" * 100_000, "Schlüssel 🔑"])
def test_any_text_comes_back_as_it_was(text: str):
    sealed = rows.sealer().seal(SecretStr(text), purpose="p", row_id="r")
    assert rows.sealer().open(sealed, purpose="p", row_id="r").get_secret_value() == text


def test_the_wrong_key_under_the_same_id_does_not_open():
    other = Sealer({"k1": b"another key, also 32 bytes long."}, b"f" * 32)
    with pytest.raises(SealingError, match="does not open"):
        _opened(other, _sealed(rows.sealer()))


def test_a_key_that_was_taken_away_is_named_by_its_setting():
    with pytest.raises(SealingError, match="ENCRYPTION_KEYS"):
        _opened(rows.sealer("k2"), _sealed(rows.sealer("k1")))


@pytest.mark.parametrize(("purpose", "row_id"), [("commit_token", "cr_2"), ("webhook_secret", "cr_1")])
def test_a_value_moved_to_another_row_or_column_does_not_open(purpose: str, row_id: str):
    with pytest.raises(SealingError):
        _opened(rows.sealer(), _sealed(rows.sealer()), purpose, row_id)


@pytest.mark.parametrize("position", [3, 10, 20, -1])
def test_a_changed_byte_does_not_open(position: int):
    sealed = bytearray(_sealed(rows.sealer()))
    sealed[position] ^= 1
    with pytest.raises(SealingError):
        _opened(rows.sealer(), bytes(sealed))


@pytest.mark.parametrize("length", [0, 1, 3, 8, 15, 20])
def test_a_clipped_value_does_not_open(length: int):
    with pytest.raises(SealingError):
        _opened(rows.sealer(), _sealed(rows.sealer())[:length])


def test_the_error_names_the_place_and_never_the_content():
    sealed = _sealed(rows.sealer())
    with pytest.raises(SealingError) as caught:
        _opened(rows.sealer(), sealed[:-1] + b"\x00", row_id="cr_7")
    message = str(caught.value)
    assert "cr_7" in message
    assert SECRET.get_secret_value() not in message
    assert not re.search(r"[0-9a-f]{16}", message)


def test_after_rotation_the_new_key_seals_and_both_open():
    before, after = rows.sealer("k1"), rows.sealer("k2", "k1")
    old, new = _sealed(before), _sealed(after)
    assert _opened(after, old) == _opened(after, new) == SECRET.get_secret_value()
    with pytest.raises(SealingError):
        _opened(before, new)


def test_the_fingerprint_outlives_a_rotation_and_tells_secrets_apart():
    before, after = rows.sealer("k1"), rows.sealer("k2", "k1")
    assert before.fingerprint(SECRET) == after.fingerprint(SECRET)
    assert before.fingerprint(SECRET) != before.fingerprint(SecretStr("another"))
    other = Sealer({"k1": b"k" * 32}, b"another fingerprint key: 32 byte")
    assert other.fingerprint(SECRET) != before.fingerprint(SECRET)


@pytest.mark.parametrize(
    ("keys", "fingerprint_key"),
    [
        ({}, b"f" * 32),
        ({"k1": b"sixteen bytes 16"}, b"f" * 32),
        ({"": b"k" * 32}, b"f" * 32),
        ({"k\0": b"k" * 32}, b"f" * 32),
        ({"k1": b"k" * 32}, b""),
        ({"k1": b"k" * 32}, b"short"),
    ],
)
def test_keys_that_would_weaken_it_are_refused(keys: dict[str, bytes], fingerprint_key: bytes):
    with pytest.raises(ValueError, match="key"):
        Sealer(keys, fingerprint_key)


def test_a_stored_token_cannot_be_carried_over_to_another_row(database: Database, workspace: str):
    mine = rows.change_request(database, workspace, State.PREPARED)
    theirs = rows.change_request(database, workspace, State.PREPARED)
    with database.transaction() as session:
        session.execute(
            text(
                "UPDATE change_requests SET commit_token_sealed ="
                " (SELECT commit_token_sealed FROM change_requests WHERE id = :theirs) WHERE id = :mine"
            ),
            {"mine": mine, "theirs": theirs},
        )
    with database.transaction() as session, pytest.raises(SealingError, match=mine):
        snapshots.change_request(database, session, mine)


def test_rows_sealed_before_a_rotation_open_after_it(database: Database, workspace: str):
    request_id = rows.change_request(database, workspace, State.PREPARED)
    rotated = Database(database.engine, rows.sealer("k2", "k1"))
    with rotated.transaction() as session:
        token = snapshots.change_request(rotated, session, request_id).commit_token
    assert token is not None
    assert token.get_secret_value().startswith("token-")
    assert "token-" not in repr(token)
    assert workspaces.phala_account(rotated, workspace).api_key.get_secret_value() == "phala-key-of-acme"
