"""CPU, calls and bytes of a look at a new block that matches nothing of ours, whatever the number that wait."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import SecretStr
from sqlalchemy import delete, insert
from web3 import Web3

from sandbox.anvil import Anvil
from sandbox.chain.accounts import DEPLOYER
from sandbox.postgres import EmbeddedPostgres
from service.adapters.chain import JsonRpcChain
from service.adapters.clock import SystemClock
from service.domain.actors import Actor
from service.domain.chain import TOPICS, FactKind
from service.domain.finality import Confirmations
from service.domain.hexes import address as checksummed
from service.domain.snapshots import Intake, ProposalState
from service.domain.states import State
from service.store import migrate, observations, workspaces
from service.store.database import IDLE_SECONDS, Database, make_engine
from service.store.leases import LeaseKeeper
from service.store.sealing import Sealer
from service.store.tables import ChainCursor, ChangeRequest, Proposal
from service.wiring import Timings, WorkerParts
from workers import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

PENDING = (1, 100, 1_000, 10_000)
MOST_APPS = 1_000
BLOCKS = 100
WARM_UP = 20
ROUNDS = 3
FOREIGN = 20
"""Contracts of others; each emits one log in every block: the first an event of a DstackApp, the others transfers."""

NAIVE_SAMPLE = 300
# CALLDATACOPY(0, 32, 32); LOG1(0, 32, CALLDATALOAD(0)): emits the second word under the topic of the first.
EMITTER = "0x6020602060003760003560206000a100"
HASH_ADDED = next(topic for topic, kind in TOPICS.items() if kind is FactKind.HASH_ADDED)
TRANSFER = "0x" + Web3.keccak(text="Transfer(address,address,uint256)").hex().removeprefix("0x")
ALLOWED_HASHES = "0x" + Web3.keccak(text="allowedComposeHashes(bytes32)")[:4].hex().removeprefix("0x")

Figures = dict[str, float]


class CountingTransport(httpx.BaseTransport):
    """The network, with its requests and the bytes of heads and bodies counted."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()
        self.calls = 0
        self.bytes = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        self.calls += 1
        self.bytes += _head(request.headers) + len(request.content) + _head(response.headers)
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = _CountedStream(response.stream, self)
        return response

    def close(self) -> None:
        self._inner.close()


class _CountedStream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream, counter: CountingTransport) -> None:
        self._inner = inner
        self._counter = counter

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            self._counter.bytes += len(chunk)
            yield chunk

    def close(self) -> None:
        self._inner.close()


def _head(headers: httpx.Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers.raw)


@dataclass(frozen=True, slots=True)
class Bed:
    """What is measured on: a migrated PostgreSQL, a chain of one block a call, and a worker without a broker."""

    anvil: Anvil
    database: Database
    transport: CountingTransport
    parts: WorkerParts
    workspace_id: str
    emitters: tuple[str, ...]
    miner: httpx.Client

    def mine(self, block: int) -> None:
        """One block, in which each foreign contract emits a log."""
        topics = [HASH_ADDED, *[TRANSFER] * (len(self.emitters) - 1)]
        calls = [
            (
                "eth_sendTransaction",
                [{"from": DEPLOYER.address, "to": to, "data": topic + f"{block:064x}", "gas": hex(60_000)}],
            )
            for to, topic in zip(self.emitters, topics, strict=True)
        ]
        batch = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": params}
            for index, (method, params) in enumerate([*calls, ("evm_mine", [])])
        ]
        answers = self.miner.post(self.anvil.rpc_url, json=batch).json()
        assert not any("error" in answer for answer in answers), answers


def _parts(database: Database, chain: JsonRpcChain) -> WorkerParts:
    unused: Any = None
    return WorkerParts(
        database=database,
        clock=SystemClock(),
        keeper=LeaseKeeper(database),
        chains={chain.chain_id: chain},
        queues={},
        signer=unused,
        poster=unused,
        phala=unused,
        timings=Timings(observe=5, safe_poll=60, recheck=600, track=5),
    )


def measure() -> tuple[dict[str, Figures], dict[str, Figures]]:
    """Ours and the naive way, each by the number of change requests that wait."""
    with tempfile.TemporaryDirectory() as directory, Anvil() as anvil:
        server = EmbeddedPostgres(Path(directory) / "postgres").start()
        try:
            return _measure_on(anvil, server.ensure_database("bench"))
        finally:
            server.destroy()


def _measure_on(anvil: Anvil, database_url: str) -> tuple[dict[str, Figures], dict[str, Figures]]:
    migrate.upgrade(database_url)
    sealer = Sealer({"k1": b"k" * 32}, b"f" * 32)
    database = Database(make_engine(database_url, idle_seconds=IDLE_SECONDS), sealer)
    transport = CountingTransport()
    chain = JsonRpcChain(anvil.chain_id, [anvil.rpc_url], Confirmations(2), transport=transport)
    workspace = workspaces.save(
        database,
        workspaces.WorkspaceSpec(
            slug="bench", phala_base_url="https://cloud.example/api/v1", phala_api_key=SecretStr("key"), safes=[]
        ),
        Actor.operator("bench", "localhost"),
    )
    emitters = tuple(checksummed(f"0x{0xF0_0000 + number:040x}") for number in range(FOREIGN))
    for emitter in emitters:
        anvil.rpc("anvil_setCode", [emitter, EMITTER])
    anvil.rpc("evm_setAutomine", [False])
    miner = httpx.Client(timeout=30)
    bed = Bed(anvil, database, transport, _parts(database, chain), workspace, emitters, miner)
    observations.ensure_chains(database, [anvil.chain_id])
    ours, naive = {}, {}
    for pending in PENDING:
        _fill(bed, pending)
        ours[str(pending)] = _look_after_look(bed)
        naive[str(pending)] = _poll_each(anvil, pending)
    miner.close()
    chain.close()
    database.engine.dispose()
    return ours, naive


