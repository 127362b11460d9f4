"""Figures about the deployment and about steps, as Prometheus scrapes them."""

import logging
import socket
from functools import partial

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from service.domain.errors import LeaseLost
from service.domain.outcomes import Advance, Wait, stop
from service.domain.reasons import Reason
from service.domain.states import State
from service.logs import Ids
from service.settings import Settings
from service.store import figures, heartbeats, leases, observations, readiness, recoveries, snapshots, transitions
from service.store.database import Database, make_engine
from service.store.heartbeats import SafeServiceSigns
from service.store.tables import ChangeRequest, Heartbeat
from service.telemetry.metrics import CATALOGUE
from service.wiring import StartRefused, observed
from tests.support import rows
from tests.support.scraping import Scrape, scraping
from workers import telling
from workers.verbs import Verb

log = logging.getLogger(__name__)


def _sql(database: Database, statement: str) -> None:
    with database.transaction() as session:
        session.execute(text(statement))


def _scrape(database: Database) -> Scrape:
    with scraping(partial(figures.of_the_deployment, database), process="serve") as scraped:
        return scraped.scrape()


def test_the_database_tells_of_everything_that_has_not_ended(database: Database, workspace: str):
    rows.workspace(database, phala_webhook_secrets=[SecretStr("whsec_c2VjcmV0")])
    _sql(database, "UPDATE workspaces SET blocked_reason = 'the key was revoked', blocked_at = now()")
    proposed, prepared, _ = (
        rows.change_request(database, workspace, state) for state in (State.PROPOSED, State.PREPARED, State.COMPLETED)
    )
    rows.shift(database, ChangeRequest, proposed, due_at=600, token_expires_at=90_000)
    rows.shift(database, ChangeRequest, prepared, due_at=-90, token_expires_at=3600)
    recoveries.ring_due(database, 1)
    _sql(database, "UPDATE phala_recoveries SET due_at = now() - interval '80 seconds'")
    observations.ensure_chains(database, [rows.CHAIN_ID])
    _sql(
        database,
        "UPDATE chain_cursors SET head_number = 120, final_number = 100, looked_at = now() - interval '70 s',"
        " due_at = now() + interval '5 s'",
    )
    heartbeats.served(database, "commit")
    _sql(database, "UPDATE heartbeats SET seen_at = now() - interval '61 seconds'")

    seen, chain = _scrape(database), str(rows.CHAIN_ID)

    assert seen("database_up") == 1
    assert [seen("change_requests", state=state) for state in ("proposed", "prepared", "completed")] == [1, 1, 0]
    assert seen("due_rows", kind="change_requests") == 1
    assert 90 <= seen("oldest_due_seconds", kind="change_requests") < 900
    assert 80 <= seen("oldest_due_seconds", kind="accounts") < 900
    assert [seen("oldest_due_seconds", kind=kind) for kind in ("chains", "deliveries")] == [0, 0]
    assert seen("tokens_expiring") == 1
    assert seen("blocked_workspaces") == 1
    assert seen("chain_head_block", chain_id=chain) == 120
    assert seen("chain_final_lag_blocks", chain_id=chain) == 20
    assert 70 <= seen("chain_read_age_seconds", chain_id=chain) < 900
    assert 61 <= seen("queue_round_trip_age_seconds", queue="commit") < 900
    assert seen("part_condition", part="queue:commit") == 2
    assert seen("part_condition", part=f"chain:{chain}") == 1
    assert seen("process", kind="serve", version="0.1.0") == 1
    assert proposed not in seen.text


def test_a_delivery_is_old_only_where_somebody_should_have_sent_it(database: Database):
    workspace = rows.workspace(database, webhooks=[("https://hooks.example/", SecretStr("whsec_" + "A" * 32))])
    request_id = rows.change_request(database, workspace)
    cancelled = Advance(State.CANCELLED)
    taken = rows.lease(database, ChangeRequest, request_id)
    transitions.apply(database, taken, State.RECEIVED, cancelled, rows.NOW)
    _sql(database, "UPDATE webhook_deliveries SET due_at = now() - interval '90 seconds'")
    _sql(database, "UPDATE webhook_endpoints SET due_at = now() - interval '80 seconds'")
    assert 80 <= _scrape(database)("oldest_due_seconds", kind="deliveries") < 900

    _sql(database, "UPDATE webhook_endpoints SET due_at = now() + interval '1 hour'")

    assert _scrape(database)("due_rows", kind="deliveries") == 0
    assert _scrape(database)("webhook_endpoints", state="active") == 1


def test_every_figure_of_the_catalogue_is_there_and_no_other(database: Database):
    rows.workspace(database, webhooks=[("https://hooks.example/", SecretStr("whsec_" + "A" * 32))])
    rows.change_request(database, rows.workspace(database, "other"))
    observations.ensure_chains(database, [rows.CHAIN_ID])
    _sql(database, "UPDATE chain_cursors SET head_number = 120, final_number = 100")
    heartbeats.served(database, "commit")

    both = {*figures.of_the_deployment(database), *figures.of_the_pool(database)}

    assert {figure.name for figure in both} | {"process"} == {
        name.removeprefix("countersign_") for name in CATALOGUE.metrics if name not in _counted()
    }


