"""From the block that makes an approval final to the commit at Phala Cloud: real processes, all rules on."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from sandbox.chain.accounts import OWNERS
from sandbox.deployment import Deployment
from sandbox.polling import wait_for
from sandbox.processes import ProcessGroup
from sandbox.world import World

if TYPE_CHECKING:
    from sandbox.wallet import QueuedApproval

SUBSCRIBED, CROWDED, POLLED = 50, 30, 12
WARM_UP = 3
ALL = SUBSCRIBED + CROWDED + POLLED + WARM_UP
BLOCK_SECONDS = 2.0
"""As on Base."""
POLL_SECONDS = 2.0
DEPTH = 2
"""Confirmations of the local deployment."""

SETTINGS = {
    "COUNTERSIGN_SWEEP_SECONDS": "1",
    "COUNTERSIGN_OBSERVE_SECONDS": str(POLL_SECONDS),
    "COUNTERSIGN_SAFE_POLL_SECONDS": "60",
    "COUNTERSIGN_RECHECK_SECONDS": "600",
    "COUNTERSIGN_TRACK_SECONDS": "5",
    "COUNTERSIGN_WORKER_THREADS": "8",
}
"""The defaults, but for the polling."""

PATIENCE_SECONDS = 60.0
Json = dict[str, Any]


def measure() -> dict[str, list[float]]:
    """Milliseconds of each repetition, by how new blocks are heard of.

    ``subscription`` has blocks at the pace of a chain; ``crowded`` has them one at the heels of the other, so that each
    commit competes with what follows from those before.
    """
    with tempfile.TemporaryDirectory() as directory, ProcessGroup() as group:
        world = group.add(World(Path(directory) / "world", cvms=ALL, automine=True))
        world.mine_on_demand()
        deployment = group.add(
            Deployment(
                Path(directory) / "countersign",
                world,
                settings=SETTINGS,
                # All CVMs are of one app; what is measured is not how long Phala Cloud takes for the one before.
                workspace={"parallel_commits": ALL},
                keep_database=False,
            )
        )
        bench = _Bench(world, deployment)
        waiting = iter(bench.submit(world.setup.apps[0].cvm_uuids))
        for _ in range(WARM_UP):
            bench.seconds_to_commit(next(waiting))
        subscription = [bench.seconds_to_commit(next(waiting), after=BLOCK_SECONDS) for _ in range(SUBSCRIBED)]
        crowded = [bench.seconds_to_commit(next(waiting)) for _ in range(CROWDED)]
        bench.poll_from_now_on()
        polling = [
            bench.seconds_to_commit(request, after=POLL_SECONDS * (index + 0.5) / POLLED)
            for index, request in enumerate(waiting)
        ]
    seconds = {"subscription": subscription, "crowded": crowded, "polling": polling}
    return {name: [1000 * each for each in times] for name, times in seconds.items()}


class _Bench:
    def __init__(self, world: World, deployment: Deployment) -> None:
        self._world = world
        self._deployment = deployment
        self._api = httpx.Client(
            base_url=deployment.url, headers={"Authorization": f"Bearer {deployment.api_key}"}, timeout=70
        )

    def submit(self, cvms: tuple[str, ...]) -> list[Json]:
        """A change request for each CVM, signed by the owners; in the order of their nonces."""
        ids = [self._submit(cvm) for cvm in cvms]
        requests = [self._wait_for(each, "proposed") for each in ids]
        requests = [self._wait_until_queued(request) for request in requests]
        for request in requests:
            for owner in OWNERS[:2]:
                self._world.wallet.confirm(self._approval(request), owner)
        return sorted(requests, key=lambda request: int(request["approval"]["nonce"]))

    def poll_from_now_on(self) -> None:
        self._deployment.process("watch").stop()
        self._deployment.poll()
        self._deployment.start_process("watch")

    def seconds_to_commit(self, request: Json, *, after: float = 0.0) -> float:
        """Execute the approval and make it final; seconds from that block to the commit.

        The block before is read first; so many seconds after that comes the one that is measured.
        """
        self._world.wallet.execute(self._approval(request))
        self._wait_for(request["id"], "executed")
        for _ in range(DEPTH - 1):
            self._world.anvil.rpc("evm_mine")
        self._wait_until_read(int(self._world.anvil.rpc("eth_blockNumber"), 16))
        time.sleep(after)  # the pace of blocks, and where between two polls one falls, are what is measured
        final = time.time()
        self._world.anvil.rpc("evm_mine")
        return self._committed_at(request["cvm"]["vm_uuid"]) - final

    def _committed_at(self, vm_uuid: str) -> float:
        """When the commit arrived. Nobody waits at the API meanwhile: that would be another load on the two cores."""
        (commit,) = wait_for(lambda: self._world.phala.accepted_commits(vm_uuid), PATIENCE_SECONDS)
        return float(commit["at"])

    def _approval(self, request: Json) -> QueuedApproval:
        return self._world.wallet.get(request["approval"]["safe"], request["approval"]["safe_tx_hash"])

    def _submit(self, cvm: str) -> str:
        compose = f"services:\n  web:\n    image: nginx:1.29\n    environment:\n      RELEASE: '{cvm}'\n"
        answer = self._api.post("/v1/change-requests", json={"cvm_id": cvm, "patch": {"docker_compose_file": compose}})
        return str(answer.raise_for_status().json()["id"])

    def _read(self, request_id: str, **query: str | int) -> Json:
        answer: Json = self._api.get(f"/v1/change-requests/{request_id}", params=query).raise_for_status().json()
        return answer

    def _wait_for(self, request_id: str, *states: str) -> Json:
        deadline = time.monotonic() + PATIENCE_SECONDS
        request = self._read(request_id)
        while request["state"] not in states:
            assert time.monotonic() < deadline, request
            request = self._read(request_id, wait=5, state=request["state"])
        return request

    def _wait_until_read(self, head: int) -> None:
        def is_read() -> bool:
            (chain,) = self._api.get("/v1/chains").raise_for_status().json()["items"]
            return bool(chain["head_block"] == head)

        assert wait_for(is_read, PATIENCE_SECONDS), head

    def _wait_until_queued(self, request: Json) -> Json:
        def queued() -> Json | None:
            seen = self._read(request["id"])
            return seen if seen["approval"]["state"] == "queued" else None

        seen = wait_for(queued, PATIENCE_SECONDS)
        assert seen is not None, request
        return seen


if __name__ == "__main__":
    for name, times in measure().items():
        print(name, [round(each) for each in sorted(times)])
