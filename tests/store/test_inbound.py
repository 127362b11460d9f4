"""Heard prepares: stored once, decided once, whoever comes first."""

from contextlib import suppress
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from service.domain.errors import CvmBusy
from service.domain.outcomes import Advance, Facts, News, Notice
from service.domain.prepares import Verdict
from service.domain.reasons import Reason
from service.domain.states import State
from service.store import transitions
from service.store.database import Database
from service.store.leases import Lease
from service.store.proposals import StoredRequestIntents
from service.store.tables import ChangeRequest, InboundEvent
from tests.support import heard, rows
from tests.support.heard import VM_UUID
from tests.support.threads import together

LATER = rows.NOW + timedelta(hours=1)
ENDED = Advance(State.CANCELLED, reason=Reason.CANCELLED_BY_USER)
SUPERSEDED = Advance(State.SUPERSEDED, reason=Reason.SUPERSEDED_BY_PREPARE)


def holder(database: Database, workspace: str, state: State = State.PREPARED, **columns: object) -> str:
    return rows.change_request(database, workspace, state, vm_uuid=VM_UUID, **columns)


class TestOfACvmThatNobodyHolds:
    def test_it_becomes_a_change_request(self, database: Database, workspace: str):
        heard.hear(database, workspace)
        (row,) = heard.requests_of(database)
        assert (row.state, row.intake, row.cvm_id, row.cvm_name) == ("received", "webhook", VM_UUID, "my-agent")
        assert (row.compose_hash, row.device_id, row.app_contract) == (rows.COMPOSE_HASH, rows.DEVICE, rows.APP)
        assert row.token_expires_at == rows.NOW + timedelta(days=14)
        assert rows.is_due(database, ChangeRequest, row.id)
        assert [event.type for event in rows.events(database, row.id)] == ["change_request.received"]
        opened = database.sealer.open(row.commit_token_sealed or b"", purpose="commit_token", row_id=row.id)
        assert opened.get_secret_value() == "heard"
        assert heard.verdicts(database) == {"evt_heard": "new"}

    @pytest.mark.parametrize("again", [{}, {"event_id": "evt_resent"}, {"token": "other", "event_id": "evt_heard"}])
    def test_the_same_event_or_token_again_changes_nothing(
        self, database: Database, workspace: str, again: dict[str, str]
    ):
        heard.hear(database, workspace)
        heard.hear(database, workspace, **again)
        assert len(heard.requests_of(database)) == len(heard.verdicts(database)) == 1

    @pytest.mark.fault(
        "webhooks in", "Phala Cloud tells the same many times at once", "stored once, one change request", "no delay"
    )
    def test_the_same_event_many_times_at_once(self, database: Database, workspace: str):
        together([lambda: heard.hear(database, workspace) for _ in range(6)])
        assert len(heard.requests_of(database)) == 1

    def test_of_two_workspaces_that_hear_the_same_one_takes_it(self, database: Database, workspace: str):
        heard.hear(database, workspace)
        heard.hear(database, rows.workspace(database, "other"))
        assert len(heard.requests_of(database)) == 1
        with database.transaction() as session:
            assert sorted(session.scalars(select(InboundEvent.verdict))) == ["echo", "new"]

    def test_an_ended_one_is_dead(self, database: Database, workspace: str):
        heard.hear(database, workspace, at=rows.NOW + timedelta(days=14))
        assert heard.requests_of(database) == []
        assert heard.verdicts(database) == {"evt_heard": "ignore"}

    @pytest.mark.fault(
        "webhooks in",
        "Webhooks arrive in the wrong order",
        "judged by Phala Cloud's clock: the older one is dead",
        "no delay",
    )
    def test_one_that_arrives_after_a_newer_one_ended_is_dead(self, database: Database, workspace: str):
        ended = holder(database, workspace, State.CANCELLED, state_entered_at=LATER)
        with database.transaction() as session:
            session.get_one(ChangeRequest, ended).token_expires_at = LATER + timedelta(days=14)
        heard.hear(database, workspace)
        assert [row.id for row in heard.requests_of(database)] == [ended]
        assert heard.verdicts(database) == {"evt_heard": "ignore"}

    def test_one_that_may_be_ours_without_an_answer_is_not_made_another(self, database: Database, workspace: str):
        holder(database, workspace, State.CANCELLED, prepare_attempted_at=rows.NOW, state_entered_at=LATER)
        heard.hear(database, workspace, minted_at=rows.NOW + timedelta(seconds=2))
        assert heard.verdicts(database) == {"evt_heard": "ignore"}

    def test_a_token_that_an_ended_request_held_is_an_echo(self, database: Database, workspace: str):
        request_id = holder(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.record(database, lease, Facts(commit_token="first"))
        transitions.record(database, lease, Facts(commit_token="second"))
        transitions.apply(database, lease, State.PREPARED, ENDED, LATER)
        for token in ("first", "second"):
            heard.hear(database, workspace, token=token, minted_at=LATER + timedelta(hours=1))
        assert heard.verdicts(database) == {"evt_first": "echo", "evt_second": "echo"}
        assert len(heard.requests_of(database)) == 1

    def test_the_token_of_a_drift_is_known_as_ours(self, database: Database, workspace: str):
        lease = rows.lease(database, ChangeRequest, holder(database, workspace))
        drift = Advance(State.FAILED, Facts(commit_token="drifted"), reason=Reason.COMPOSE_DRIFT)
        transitions.apply(database, lease, State.PREPARED, drift, rows.NOW)
        heard.hear(database, workspace, token="drifted", minted_at=LATER, compose_hash=rows.OTHER_HASH)
        assert heard.verdicts(database) == {"evt_drifted": "echo"}


class TestOfACvmThatIsHeld:
    @pytest.mark.parametrize("state", [State.RECEIVED, State.PREPARED, State.PROPOSED, State.REGISTERED])
    def test_it_rings_for_the_holder_who_decides(self, database: Database, workspace: str, state: State):
        request_id = holder(database, workspace, state)
        rows.shift(database, ChangeRequest, request_id, due_at=3600)
        heard.hear(database, workspace)
        assert rows.is_due(database, ChangeRequest, request_id)
        assert heard.verdicts(database) == {"evt_heard": None}

    @pytest.mark.fault(
        "webhooks in",
        "The webhook overtakes the answer to our own prepare",
        "it waits until the answer is applied; no second request",
        "the end of that step",
    )
    def test_an_echo_that_arrives_before_our_answer_is_applied(self, database: Database, workspace: str):
        request_id = holder(database, workspace, State.RECEIVED)
        lease = rows.lease(database, ChangeRequest, request_id)
        heard.hear(database, workspace, token="ours")
        prepared = Facts(
            chain_id=rows.CHAIN_ID, app_contract=rows.APP, device_id=rows.DEVICE, compose_hash=rows.COMPOSE_HASH
        )
        prepared["commit_token"] = "ours"
        transitions.apply(database, lease, State.RECEIVED, Advance(State.PREPARED, prepared), rows.NOW)
        hearing = StoredRequestIntents(database, rows.lease(database, ChangeRequest, request_id)).heard()
        ((echo,), minted_at) = (hearing.prepares, hearing.minted_at)
        assert (echo.ours, echo.current, minted_at) == (True, True, rows.NOW)

    def test_verdicts_facts_and_events_are_stored_together(self, database: Database, workspace: str):
        request_id = holder(database, workspace)
        heard.hear(database, workspace, minted_at=LATER)
        intents = StoredRequestIntents(database, rows.lease(database, ChangeRequest, request_id))
        (fresh,) = intents.heard().prepares
        assert fresh.token == SecretStr("heard")
        news = News(
            Facts(commit_token="heard", token_expires_at=fresh.expires_at),
            ((Notice.TOKEN_REFRESHED, {"token_expires_at": "then"}),),
            {fresh.id: Verdict.ADOPT},
        )
        intents.publish(news, LATER)
        assert heard.verdicts(database) == {"evt_heard": "adopt"}
        assert [event.type for event in rows.events(database, request_id)] == ["change_request.token_refreshed"]
        hearing = intents.heard()
        assert (hearing.prepares, hearing.token) == ((), SecretStr("heard"))

    @pytest.mark.fault(
        "webhooks in", "A heard token does not open", "left for later, the request goes on", "when the key is back"
    )
    def test_a_token_that_does_not_open_is_left_for_later(self, database: Database, workspace: str):
        request_id = holder(database, workspace)
        heard.hear(database, workspace)
        stranger = Database(database.engine, rows.sealer("k2"))
        intents = StoredRequestIntents(stranger, rows.lease(database, ChangeRequest, request_id))
        assert intents.heard().prepares == ()
        assert heard.verdicts(database) == {"evt_heard": None}


class TestWhenTheHolderEnds:
    def test_the_one_that_superseded_it_becomes_a_request_of_its_own(self, database: Database, workspace: str):
        request_id = holder(database, workspace)
        heard.hear(database, workspace, token="older", minted_at=rows.NOW + timedelta(minutes=30))
        heard.hear(database, workspace, token="newer", minted_at=LATER, compose_hash=rows.OTHER_HASH)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.apply(database, lease, State.PREPARED, SUPERSEDED, LATER)
        old, new = heard.requests_of(database)
        assert (old.id, old.state, new.state, new.intake) == (request_id, "superseded", "received", "webhook")
        assert new.compose_hash == rows.OTHER_HASH
        assert heard.verdicts(database) == {"evt_older": "ignore", "evt_newer": "new"}

    def test_what_waited_for_it_is_decided_then(self, database: Database, workspace: str):
        request_id = holder(database, workspace, State.RECEIVED)
        heard.hear(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.apply(database, lease, State.RECEIVED, ENDED, LATER)
        assert [row.state for row in heard.requests_of(database)] == ["cancelled", "received"]

    def test_a_token_that_does_not_open_does_not_keep_it_from_ending(self, database: Database, workspace: str):
        request_id = holder(database, workspace)
        heard.hear(database, workspace, minted_at=LATER)
        stranger = Database(database.engine, rows.sealer("k2"))
        lease = rows.lease(database, ChangeRequest, request_id)
        transitions.apply(stranger, lease, State.PREPARED, ENDED, LATER)
        assert heard.verdicts(database) == {"evt_heard": None}

    @pytest.mark.fault(
        "webhooks in",
        "A prepare is heard while its CVM's request ends",
        "one request ended, one new one, whichever comes first",
        "no delay",
    )
    @pytest.mark.parametrize("_", range(5))
    def test_it_is_heard_while_the_holder_ends(self, database: Database, workspace: str, _: int):
        """Whichever comes first: one request ended, one new one, nothing forgotten."""
        request_id = holder(database, workspace)
        lease = rows.lease(database, ChangeRequest, request_id)
        together(
            [
                lambda: transitions.apply(database, lease, State.PREPARED, ENDED, LATER),
                lambda: heard.hear(database, workspace, minted_at=LATER),
            ]
        )
        assert [row.state for row in heard.requests_of(database)] == ["cancelled", "received"]
        assert heard.verdicts(database) == {"evt_heard": "new"}

    def test_a_submitted_request_takes_the_cvm_this_moment(self, database: Database, workspace: str):
        """Between the look for a holder and the new row, another resolved to the CVM: its holder decides."""
        submitted = rows.change_request(database, workspace)
        lease = rows.lease(database, ChangeRequest, submitted)
        together(
            [
                lambda: _resolve(database, lease),
                lambda: heard.hear(database, workspace),
            ]
        )
        holders = [row for row in heard.requests_of(database) if row.state == "received"]
        assert len(holders) == 1


def _resolve(database: Database, lease: Lease) -> None:
    with suppress(CvmBusy):
        transitions.record(database, lease, Facts(vm_uuid=VM_UUID))
