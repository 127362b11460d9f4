"""A process whose database goes away while it starts."""

import pytest

from service.store import observations, revision
from service.store.database import Database, make_engine
from service.wiring import StartRefused, database_faults_refuse
from tests.chaos.proxy import Cut, Proxy


@pytest.mark.fault(
    "database",
    "PostgreSQL goes away while a process starts",
    "it ends with one line and exit code 2; its supervisor starts it again",
    "until it is back",
)
def test_a_database_that_goes_away_at_the_start_refuses_it_in_one_line(database: Database):
    url = database.engine.url
    with Proxy("postgres", (url.host or "", url.port or 0)) as proxy:
        engine = make_engine(url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False))
        through = Database(engine, database.sealer, public_url=database.public_url)
        assert revision.is_at_head(engine)
        proxy.behave(Cut())

        with pytest.raises(StartRefused, match="cannot be used") as refused, database_faults_refuse():
            observations.ensure_chains(through, [1])

        engine.dispose()
    assert "\n" not in str(refused.value)
