"""What the commands print, and how they end."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from service.cli import app
from service.client import exits, text
from service.domain.states import TERMINAL

CLIENT = {
    *("submit", "wait", "status", "list", "events", "refresh", "cancel"),
    *("retry", "release", "freeze", "unfreeze"),
}
PAGE = Path(__file__).resolve().parents[3] / "docs/command-line.md"


@pytest.mark.parametrize(
    ("hostile", "printed"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc", "\\u202eabc"),
        ("a\u2028b\u200b", "a\\u2028b\\u200b"),
        ("\ud800", "\\ud800"),
        ("Grüße 你好", "Grüße 你好"),
    ],
)
def test_nothing_stored_controls_the_terminal(hostile: str, printed: str):
    assert text.shown(hostile) == printed


@pytest.mark.parametrize(
    "url",
    ["host", "ftp://host", "http://", "http://host:99999", "http://u:p@host", "http://[::1", "http://a..b",
     "http://" + "a" * 64, "http://ex mple", "http://\x01host", "https://host/?q=1", "https://host/#f"],
)  # fmt: skip
def test_an_address_that_is_none_is_a_usage_error(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COUNTERSIGN_API_KEY", "k")
    ended = CliRunner().invoke(app, ["list", "--url", url])
    assert ended.exit_code == exits.USAGE
    assert ended.stderr.startswith("countersign: --url (COUNTERSIGN_URL) must be ")


def test_a_json_document_is_printable_ascii():
    assert re.fullmatch(r"[\x20-\x7e\n]*", text.document({"title": "\x1b\x7f\x9bü"}))


def test_each_terminal_state_has_a_code_of_its_own():
    assert set(exits.OF_STATE) == set(TERMINAL)
    others = [exits.REFUSED, exits.USAGE, exits.STILL_LIVE, exits.INTERRUPTED]
    assert len({*exits.OF_STATE.values(), *others}) == len(TERMINAL) + len(others)


def test_the_page_has_every_exit_code():
    table = PAGE.read_text().partition("## Exit codes")[2].partition("## ")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE))
    for state, code in exits.OF_STATE.items():
        assert f"`{state}`" in rows[str(code)]
    codes = {*exits.OF_STATE.values(), exits.REFUSED, exits.USAGE, exits.STILL_LIVE, exits.INTERRUPTED}
    assert set(rows) == {str(code) for code in codes}


def test_a_problem_is_one_line_with_advice_and_request_id():
    answer = {
        "type": "/problems/validation_failed",
        "title": "Not valid",
        "detail": "correct\nit",
        "errors": [{"pointer": "#/patch/vcpu", "detail": "above 0"}],
    }
    line = text.problem(answer, 422, "req_1")
    assert line == "Not valid; correct\\nit; #/patch/vcpu above 0 [422 validation_failed, request req_1]"


def test_a_problem_without_a_body_names_the_status():
    assert text.problem({}, 502, None) == "HTTP 502 [502]"


def test_the_workflow_is_short_and_uses_real_options():
    block = PAGE.read_text().partition("```yaml\n")[2].partition("```")[0]
    assert len(block.splitlines()) <= 40
    steps = yaml.safe_load(block)["jobs"]["deploy"]["steps"]
    words = shlex.split(next(step["run"] for step in steps if "countersign submit" in step.get("run", "")))
    command = typer.main.get_command(app).commands[words[1]]
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word for word in words[2:] if word.startswith("-")}
    assert used <= known
    assert {"--wait", "--cvm", "-c"} <= used


def test_the_page_names_commands_and_options_that_there_are():
    page = PAGE.read_text()
    commands = typer.main.get_command(app).commands
    described = set(re.findall(r"countersign ([a-z]+)", page)) - {"is"}  # the name of the program in a sentence
    own = {option for command in CLIENT for parameter in commands[command].params for option in parameter.opts}
    own |= {option for parameter in commands["list"].params for option in parameter.secondary_opts}

    assert described == CLIENT
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) <= own | {"--prepare-only", "--help"}


def test_help_of_a_client_command_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['countersign', 'status', '--help']\n"
        "from service.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('sqlalchemy', 'web3', 'celery', 'fastapi', 'httpx', 'service.wiring')\n"
        "print([one for one in heavy if one in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]", json.dumps(done.stdout)
