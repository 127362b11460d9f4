"""The chain watch: what a new block costs whatever waits, and how soon a final approval is committed.

Run ``make bench BENCH=watch``; figures go to standard output and to ``var/bench/watch.json``. Three parts:

- ``pending``: calls, bytes and CPU of a look at a block that matches nothing of ours, by the number of change requests
  that wait, over as many apps as there are requests, at most 1,000, each with a Safe of its own.
- ``naive``: the same for one ``eth_call`` for each of them at each block.
- ``final_to_commit_ms``: from the block that makes an approval final to the commit at Phala Cloud, with every process
  and every rule on, by subscription and by polling, over one Safe. Blocks come every two seconds; ``crowded`` is by
  subscription with one block at the heels of the other, where each commit competes with what follows from those before.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from bench import _watch_commit, _watch_pending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPORT = Path("var/bench/watch.json")
MOST_CALLS, MOST_CPU_MS, MOST_CPU_RATIO = 2, 2.0, 1.25
MOST_P50_MS, MOST_P99_MS = 60.0, 250.0

Figures = dict[str, float]


def main() -> None:
    """Measure, print beside the targets, and write the report."""
    pending, naive = _watch_pending.measure()
    times = {way: _percentiles(values) for way, values in _watch_commit.measure().items()}
    report = {"pending": pending, "naive": naive, "final_to_commit_ms": times}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    _print_pending(pending, naive)
    _print_times(times)


def _percentiles(values: Sequence[float]) -> Figures:
    """Median and 99th percentile, the latter as the nearest rank: of 100 values or fewer, the highest."""
    ordered = sorted(values)
    rank = -(-99 * len(ordered) // 100)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p99": round(ordered[rank - 1], 1),
        "repetitions": len(ordered),
    }


def _print_pending(pending: Mapping[str, Figures], naive: Mapping[str, Figures]) -> None:
    print("A block that matches nothing of ours")
    print(f"{'pending':>8} {'calls':>6} {'bytes':>8} {'CPU ms':>8}   naive / ours: calls, bytes, CPU")
    keys = ("calls_per_block", "bytes_per_block", "cpu_ms_per_block")
    for number, ours in pending.items():
        calls, size, cpu = (ours[key] for key in keys)
        ratios = ", ".join(f"{naive[number][key] / ours[key]:,.1f}" for key in keys)
        print(f"{number:>8} {calls:>6g} {size:>8,.0f} {cpu:>8.2f}   {ratios}")
    most_calls = max(figures["most_calls_per_block"] for figures in pending.values())
    cpu = pending["10000"]["cpu_ms_per_block"]
    _print_target("most calls at any block", most_calls, MOST_CALLS)
    _print_target("CPU ms at 10,000", cpu, MOST_CPU_MS)
    _print_target("CPU at 10,000 by that at 1", cpu / pending["1"]["cpu_ms_per_block"], MOST_CPU_RATIO)


def _print_times(times: Mapping[str, Figures]) -> None:
    print("From the final block to the commit")
    for way, figures in times.items():
        repetitions = figures["repetitions"]
        print(f"{way:>13}: p50 {figures['p50']:,.1f} ms, p99 {figures['p99']:,.1f} ms of {repetitions:g}")
    _print_target("p50 ms by subscription", times["subscription"]["p50"], MOST_P50_MS)
    _print_target("p99 ms by subscription", times["subscription"]["p99"], MOST_P99_MS)


def _print_target(what: str, value: float, most: float) -> None:
    print(f"  {'met' if value <= most else 'MISSED'}: {what} {value:.2f}, target at most {most:g}")


if __name__ == "__main__":
    main()