def _counted() -> set[str]:
    return {
        sample_name for family in CATALOGUE.registry.collect() for sample_name in (family.name, f"{family.name}_total")
    }


def test_a_database_that_is_gone_is_told_and_spoils_no_scrape():
    gone = Database(make_engine("postgresql://u:hunter2@127.0.0.1:1/x"), rows.sealer())

    seen = _scrape(gone)

    assert seen("database_up") == 0
    assert seen.shows("database_up")
    assert not seen.shows("change_requests")
    assert "hunter2" not in seen.text


def test_connections_in_use_are_counted(database: Database):
    with scraping(partial(figures.of_the_pool, database)) as scraped, database.engine.connect():
        seen = scraped.scrape()
    assert seen("database_connections", state="in_use") == 1
    assert seen("database_connections", state="most") == 60


def test_a_step_is_counted_by_its_edge_its_end_and_how_it_went(database: Database, workspace: str):
    request_id = rows.change_request(database, workspace, api_request_id="req_of_the_post")
    with database.reads() as session:
        request = snapshots.change_request(database, session, request_id)
    with scraping() as scraped:
        before = scraped.scrape()
        for outcome in (
            Wait(1, Reason.PHALA_BUSY),
            Wait(1, Reason.PHALA_UNREACHABLE, failed_attempt=True),
            Wait(1, Reason.INTERNAL_ERROR, failed_attempt=True),
            stop(State.FAILED, Reason.CVM_NOT_FOUND),
        ):
            with telling.of_request(request, Verb.PREPARE) as told:
                told(outcome)
        with pytest.raises(LeaseLost), telling.of_request(request, Verb.PREPARE):
            raise LeaseLost("another worker holds this change request")
        after = scraped.scrape()

    def grew(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    for outcome_name in ("waiting", "failed", "error", "ended", "taken_over"):
        assert grew("steps_total", verb="prepare", outcome=outcome_name) == 1, outcome_name
    assert grew("step_seconds_count", verb="prepare") == 5
    assert grew("transitions_total", source="received", target="failed") == 1
    assert grew("ends_total", state="failed", reason="cvm_not_found") == 1
    assert grew("leases_lost_total", kind="change_request") == 1
    assert request_id not in after.text


def test_log_lines_of_a_step_carry_the_ids_of_what_it_serves(
    database: Database, workspace: str, caplog: pytest.LogCaptureFixture
):
    request_id = rows.change_request(database, workspace, State.PROPOSED, api_request_id="req_of_the_post")
    with database.reads() as session:
        request = snapshots.change_request(database, session, request_id)
    ids = Ids()
    caplog.handler.addFilter(ids)
    try:
        with telling.of_request(request, Verb.AWAIT):
            log.warning("inside")
        log.warning("outside")
    finally:
        caplog.handler.removeFilter(ids)

    inside, outside = caplog.records
    told = {name: inside.__dict__.get(name) for name in ("request_id", "change_request_id", "workspace_id", "chain_id")}
    assert told == {
        "request_id": "req_of_the_post",
        "change_request_id": request_id,
        "workspace_id": workspace,
        "chain_id": rows.CHAIN_ID,
    }
    assert not {"request_id", "change_request_id"} & outside.__dict__.keys()


def test_leases_are_given_back_as_if_another_had_taken_the_row(database: Database, workspace: str):
    request_id = rows.change_request(database, workspace)
    taken = rows.lease(database, ChangeRequest, request_id)
    keeper = leases.LeaseKeeper(database)
    keeper.add(taken)

    assert keeper.give_all_back() == 1

    assert rows.is_due(database, ChangeRequest, request_id)
    assert rows.lease(database, ChangeRequest, request_id).fence == taken.fence + 1
    assert keeper.give_all_back() == 0, "it is given back once"


def test_a_port_that_is_taken_refuses_the_start():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(StartRefused, match="COUNTERSIGN_METRICS_PORT"),
            observed(Settings(metrics_port=port), "beat"),
        ):
            pytest.fail("it started")


def test_what_the_transaction_service_says_is_kept_and_judged(database: Database):
    signs = SafeServiceSigns(database, 1)

    def judged() -> dict[str, str]:
        return {part.name: part.condition for part in readiness.look(database) if part.name.startswith("safe")}

    assert judged() == {}
    signs.told(True)
    assert judged() == {"safe service:1": "ok"}
    signs.told(False)
    assert judged() == {"safe service:1": "degraded"}
    _sql(database, "UPDATE heartbeats SET seen_at = seen_at - interval '1 hour'")
    assert judged() == {"safe service:1": "ok"}, "nobody has needed it since"
    signs.told(False)
    assert judged() == {"safe service:1": "ok"}, "the same again is stored every 15 s only"
    signs.told(True)
    with database.transaction() as session:
        assert session.query(Heartbeat).count() == 2
    assert judged() == {"safe service:1": "ok"}
