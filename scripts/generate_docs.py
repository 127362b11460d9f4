"""Writes the parts of the documentation that the code already says.

``python -m scripts.generate_docs`` brings them up to date; with ``--check`` it only says whether they are. A part
stands between ``<!-- generated: <name> -->`` and ``<!-- /generated -->``; some files are generated as a whole.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts import fault_docs, flow_docs, settings_docs

ROOT: Final = Path(__file__).resolve().parents[1]
COMMAND: Final = "python -m scripts.generate_docs"
NOTE: Final = f"Written by `{COMMAND}`; do not edit."

PARTS: Final[Mapping[str, Mapping[str, Callable[[], str]]]] = {
    "docs/architecture.md": {
        "state diagram": flow_docs.state_diagram,
        "states": flow_docs.state_table,
        "edges": flow_docs.edge_table,
        "proposal states": flow_docs.proposal_table,
    },
    "docs/operations.md": {"actors": flow_docs.actor_table, "acts": flow_docs.act_table},
    "docs/settings.md": {
        "settings": settings_docs.settings_table,
        "needed": settings_docs.needed_table,
        "chain members": settings_docs.chain_table,
        "chains example": settings_docs.chains_example,
    },
    "docs/webhooks.md": {
        "events": flow_docs.event_table,
        "alerts": flow_docs.alert_table,
        "retries": flow_docs.retry_table,
    },
}
WHOLE: Final[Mapping[str, Callable[[], str]]] = {
    "docs/faults.md": lambda: f"<!-- {NOTE} -->\n\n{fault_docs.faults_page()}",
    "docs/reasons.md": lambda: f"<!-- {NOTE} -->\n\n{flow_docs.reasons_page()}",
    ".env.example": lambda: f"# {NOTE}\n{settings_docs.env_example()}",
}

_PART = re.compile(r"(<!-- generated: (?P<name>[^>]*?) -->\n)(?P<body>.*?)(\n?<!-- /generated -->)", re.DOTALL)


class DocsError(Exception):
    """A file cannot be generated; the message names it and says why."""


def generated(root: Path) -> dict[str, str]:
    """The text that each file should have, by path below ``root``.

    Raises:
        DocsError: a file is missing, its markers are not those of ``PARTS``, or a fault is not marked as it should be.
    """
    try:
        texts = {name: render() for name, render in WHOLE.items()}
    except fault_docs.FaultMarkError as error:
        raise DocsError(str(error)) from error
    for name, parts in PARTS.items():
        try:
            texts[name] = _filled(name, (root / name).read_text(), parts)
        except FileNotFoundError:
            raise DocsError(f"{name} does not exist") from None
    return texts


def _filled(name: str, text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    marked = [match["name"] for match in _PART.finditer(text)]
    if sorted(marked) != sorted(parts):
        raise DocsError(f"{name} has the markers {marked}, it should have each of {list(parts)} once")
    return _PART.sub(lambda match: f"{match[1]}{parts[match['name']]()}\n<!-- /generated -->", text)


def stale(root: Path) -> list[str]:
    """Files that differ from what should be generated, missing ones included.

    Raises:
        DocsError: as ``generated``.
    """
    return [name for name, text in generated(root).items() if not _has(root / name, text)]


def _has(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def write(root: Path) -> list[str]:
    """Bring every file up to date; the names of those that changed.

    Raises:
        DocsError: as ``generated``; nothing was written.
    """
    texts = generated(root)
    changed = [name for name, text in texts.items() if not _has(root / name, text)]
    for name in changed:
        (root / name).write_text(texts[name])
    return changed


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command; the exit code: 0, with ``--check`` 1 if a file is out of date, 2 if one cannot be generated."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="only say which files are out of date; exit code 1 if any")
    check = parser.parse_args(arguments).check
    try:
        names = stale(root) if check else write(root)
    except DocsError as error:
        sys.stderr.write(f"generate_docs: {error}\n")
        return 2
    for name in names:
        out = sys.stderr if check else sys.stdout
        out.write(f"{name} is out of date: run `{COMMAND}`\n" if check else f"wrote {name}\n")
    return 1 if check and names else 0


if __name__ == "__main__":
    sys.exit(main())
