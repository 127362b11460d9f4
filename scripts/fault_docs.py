"""What breaks, what happens then, and which test proves it: read from the marks of the tests, without running any.

A test that proves a fault says so, as often as it proves one::

    @pytest.mark.fault("broker", "Redis is away", "the API takes requests as ever", "until it is back")

The words are the group (one of ``GROUPS``), what breaks, what happens, and how long that takes, each a literal.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from typing_extensions import TypeIs

from scripts.markdown import code, table

ROOT: Final = Path(__file__).resolve().parents[1]

GROUPS: Final = (
    "database",
    "broker",
    "workers",
    "Phala Cloud",
    "Safe Transaction Service",
    "chain",
    "webhooks out",
    "webhooks in",
    "clients",
    "people",
)
"""Headings of ``docs/faults.md``, in this order."""

_INTRO: Final = (
    "What breaks around Countersign and what happens then. Every row is proven by the test it names, which carries the "
    "row's words; a test may prove several. *How long* is how long the fault lasts beyond its cause, or how long what "
    "happens takes: a lease is 15 s, the sweep looks every second, tries in a row are 1, 2, 5, 10, 20, 40 and then "
    "every 60 s apart."
)


class FaultMarkError(Exception):
    """A mark is not what the page needs; the message names its place."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the page. ``test`` is the name of the function that proves it, ``path`` its file below the root."""

    group: str
    breaks: str
    happens: str
    how_long: str
    path: str
    test: str


def faults_page(root: Path = ROOT) -> str:
    """The text of ``docs/faults.md``.

    Raises:
        FaultMarkError: a mark is malformed, or no test has any.
    """
    faults = read_faults(root)
    if not faults:
        raise FaultMarkError(f"no test below {root / 'tests'} is marked with pytest.mark.fault")
    parts = ["# Faults", _INTRO]
    for group in GROUPS:
        rows = [_row(fault) for fault in faults if fault.group == group]
        if rows:
            heading = group[0].upper() + group[1:]
            parts += [f"## {heading}", table(("What breaks", "What happens", "How long", "Proven by"), rows)]
    return "\n\n".join(parts) + "\n"


def _row(fault: Fault) -> Sequence[str]:
    return fault.breaks, fault.happens, fault.how_long, f"[{code(fault.test)}](../{fault.path})"


def read_faults(root: Path) -> list[Fault]:
    """The faults of all tests, by file and place in it.

    Raises:
        FaultMarkError: a mark is malformed.
    """
    files = sorted((root / "tests").rglob("test_*.py"))
    return list(chain.from_iterable(_faults_of(path, path.relative_to(root).as_posix()) for path in files))


def _faults_of(path: Path, name: str) -> Iterator[Fault]:
    text = path.read_text()
    if "mark.fault(" not in text:
        return
    nodes = list(ast.walk(ast.parse(text, name)))
    tests = {id(mark): node.name for node in nodes if _is_test(node) for mark in node.decorator_list}
    marks = (node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault")
    for mark in sorted(marks, key=lambda mark: mark.lineno):
        if id(mark) not in tests:
            raise FaultMarkError(f"{name}:{mark.lineno}: a fault is marked on a test function")
        yield _fault(tests[id(mark)], mark, name)


def _is_test(node: ast.AST) -> TypeIs[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def _fault(test: str, mark: ast.Call, path: str) -> Fault:
    place = f"{path}:{mark.lineno}"
    try:
        words = [ast.literal_eval(word) for word in mark.args]
    except ValueError:
        words = []
    if mark.keywords or len(words) != 4 or not all(isinstance(word, str) and word for word in words):  # noqa: PLR2004 - the words of the docstring
        raise FaultMarkError(f"{place}: a fault is four texts: group, what breaks, what happens, how long")
    group, breaks, happens, how_long = words
    if group not in GROUPS:
        raise FaultMarkError(f"{place}: {group!r} is none of the groups {', '.join(GROUPS)}")
    return Fault(group, breaks, happens, how_long, path, test)
