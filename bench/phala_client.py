"""The Phala Cloud client: calls on a reused connection, and the compose hash, each beside the plain way in one run.

Run ``python -m bench.phala_client``; figures go to standard output and to ``var/bench/phala_client.json``.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench._local_server import other_process
from service.phala import PhalaCloud, compose_hash

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

REPORT = Path("var/bench/phala_client.json")
ROUNDS = 5
ANSWER = json.dumps(
    {
        "id": "cvm_0123abcd",
        "name": "my-app",
        "status": "running",
        "vm_uuid": "01234567-89ab-4def-8123-456789abcdef",
        "kms_info": {"chain_id": 8453, "dstack_app_address": "0x09cef33ca9c6e4f2b1d5a7c3e8f0b2a4d6e8f1c3"},
        "compose_hash": "ff" * 32,
        "compose_file": {"docker_compose_file": "services:\n" + "  # filler\n" * 100},
    }
).encode()


def _answer(connection: socket.socket) -> None:
    """Answer every request alike."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n".encode()
    while connection.recv(65536):  # a GET of this client fits into one segment
        connection.sendall(head + ANSWER)


def per_second(work: Callable[[], object], times: int) -> float:
    """Median over the rounds."""
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(times):
            work()
        rates.append(times / (time.perf_counter() - started))
    return statistics.median(rates)


def calls() -> dict[str, float]:
    with (
        other_process(_answer) as server,
        PhalaCloud("phak_bench", f"{server}/api/v1") as one,
        httpx.Client(trust_env=False) as bare,
    ):
        assert one.get_cvm_info(id="my-app").compose_hash == "ff" * 32

        def new_client() -> None:
            with PhalaCloud("phak_bench", f"{server}/api/v1") as fresh:
                fresh.get_cvm_info(id="my-app")

        reused = per_second(lambda: one.get_cvm_info(id="my-app"), 600)
        naive = per_second(new_client, 30)
        floor = per_second(lambda: bare.get(f"{server}/api/v1/cvms/my-app").json(), 600)
    return {
        "reused_client_calls_per_s": reused,
        "new_client_per_call_calls_per_s": naive,
        "bare_httpx_client_calls_per_s": floor,
        "reused_over_new": reused / naive,
        "reused_over_bare_httpx": reused / floor,
    }


def documents() -> dict[str, dict[str, Any]]:
    """Two documents of 200 KB: what deployments have (one long text), and the worst case (very many members)."""
    text = {"name": "my-app", "runner": "docker-compose", "docker_compose_file": '  image: "nginx"\n' * 10_000}
    members = {
        "name": "my-app",
        "runner": "docker-compose",
        "x": [{"image": f"nginx:{n}", "port": n} for n in range(5_800)],
    }
    return {"long_text": text, "many_members": members}


def plain_hash(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hashes() -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, document in documents().items():
        assert compose_hash(document) == plain_hash(document)
        size = len(json.dumps(document))
        assert 195_000 < size < 225_000, size
        ours = 1000 / per_second(lambda document=document: compose_hash(document), 30)
        plain = 1000 / per_second(lambda document=document: plain_hash(document), 30)
        figures |= {
            f"hash_{name}_ms": ours,
            f"hash_{name}_json_dumps_ms": plain,
            f"hash_{name}_over_json_dumps": ours / plain,
        }
    return figures


def main() -> None:
    figures = {name: round(value, 3) for name, value in (calls() | hashes()).items()}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(figures, indent=2) + "\n")
    for name, value in figures.items():
        print(f"{name:44} {value:>12,.3f}")


if __name__ == "__main__":
    main()
