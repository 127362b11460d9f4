"""What readers copy from the documentation works, and what it enumerates is complete."""

import json
import os
import re
import subprocess
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.domain.audit import GENESIS, Entry, moment, with_hashes
from service.domain.patch import HASH_MOVING
from service.domain.reasons import Reason
from service.domain.states import State
from service.domain.webhook_signature import headers
from service.phala.two_phase import PATCH_MEMBERS
from service.workspace_file import read

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
EVENT_ID = "evt_01980f3ac5e97f1b2c3d4e5f60718294"


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def _first_column(page: str) -> set[str]:
    """Codes in the first cells of the tables of a page."""
    cells = re.findall(r"^\| ([^|]+) \|", (DOCS / page).read_text(), flags=re.MULTILINE)
    return {code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)}


def _body() -> bytes:
    (sample,) = _blocks("webhooks.md", "json")
    return json.dumps(json.loads(sample), separators=(",", ":")).encode()


def test_the_python_receiver_takes_a_signed_event_and_refuses_a_forged_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COUNTERSIGN_WEBHOOK_SECRET", SECRET)
    (example,) = _blocks("webhooks.md", "python")
    names: dict[str, object] = {}
    exec(compile(example, "webhooks.md", "exec"), names)  # noqa: S102 - the documentation's own example
    handle = names["handle"]
    assert callable(handle)
    body, now = _body(), int(time.time())
    signed = headers(SECRET, EVENT_ID, now, body)
    late = headers(SECRET, EVENT_ID, now - 600, body)

    assert handle(signed, body) == 204
    assert capsys.readouterr().out == "cr_01980f3ac5e97f1b2c3d4e5f60718293 proposed\n"
    assert handle(signed, body) == 204  # once more: nothing new
    assert capsys.readouterr().out == ""
    assert handle(signed, body.replace(b"proposed", b"completed")) == 400
    assert handle(late, body) == 400
    assert handle({**signed, "webhook-signature": "v1,no base64"}, body) == 400
    assert handle({**signed, "webhook-signature": "nonsense"}, body) == 400
    assert handle({}, body) == 400


@pytest.mark.node
def test_the_javascript_receiver_takes_a_signed_event_and_refuses_a_forged_one():
    (example,) = _blocks("webhooks.md", "js")
    body, now = _body(), int(time.time())
    signed = headers(SECRET, EVENT_ID, now, body)
    forged = headers(SECRET, EVENT_ID, now, body + b" ")
    late = headers(SECRET, EVENT_ID, now - 600, body)
    cases = [signed, signed, forged, late, {**signed, "webhook-signature": "nonsense"}, {}]
    script = (
        f"{example}\nconst body = {json.dumps(body.decode())};\n"
        f"for (const headers of {json.dumps(cases)}) console.log(handle(headers, body));\n"
        f"console.log(handle({json.dumps(signed)}, Buffer.from(body)));\n"
    )

    done = subprocess.run(
        ["node", "--input-type=module"],
        input=script, cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "COUNTERSIGN_WEBHOOK_SECRET": SECRET},
    )  # fmt: skip

    assert done.stderr == ""
    assert done.stdout.split("\n") == [
        "cr_01980f3ac5e97f1b2c3d4e5f60718293 proposed", "204", "204", "400", "400", "400", "400", "204", "",
    ]  # fmt: skip


def test_the_workspace_file_is_accepted():
    (example,) = _blocks("operations.md", "json")

    spec = read(example, {})

    assert spec.slug == "acme"
    assert spec.safes == [(8453, "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359")]
    assert (spec.deadline_seconds, spec.run_deadline_seconds) == (30 * 86400, 3600)
    described = _first_column("operations.md")
    assert json.loads(example).keys() <= described


def test_the_hash_of_an_exported_event_is_computed_as_the_page_says():
    (example,) = _blocks("operations.md", "python")
    names: dict[str, object] = {}
    exec(compile(example, "operations.md", "exec"), names)  # noqa: S102 - the documentation's own example
    hash_of = names["hash_of"]
    assert callable(hash_of)
    body = '{"type":"change_request.alert","data":{"message":"Schlüssel \\u0001 \u2028 😀 ,\\"previous_hash\\":"}}'
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    actor, origin = {"kind": "api_key", "id": "key_1", "name": "é", "owners": []}, {"ip": "192.0.2.1"}
    entry = Entry("evt_1", "ws_1", None, 1, "api_key.created", None, at, actor, origin, body)
    own = entry.digest(GENESIS)
    members = {name: getattr(entry, name) for name in entry.__slots__}
    line = {
        "cursor": "1.1", **members, "created_at": moment(at), "body": with_hashes(body, GENESIS, own),
        "previous_hash": GENESIS, "hash": own,
    }  # fmt: skip

    assert hash_of(json.dumps(line)) == own
    assert hash_of(json.dumps({**line, "seq": 2})) != own


def test_every_reason_has_a_line_in_the_troubleshooting_and_in_its_own_page():
    reasons = {reason.value for reason in Reason}

    assert reasons <= _first_column("operations.md")
    assert reasons == _first_column("reasons.md")


def test_the_user_guide_explains_every_state_and_every_member_of_a_patch():
    explained = _first_column("user-guide.md")

    assert {state.value for state in State} <= explained
    assert set(PATCH_MEMBERS) <= explained


def test_the_user_guide_says_which_members_move_the_compose_hash():
    guide = (DOCS / "user-guide.md").read_text()
    moving = {
        member
        for names in re.findall(r"^\| ([^|]+) \| yes \|", guide, flags=re.MULTILINE)
        for member in re.findall(r"`([a-z_]+)`", names)
    }

    assert moving == HASH_MOVING


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} does not exist"
        assert not anchor or anchor in _anchors(linked), f"{target} has no such heading"