def _fill(bed: Bed, pending: int) -> None:
    """So many change requests in ``proposed``, over at most 1,000 apps."""
    now = datetime.now(UTC)
    proposals, requests = [], []
    for number in range(pending):
        app = checksummed(f"0x{0xA0_0000 + number % MOST_APPS:040x}")
        identity = {
            "workspace_id": bed.workspace_id,
            "chain_id": bed.anvil.chain_id,
            "app_contract": app,
            "compose_hash": f"0x{number:064x}",
        }
        due_at = now + timedelta(days=1)
        proposals.append(
            {
                **identity,
                "id": f"prop_{number}",
                "state": ProposalState.QUEUED.value,
                "devices": [],
                "safe": app,
                "due_at": due_at,
            }
        )
        requests.append(
            {
                **identity,
                "id": f"cr_{number}",
                "state": State.PROPOSED.value,
                "state_entered_at": now,
                "intake": Intake.PATCH.value,
                "cvm_id": f"cvm-{number}",
                "vm_uuid": f"00000000-0000-4000-8000-{number:012}",
                "device_id": "0x" + "de" * 32,
                "patch": {"vcpu": 2},
                "commit_token_sealed": b"sealed",
                "commit_token_fingerprint": number.to_bytes(32),
                "proposal_id": f"prop_{number}",
                "deadline_at": now + timedelta(days=30),
                "created_at": now,
                "updated_at": now,
                "due_at": due_at,
            }
        )
    with bed.database.transaction() as session:
        session.execute(delete(ChangeRequest))
        session.execute(delete(Proposal))
        session.execute(insert(Proposal), proposals)
        session.execute(insert(ChangeRequest), requests)
    with bed.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def _look_after_look(bed: Bed) -> Figures:
    """The quietest of some rounds, as for the naive way: what else the machine does only adds to the CPU of a look."""
    rounds = [_round(bed) for _ in range(ROUNDS)]
    best = min(rounds, key=lambda figures: figures["cpu_ms_per_block"])
    return {**best, "most_calls_per_block": max(figures["most_calls_per_block"] for figures in rounds)}


def _round(bed: Bed) -> Figures:
    calls, sizes, cpu = [], [], []
    for block in range(WARM_UP + BLOCKS):
        bed.mine(block)
        observations.ring_chain(bed.database, bed.anvil.chain_id)
        bed.transport.calls = bed.transport.bytes = 0
        started = time.process_time()
        applied = serve.serve_chain(bed.parts, bed.anvil.chain_id)
        spent = time.process_time() - started
        assert not applied.rung
        if block >= WARM_UP:
            calls.append(bed.transport.calls)
            sizes.append(bed.transport.bytes)
            cpu.append(1000 * spent)
    _check_observed(bed)
    return {
        "calls_per_block": statistics.median(calls),
        "bytes_per_block": statistics.median(sizes),
        "cpu_ms_per_block": statistics.median(cpu),
        "most_calls_per_block": max(calls),
    }


def _check_observed(bed: Bed) -> None:
    with bed.database.transaction() as session:
        row = session.get_one(ChainCursor, bed.anvil.chain_id)
        assert (row.head_number, row.detail) == (int(bed.anvil.rpc("eth_blockNumber"), 16), None)


def _poll_each(anvil: Anvil, pending: int) -> Figures:
    """One ``eth_call`` for each that waits, at each block, as web3.py makes it."""
    sampled = min(pending, NAIVE_SAMPLE)
    web3 = Web3(Web3.HTTPProvider(anvil.rpc_url))
    web3.eth.get_block_number()
    app = checksummed(f"0x{0xF0_0000:040x}")
    call: Any = {"to": app, "data": ALLOWED_HASHES + "00" * 32}
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(sampled):
            web3.eth.call(call)
        rounds.append(time.process_time() - started)
    spent = min(rounds)
    scale = pending / sampled
    return {
        "calls_per_block": pending,
        "bytes_per_block": pending * _exchange_bytes(anvil, call),
        "cpu_ms_per_block": 1000 * spent * scale,
    }


def _exchange_bytes(anvil: Anvil, call: dict[str, str]) -> int:
    body = {"jsonrpc": "2.0", "method": "eth_call", "params": [call, "latest"], "id": 0}
    answer = httpx.post(anvil.rpc_url, json=body)
    sent = _head(answer.request.headers) + len(answer.request.content)
    return sent + _head(answer.headers) + len(answer.content)


if __name__ == "__main__":
    for name, figures in zip(("ours", "naive"), measure(), strict=True):
        print(name)
        for pending, values in figures.items():
            print(pending, {key: round(value, 3) for key, value in values.items()})
