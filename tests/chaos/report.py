"""What a run says: a table of faults and invariants for people, a summary for machines."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

SUMMARY: Final = Path("var/chaos.json")
_SHOWN: Final = 5


def faults_table(faults: Iterable[tuple[str, str]]) -> str:
    """How often each (target, kind) was brought about."""
    counts = Counter(faults)
    lines = [f"  {target:<14} {kind:<28} {count:>4}" for (target, kind), count in sorted(counts.items())]
    return "\n".join(["faults injected:", *lines])


def invariants_table(violations: Mapping[str, Sequence[str]]) -> str:
    """Each invariant, whether it held, and the first that say it did not."""
    lines = ["invariants:"]
    for name, found in violations.items():
        lines.append(f"  {name.replace('_', ' '):<56} {f'{len(found)} VIOLATIONS' if found else 'held'}")
        lines += [f"      {one}" for one in found[:_SHOWN]]
    return "\n".join(lines)


def total(violations: Mapping[str, Sequence[str]]) -> int:
    """How many violations there are."""
    return sum(len(found) for found in violations.values())


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Store the summary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=2, default=str) + "\n")
