"""The generated parts of the documentation follow the code, and the check finds those that do not."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import generate_docs
from scripts.flow_docs import state_diagram
from service.domain.states import EDGES, HOLDS_CVM

FILES = sorted({*generate_docs.PARTS, *generate_docs.WHOLE})


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A copy of the documentation, up to date."""
    for name in generate_docs.PARTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(generate_docs.ROOT / name, tmp_path / name)
    assert generate_docs.main([], root=tmp_path) == 0
    return tmp_path


def test_the_projects_own_documentation_is_up_to_date():
    done = subprocess.run(
        [sys.executable, "-m", "scripts.generate_docs", "--check"],
        cwd=generate_docs.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")


def test_check_passes_on_fresh_files_and_writes_nothing(fresh: Path, capsys: pytest.CaptureFixture[str]):
    before = {name: (fresh / name).stat().st_mtime_ns for name in FILES}
    capsys.readouterr()

    assert generate_docs.main(["--check"], root=fresh) == 0
    assert capsys.readouterr() == ("", "")
    assert {name: (fresh / name).stat().st_mtime_ns for name in FILES} == before


@pytest.mark.parametrize("name", FILES)
def test_check_fails_on_a_stale_file_and_names_it_and_the_command(
    fresh: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    path = fresh / name
    current = path.read_text()
    marker = re.search(r"<!-- generated: [^>]* -->\n", current)
    at = marker.end() if marker else len(current)
    stale = current[:at] + "an old line\n" + current[at:]
    path.write_text(stale)
    capsys.readouterr()

    assert generate_docs.main(["--check"], root=fresh) == 1
    said = capsys.readouterr().err
    assert said == f"{name} is out of date: run `python -m scripts.generate_docs`\n"
    assert path.read_text() == stale

    assert generate_docs.main([], root=fresh) == 0
    assert path.read_text() == current


@pytest.mark.parametrize("name", sorted(generate_docs.WHOLE))
def test_a_file_that_is_missing_is_stale(fresh: Path, name: str):
    (fresh / name).unlink()

    assert generate_docs.stale(fresh) == [name]
    assert generate_docs.main(["--check"], root=fresh) == 1


def test_what_is_written_by_hand_stays(fresh: Path):
    path = fresh / "docs/webhooks.md"
    path.write_text(path.read_text() + "\nOne more sentence.\n")

    assert generate_docs.stale(fresh) == []
    generate_docs.write(fresh)
    assert path.read_text().endswith("\nOne more sentence.\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<!-- generated: retries -->", ""),
        ("<!-- generated: retries -->", "<!-- generated: retires -->"),
        ("<!-- generated: retries -->", "<!-- generated: events -->\n<!-- /generated -->\n<!-- generated: retries -->"),
    ],
    ids=["missing", "misspelt", "twice"],
)
def test_wrong_markers_are_an_error_that_writes_nothing(
    fresh: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
):
    path = fresh / "docs/webhooks.md"
    broken = path.read_text().replace(old, new)
    path.write_text(broken)
    (fresh / ".env.example").unlink()

    assert generate_docs.main([], root=fresh) == 2
    assert capsys.readouterr().err.startswith("generate_docs: docs/webhooks.md has the markers ")
    assert path.read_text() == broken
    assert not (fresh / ".env.example").exists()


def test_a_page_that_is_missing_is_an_error(fresh: Path, capsys: pytest.CaptureFixture[str]):
    (fresh / "docs/settings.md").unlink()

    assert generate_docs.main(["--check"], root=fresh) == 2
    assert capsys.readouterr().err == "generate_docs: docs/settings.md does not exist\n"


def test_the_diagram_has_every_edge_once():
    arrows = re.findall(r"^ *(\w+) --> (\w+) : ([^\n]+)$", state_diagram(), flags=re.MULTILINE)
    sources = {"before_commit": [state.value for state in HOLDS_CVM]}
    drawn = sorted((source, target) for origin, target, _ in arrows for source in sources.get(origin, [origin]))

    assert drawn == sorted((edge.source.value, edge.target.value) for edge in EDGES)


def test_labels_of_the_diagram_hold_nothing_that_mermaid_ends_a_label_at():
    labels = re.findall(r" --> \w+ : ([^\n]+)", state_diagram())

    assert labels
    assert [label for label in labels if set(label) & set(":;")] == []
