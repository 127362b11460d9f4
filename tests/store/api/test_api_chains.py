"""What the API tells about the chains."""

from typing import Any

from sqlalchemy import update

from service.store import observations
from service.store.database import Database
from service.store.tables import ChainCursor
from tests.support import rows
from tests.support.served_api import Api


def shown(api: Api) -> dict[int, dict[str, Any]]:
    answer = api.acme.get("/v1/chains")
    assert answer.status_code == 200, answer.text
    assert answer.json() == api.other.get("/v1/chains").json(), "nothing of a workspace is in it"
    return {each["id"]: each for each in answer.json()["items"]}


def store(database: Database, **values: object) -> None:
    with database.transaction() as session:
        session.execute(update(ChainCursor).where(ChainCursor.chain_id == rows.CHAIN_ID).values(**values))


def test_a_chain_that_was_never_read_says_so(api: Api, database: Database):
    observations.ensure_chains(database, [rows.CHAIN_ID])
    chains = shown(api)
    assert set(chains) == {8453, rows.CHAIN_ID}
    for chain in chains.values():
        assert (chain["status"], chain["head_block"], chain["age_seconds"]) == ("not_read_yet", None, None)


def test_head_cursor_and_age_are_shown(api: Api, database: Database):
    observations.ensure_chains(database, [rows.CHAIN_ID])
    store(database, block_number=90, block_hash="0x" + "90" * 32, read_to=98, head_number=100, final_number=98)
    store(database, looked_at=rows.NOW)
    answer = api.acme.get("/v1/chains").json()["items"]
    (chain,) = [each for each in answer if each["id"] == rows.CHAIN_ID]
    assert (chain["status"], chain["head_block"], chain["final_block"], chain["read_to_block"], chain["catch_up"]) == (
        "up_to_date",
        100,
        98,
        98,
        None,
    )
    assert chain["looked_at"] == rows.NOW.isoformat().replace("+00:00", "Z")
    assert isinstance(chain["age_seconds"], float)


def test_catching_up_shows_how_much_is_left(api: Api, database: Database):
    observations.ensure_chains(database, [rows.CHAIN_ID])
    store(database, block_number=1_000, head_number=50_000, final_number=49_998, gap=48_998 + 900, looked_at=rows.NOW)
    answer = api.acme.get("/v1/chains").json()["items"]
    (chain,) = [each for each in answer if each["id"] == rows.CHAIN_ID]
    assert (chain["status"], chain["catch_up"]) == ("catching_up", {"blocks_total": 49_898, "blocks_left": 48_998})


def test_a_failing_chain_does_not_quote_what_failed(api: Api, database: Database):
    observations.ensure_chains(database, [rows.CHAIN_ID])
    look = observations.take(database, rows.CHAIN_ID)
    assert look is not None
    observations.fail(database, look.lease, detail="https://rpc.example/s3cret", wait_seconds=0)
    chain = shown(api)[rows.CHAIN_ID]
    assert (chain["status"], chain["failed_looks"]) == ("failing", 1)
    assert "s3cret" not in str(chain)
