"""The page of faults is what the marks of the tests say, and a mark that says it wrongly is found."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import fault_docs
from scripts.fault_docs import GROUPS, Fault, FaultMarkError, faults_page, read_faults

MARK = '@pytest.mark.fault("people", "Somebody leaves", "another comes", "a day")'
TEST = f"import pytest\n\n\n{MARK}\ndef test_it():\n    assert True\n"


def _tests(root: Path, text: str, name: str = "tests/unit/test_made_up.py") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root


def test_the_projects_own_matrix_is_large_and_covers_every_group():
    faults = read_faults(fault_docs.ROOT)

    assert len(faults) >= 40
    assert {fault.group for fault in faults} == set(GROUPS)
    assert len({(fault.group, fault.breaks) for fault in faults}) == len(faults), "a fault has one row"


def test_a_row_has_the_words_of_its_mark_and_leads_to_its_test(tmp_path: Path):
    _tests(tmp_path, TEST)

    assert read_faults(tmp_path) == [
        Fault("people", "Somebody leaves", "another comes", "a day", "tests/unit/test_made_up.py", "test_it")
    ]
    assert faults_page(tmp_path).endswith(
        "## People\n\n| What breaks | What happens | How long | Proven by |\n| --- | --- | --- | --- |\n"
        "| Somebody leaves | another comes | a day | [`test_it`](../tests/unit/test_made_up.py) |\n"
    )


def test_a_test_of_a_class_may_prove_several(tmp_path: Path):
    marks = "".join(f"    {MARK.replace('Somebody', who)}\n" for who in ("The first", "The second"))
    _tests(tmp_path, f"class TestPeople:\n{marks}    def test_it(self):\n        assert True\n")

    assert [fault.breaks for fault in read_faults(tmp_path)] == ["The first leaves", "The second leaves"]


def test_groups_stand_in_their_order_whatever_the_files_are_called(tmp_path: Path):
    _tests(tmp_path, TEST, "tests/a/test_first.py")
    _tests(tmp_path, TEST.replace("people", "broker"), "tests/b/test_second.py")

    page = faults_page(tmp_path)
    assert page.index("## Broker") < page.index("## People")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TEST.replace('"people"', '"poeple"'), "4: 'poeple' is none of the groups"),
        (TEST.replace(', "a day"', ""), "4: a fault is four texts"),
        (TEST.replace('"a day"', '""'), "4: a fault is four texts"),
        (TEST.replace('"a day"', "14"), "4: a fault is four texts"),
        (TEST.replace('"a day"', 'f"{1} day"'), "4: a fault is four texts"),
        (TEST.replace('"a day"', 'how_long="a day"'), "4: a fault is four texts"),
        (TEST.replace("test_it", "it"), "4: a fault is marked on a test function"),
        (f"pytestmark = {MARK[1:]}\n", "1: a fault is marked on a test function"),
    ],
    ids=["group", "three", "empty", "number", "not literal", "keyword", "no test", "module"],
)
def test_a_mark_that_is_none_names_its_place(tmp_path: Path, text: str, told: str):
    _tests(tmp_path, text)

    with pytest.raises(FaultMarkError) as error:
        faults_page(tmp_path)
    assert str(error.value).startswith(f"tests/unit/test_made_up.py:{told}")


def test_a_project_without_marks_has_no_page(tmp_path: Path):
    _tests(tmp_path, "def test_it():\n    assert True\n")

    with pytest.raises(FaultMarkError, match="no test below"):
        faults_page(tmp_path)


def test_the_command_says_which_mark_is_wrong(tmp_path: Path):
    shutil.copytree(fault_docs.ROOT / "scripts", tmp_path / "scripts")
    _tests(tmp_path, TEST.replace("people", "poeple"))
    rooms = os.pathsep.join(map(str, (tmp_path, fault_docs.ROOT)))

    done = subprocess.run(
        [sys.executable, "-m", "scripts.generate_docs", "--check"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": rooms}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stderr.startswith("generate_docs: tests/unit/test_made_up.py:4: 'poeple' is none of the groups")
