"""What flow tests do with a running Countersign and its world, in the words of its users."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg
import redis
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from sandbox.chain.accounts import OUTSIDER, OWNERS
from sandbox.chain.local import encode_call
from sandbox.chain.safes import approve_and_execute
from sandbox.deployment import PROCESSES, WORKSPACE, Deployment, webhook_secret
from sandbox.polling import wait_for
from sandbox.processes import ManagedProcess
from sandbox.receiver import Receiver
from sandbox.wallet import QueuedApproval
from sandbox.world import App, World
from service.phala import PhalaCloud
from service.phala.models.updates import PatchPrepared
from tests.support.otlp import Collector

ENDED = frozenset({"completed", "rejected", "expired", "superseded", "cancelled", "failed"})
Json = dict[str, Any]


_PATIENCE_SECONDS = 70
"""Of whoever asks a process for something: on a busy machine an answer takes what it takes."""


def _metrics(url: str) -> bytes:
    return httpx.get(url, trust_env=False, timeout=_PATIENCE_SECONDS).raise_for_status().content


class Stack:
    """A release engineer, the Safe's owners and an operator before one deployment."""

    def __init__(self, world: World, deployment: Deployment, receiver: Receiver, collector: Collector) -> None:
        self.world = world
        self.deployment = deployment
        self.receiver = receiver
        self.collector = collector
        self.client = httpx.Client(
            base_url=deployment.url,
            headers={"Authorization": f"Bearer {deployment.api_key}"},
            timeout=_PATIENCE_SECONDS,
        )
        self.safe_service = httpx.Client(base_url=world.safe_service_url, timeout=_PATIENCE_SECONDS)
        self.safe_faults = httpx.Client(base_url=f"{world.safe_service_url}/_sandbox", timeout=_PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in (self.client, self.safe_service, self.safe_faults):
            client.close()

    # The release engineer

    def submit(self, cvm: str, compose: str, **members: Any) -> str:
        answer = self.post(cvm_id=cvm, patch={"docker_compose_file": compose}, **members)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def post(self, **body: Any) -> httpx.Response:
        return self.client.post("/v1/change-requests", json=body)

    def prepare_elsewhere(self, cvm: str, compose_file: str) -> Json:
        """Prepare an update as the CLI does, and answer what its ``--json`` prints."""
        with PhalaCloud(api_key=self.world.setup.phala_api_key, base_url=self.world.phala_url) as phala:
            prepared = phala.patch_cvm(id=cvm, docker_compose_file=compose_file, prepare_only=True)
        assert isinstance(prepared, PatchPrepared)
        assert prepared.commit_token is not None
        assert prepared.api_commit_url is not None
        return {
            "success": True,
            "prepare_only": True,
            "compose_hash": "0x" + prepared.compose_hash.removeprefix("0x"),
            "app_id": to_checksum_address("0x" + prepared.app_id.removeprefix("0x")),
            "device_id": prepared.device_id,
            "chain_id": prepared.kms_info.chain_id,
            "commit_token": prepared.commit_token.get_secret_value(),
            "api_commit_url": prepared.api_commit_url.get_secret_value(),
        }

    def get(self, request_id: str) -> Json:
        answer = self.client.get(f"/v1/change-requests/{request_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, request_id: str) -> list[Json]:
        answer = self.client.get(f"/v1/change-requests/{request_id}/events", params={"limit": 100})
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    def event_names(self, request_id: str) -> list[str]:
        return [event["type"].removeprefix("change_request.") for event in self.events(request_id)]

    def wait_for(self, request_id: str, *states: str, seconds: float = 60) -> Json:
        """The representation once it is in one of the states; fails when it ends in another or takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            request = self.get(request_id)
            if request["state"] in states:
                return request
            assert request["state"] not in ENDED, request["reason"]
            left = deadline - time.monotonic()
            assert left > 0, f"still {request['state']}: {request['reason']}"
            self.client.get(
                f"/v1/change-requests/{request_id}", params={"wait": min(left, 5), "state": request["state"]}
            )

    def wait_until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Ask a condition of the outside until it holds."""
        assert wait_for(condition, seconds), "the condition did not come true in time"

    # The owners

    def approval(self, request_id: str) -> QueuedApproval:
        request = self.get(request_id)
        return self.world.wallet.get(request["approval"]["safe"], request["approval"]["safe_tx_hash"])

    def sign(self, request_id: str, owners: int = 2) -> QueuedApproval:
        approval = self.approval(request_id)
        for owner in OWNERS[:owners]:
            self.world.wallet.confirm(approval, owner)
        return self.world.wallet.get(approval.safe, approval.safe_tx_hash)

    def execute(self, approval: QueuedApproval) -> str:
        """Execute it, mining the block that holds it when mining is held."""
        return self.world.wallet.execute(approval)

    def reject(self, request_id: str) -> None:
        """Execute an empty transaction of the Safe to itself at the approval's nonce, proposed like any other."""
        approval = self.approval(request_id)
        self.world.wallet.propose_rejection(approval, OWNERS[0])
        (rejection,) = [
            one
            for one in self.world.wallet.pending(approval.safe, approval.tx.nonce)
            if one.tx.to == approval.safe and one.tx.nonce == approval.tx.nonce
        ]
        self.world.wallet.confirm(rejection, OWNERS[1])
        self.execute(self.world.wallet.get(rejection.safe, rejection.safe_tx_hash))

    def approve_elsewhere(self, app: App, compose_hash: str) -> None:
        """Allow a hash by a Safe transaction that no service knows of."""
        call = encode_call("addComposeHash(bytes32)", bytes.fromhex(compose_hash[2:]))
        approve_and_execute(self.world.chain, app.owner, app.address, call)

    def approve(self, request_id: str) -> str:
        self.wait_for(request_id, "proposed")
        return self.execute(self.sign(request_id))

    # The operator, and bad luck

    @contextmanager
    def workspace_with(self, *, safes: Sequence[str] = (), external_apps: Sequence[str] = ()) -> Iterator[None]:
        """The workspace while it knows more Safes, and apps that are approved elsewhere."""
        self.deployment.apply_workspace(safes=safes, external_apps=external_apps)
        try:
            yield
        finally:
            self.deployment.apply_workspace()

    def slow_safe_service(self, seconds: float) -> None:
        """The next proposal is stored at once, but answered late."""
        fault = {
            "method": "POST",
            "path": "*/multisig-transactions/",
            "delay_seconds": seconds,
            "when": "after",
        }
        self.safe_faults.post("/faults", json=fault).raise_for_status()

    def kill(self, name: str) -> None:
        self.deployment.process(name).kill()

    def restart(self, name: str) -> None:
        self.deployment.start_process(name)

    def restart_worker_as(self, account: LocalAccount) -> None:
        """Give the worker another proposer key."""
        self.deployment.process("worker").stop()
        self.deployment.propose_as(account)
        self.restart("worker")

    @contextmanager
    def another_worker(self) -> Iterator[ManagedProcess]:
        """A second worker beside the first."""
        process = self.deployment.start_process("worker", called="worker-2")
        try:
            yield process
        finally:
            process.stop()

    @contextmanager
    def logging_everything(self) -> Iterator[None]:
        """API, worker and listener while they log JSON, down to what only those who look for defects want."""
        try:
            self.deployment.log_as("json", "DEBUG")
            self._begin_anew("serve", "worker", "watch")
            yield
        finally:
            self.deployment.log_as("text", "INFO")
            self._begin_anew("serve", "worker", "watch")

    def _begin_anew(self, *names: str) -> None:
        for name in names:
            self.deployment.process(name).stop()
            self.restart(name)

    @contextmanager
    def told_by_phala(self) -> Iterator[Sequence[str]]:
        """While Phala Cloud tells of every prepare; the secrets that count, of which one is being replaced."""
        secrets = [webhook_secret(), webhook_secret()]
        url = f"{self.deployment.url}/v1/hooks/phala/{WORKSPACE}"
        hook = self.world.phala.register_webhook(WORKSPACE, url, secret=secrets[1])
        self.deployment.apply_workspace(phala_webhook_secrets=secrets)
        yield secrets
        self.deployment.apply_workspace(phala_webhook_secrets=[])  # first: a webhook that is expected and gone is told
        key = {"X-API-Key": self.world.setup.phala_api_key}
        url = f"{self.world.phala_url}/workspace/webhooks/{hook['id']}"
        httpx.delete(url, headers=key, timeout=_PATIENCE_SECONDS).raise_for_status()

    @contextmanager
    def without(self, server: str) -> Iterator[None]:
        """The deployment while ``redis`` or ``postgres`` is stopped; the same server comes back."""
        process = self.deployment.process(server)
        process.stop()
        try:
            yield
        finally:
            process.start()

    @contextmanager
    def phala_down(self) -> Iterator[None]:
        """Everything at Phala Cloud answers 503."""
        self.world.phala.fail("*", "*", times=100_000)
        try:
            yield
        finally:
            self.world.phala.clear_faults()

    @contextmanager
    def safe_service_down(self) -> Iterator[None]:
        """Everything at the Safe Transaction Service answers 503."""
        self.safe_faults.post("/faults", json={"path": "*", "status": 503, "times": 100_000}).raise_for_status()
        try:
            yield
        finally:
            self.safe_faults.delete("/faults").raise_for_status()

    @contextmanager
    def safes_broken(self, faults: Mapping[str, Mapping[str, float]]) -> Iterator[None]:
        """The queues of these Safes misbehave, in the words of the sandbox's faults; others are served."""
        for safe, fault in faults.items():
            members = {"path": f"*/safes/{safe}/*", "times": 100_000, **fault}
            self.safe_faults.post("/faults", json=members).raise_for_status()
        try:
            yield
        finally:
            self.safe_faults.delete("/faults").raise_for_status()

    def reorg(self, blocks: int) -> None:
        """Replace the newest blocks by as many without the transactions they held."""
        # Without a transaction of its own the new branch can have the very same blocks.
        transfer = {"from": OUTSIDER.address, "to": OUTSIDER.address, "value": "0x1"}
        self.world.anvil.rpc("anvil_reorg", [blocks, [[transfer, 0]]])

    def wait_for_reason(self, request_id: str, *codes: str, seconds: float = 30) -> None:
        """The request says that it waits for one of these reasons."""
        self.wait_until(lambda: (self.get(request_id)["reason"] or {}).get("code") in codes, seconds)

    def empty_database(self) -> str:
        """URL of a database without tables."""
        base, _, _ = self.deployment.database_url.rpartition("/")
        with psycopg.connect(self.deployment.database_url, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS empty")
            connection.execute("CREATE DATABASE empty")
        return f"{base}/empty"

    def flush_broker(self) -> None:
        with redis.Redis.from_url(self.deployment.redis_url) as broker:
            broker.flushall()

    def heal(self) -> None:
        self.world.phala.clear_faults()
        self.world.phala.lag(0)
        self.safe_faults.delete("/faults")
        self.world.mine_by_the_clock()
        for name in PROCESSES:
            if not self.deployment.process(name).running:
                self.restart(name)

    # What is counted

    def metrics(self) -> dict[str, bytes]:
        """What each process shows to Prometheus."""
        return {f"metrics of {name}": _metrics(url) for name, url in self.deployment.metrics_urls.items()}

    def proposals(self, app: App, compose_hash: str) -> list[Json]:
        """Transactions of the app's Safe that name the hash, executed or not, as its Transaction Service knows them."""
        path = f"/api/v2/safes/{app.owner}/multisig-transactions/"
        answer = self.safe_service.get(path, params={"limit": 200, "trusted": "false"}).raise_for_status()
        return [one for one in answer.json()["results"] if compose_hash[2:] in (one["data"] or "")]

    def prepared_hash(self, cvm: str) -> str:
        """The hash of the CVM's last prepare."""
        return "0x" + str(self.world.phala.ledger("prepare", cvm)[-1]["compose_hash"]).removeprefix("0x")

    def accepted_commits(self, cvm: str) -> list[Json]:
        return self.world.phala.accepted_commits(cvm)


def compose(tag: str) -> str:
    """A compose file that no other test uses: the tag makes its hash another one."""
    return f"services:\n  web:\n    image: nginx:1.29\n    environment:\n      RELEASE: '{tag}'\n"


def first_cvm(app: App) -> str:
    return app.cvm_uuids[0]
