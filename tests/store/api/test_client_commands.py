"""The client's commands as processes, before a real API."""

import json
import signal
from pathlib import Path

import pytest

from service.api.examples import SUBMIT_PREPARED
from service.client import exits
from service.domain.reasons import Reason
from service.domain.states import State
from service.store.database import Database
from service.store.tables import ChangeRequest
from tests.support import rows
from tests.support.command import Command
from tests.support.served_api import KEYS, Api

OWNER = "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb"
COMPOSE = "services:\n  app:\n    image: nginx\n"


@pytest.fixture
def command(api: Api) -> Command:
    return Command(api.url, KEYS["acme"])


def test_a_compose_file_is_submitted(command: Command, database: Database, tmp_path: Path):
    (tmp_path / "compose.yml").write_text(COMPOSE)
    (tmp_path / "patch.json").write_text('{"vcpu": 2}')
    words = ["--allowed-env", "A", "--patch", str(tmp_path / "patch.json"), "--title", "Release"]
    request = command.json("submit", "--cvm", "my-agent", "-c", str(tmp_path / "compose.yml"), *words)
    row = rows.read(database, ChangeRequest, request["id"])
    assert row.patch == {"docker_compose_file": COMPOSE, "vcpu": 2, "allowed_envs": ["A"]}
    assert (row.title, row.cvm_id) == ("Release", "my-agent")


def test_a_prepared_update_comes_through_a_pipe_and_its_token_goes_nowhere(command: Command):
    prepared = SUBMIT_PREPARED["prepared"]
    out, err = command.run("submit", "--prepared", "-", given=json.dumps(prepared))
    assert prepared["compose_hash"] in out
    again_out, again_err = command.run("submit", "--prepared", "-", given=json.dumps(prepared), ends=exits.REFUSED)
    assert again_out == ""
    assert "token_already_submitted" in again_err
    assert prepared["commit_token"] not in out + err + again_err


def test_a_broken_prepared_file_is_not_quoted(command: Command):
    out, err = command.run("submit", "--prepared", "-", given='{"commit_token": "secret"', ends=exits.USAGE)
    assert (out, err) == ("", "countersign: - is not JSON\n")


def test_status_says_who_signed_and_escapes_what_was_stored(
    command: Command, database: Database, workspaces: dict[str, str]
):
    proposal_id = rows.proposal(database, workspaces["acme"])
    rows.approval(database, proposal_id, nonce=7, confirmations=[OWNER], threshold=3)
    hostile = {"title": "evil \x1b[2J", "proposal_id": proposal_id}
    request_id = rows.change_request(database, workspaces["acme"], State.PROPOSED, **hostile)
    out, _ = command.run("status", request_id)
    assert "evil \\x1b[2J" in out
    assert "\x1b" not in out
    assert f"signed by {OWNER}: 1 of 3, 2 missing" in out
    assert "sign at https://safe.example/" in out
    assert command.json("status", request_id)["title"] == hostile["title"]
    assert "evil \\x1b[2J" in command.run("list")[0]


def test_list_filters_and_pages(command: Command, database: Database, workspaces: dict[str, str]):
    live = rows.change_request(database, workspaces["acme"], State.RECEIVED)
    ended = rows.change_request(database, workspaces["acme"], State.CANCELLED)
    assert [one["id"] for one in command.json("list", "--live")["items"]] == [live]
    assert [one["id"] for one in command.json("list", "--ended")["items"]] == [ended]
    first = command.json("list", "--limit", "1")
    rest = command.json("list", "--limit", "1", "--cursor", first["next_cursor"])
    assert [one["id"] for one in first["items"] + rest["items"]] == [ended, live]
    assert "more: --cursor" in command.run("list", "--limit", "1")[0]


def test_cancel_stores_the_wish(command: Command, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.RECEIVED)
    assert command.json("cancel", request_id)["cancel_requested_at"]


def test_refresh_asks_for_a_fresh_token(command: Command, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.PREPARED)
    assert command.json("refresh", request_id)["token_refresh"]["requested_at"]
    prepared = json.dumps(SUBMIT_PREPARED["prepared"])
    refused = command.run("refresh", request_id, "--prepared", "-", given=prepared, ends=exits.REFUSED)[1]
    assert "409 prepared_differs" in refused


def test_events_are_all_there(command: Command, tmp_path: Path):
    (tmp_path / "compose.yml").write_text(COMPOSE)
    request = command.json("submit", "--cvm", "my-agent", "-c", str(tmp_path / "compose.yml"))
    assert "change_request.received" in command.run("events", request["id"])[0]
    assert [one["seq"] for one in command.json("events", request["id"])["items"]] == [1]
    assert command.json("events", request["id"], "--after", "1")["items"] == []


@pytest.mark.parametrize(("state", "code"), [(State.REJECTED, 3), (State.CANCELLED, 6), (State.FAILED, 7)])
def test_a_wait_ends_as_the_request_did(
    command: Command, database: Database, workspaces: dict[str, str], state: State, code: int
):
    reason = {"reason": Reason.CVM_BUSY.value} if state is State.FAILED else {}
    request_id = rows.change_request(database, workspaces["acme"], state, **reason)
    assert command.json("wait", request_id, ends=code)["state"] == state
    out, err = command.run("wait", request_id, ends=code)
    assert err.startswith(f"{state}: ")
    assert out.startswith(f"{request_id}  {state} ")


def test_a_wait_that_is_over_says_how_to_go_on(command: Command, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.RECEIVED)
    out, err = command.run("wait", request_id, "--timeout", "1", ends=exits.STILL_LIVE)
    assert err.startswith("received: ")
    assert f"countersign wait {request_id}" in err
    assert out.startswith(f"{request_id}  received ")


@pytest.mark.fault(
    "clients", "A waiting command is interrupted", "the request goes on; the command says how to follow it", "at once"
)
def test_ctrl_c_leaves_the_request_alone(command: Command, database: Database, workspaces: dict[str, str]):
    request_id = rows.change_request(database, workspaces["acme"], State.RECEIVED)
    with command.start("wait", request_id) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("received: ")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == exits.INTERRUPTED
    assert f"countersign wait {request_id}" in err
    assert rows.read(database, ChangeRequest, request_id).cancel_requested_at is None


def test_refusals_are_one_line(api: Api, command: Command):
    out, err = command.run("status", "cr_../../x", ends=exits.REFUSED)
    assert (out, err.count("\n")) == ("", 1)
    assert "[404 not_found, request " in err
    wrong = Command(api.url, "no-such-key").run("list", ends=exits.REFUSED)[1]
    assert "401 unauthorized" in wrong
    assert "no-such-key" not in wrong


def test_the_key_may_come_from_a_file(api: Api, tmp_path: Path):
    (tmp_path / "key").write_text(KEYS["acme"] + "\n")
    command = Command(api.url, "a key that is not looked at")
    assert command.json("list", "--api-key-file", str(tmp_path / "key"))["items"] == []
    assert "cannot be read" in command.run("list", "--api-key-file", str(tmp_path / "none"), ends=exits.USAGE)[1]


def test_no_key_and_no_patch_are_usage_errors(api: Api, command: Command):
    assert "no API key" in Command(api.url, "").run("list", ends=exits.USAGE)[1]
    assert "nothing to change" in command.run("submit", "--cvm", "a", ends=exits.USAGE)[1]
    assert "cannot be sent" in Command(api.url, "k").run("list", "--cvm", "\udcff", ends=exits.USAGE)[1]
    words = ("submit", "--prepared", "-", "--idempotency-key")
    assert "printable ASCII" in Command(api.url, "k").run(*words, "ü", given="{}", ends=exits.USAGE)[1]
    assert "not JSON" in Command(api.url, "k").run("refresh", "a", "--prepared", "-", given='{"a": NaN}', ends=2)[1]
