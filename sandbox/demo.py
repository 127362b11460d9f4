"""``countersign demo``: one change request the whole way, told as it happens."""

import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from sandbox.chain.accounts import OWNERS
from sandbox.chain.local import ChainError
from sandbox.deployment import CHAIN_NAME, Deployment, webhook_secret
from sandbox.polling import wait_for
from sandbox.processes import ProcessError, ProcessGroup
from sandbox.receiver import Receiver
from sandbox.wallet import QueuedApproval
from sandbox.world import World

DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.2
NEW_COMPOSE = """services:
  web:
    image: nginx:1.29
    ports:
      - "80:80"
"""
ENDED = {"completed", "rejected", "expired", "superseded", "cancelled", "failed"}


class DemoFailed(Exception):
    """The story did not end as it should; the message says where."""


@dataclass
class Story:
    """What is told, and what came of it."""

    world: World
    deployment: Deployment
    receiver: Receiver
    client: httpx.Client
    started: float
    times: dict[str, float] = field(default_factory=dict)
    _seen: int = 0

    def say(self, text: str) -> None:
        """One line with the time since the start."""
        sys.stdout.write(f"{time.monotonic() - self.started:6.1f} s  {text}\n")
        sys.stdout.flush()

    def submit(self) -> str:
        """File the change request by REST; its id."""
        body = {
            "title": "nginx 1.27 -> 1.29",
            "cvm_id": self.world.setup.apps[0].cvm_uuids[0],
            "patch": {"docker_compose_file": NEW_COMPOSE},
        }
        answer = self.client.post("/v1/change-requests", json=body)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise DemoFailed(f"the change request was not accepted: {answer.text}")
        return str(answer.json()["id"])

    def follow(self, request_id: str, until: set[str]) -> dict[str, Any]:
        """Tell each event until the change request is in one of the states ``until``; its representation."""
        while True:
            self._tell_events(request_id)
            request = self._get(f"/v1/change-requests/{request_id}")
            if request["state"] in until or request["state"] in ENDED:
                self._tell_events(request_id)
                return request
            if time.monotonic() - self.started > DEADLINE_SECONDS:
                raise DemoFailed(f"still {request['state']} after {DEADLINE_SECONDS:.0f} s: {request['reason']}")
            self._get(f"/v1/change-requests/{request_id}?wait=2&state={request['state']}")

    def _hear_of(self, request_id: str, event: str) -> None:
        """Tell events until one of a name came; owners who do not wait for it are no harm."""

        def heard() -> bool:
            self._tell_events(request_id)
            return event in self.times

        wait_for(heard, self.started + DEADLINE_SECONDS - time.monotonic(), every=POLL_SECONDS)

    def _tell_events(self, request_id: str) -> None:
        for event in self._get(f"/v1/change-requests/{request_id}/events?after={self._seen}")["items"]:
            self._seen = event["seq"]
            name = event["type"].removeprefix("change_request.")
            self.times.setdefault(name, round(time.monotonic() - self.started, 1))
            self.say(f"event {self._seen}: {name}")

    def _get(self, path: str) -> dict[str, Any]:
        answer = self.client.get(path)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def check_as_owner(self, request: dict[str, Any]) -> QueuedApproval:
        """Show what an owner looks at before signing, read from the Safe's queue itself."""
        approval = self.world.wallet.get(self.world.setup.safe, request["approval"]["safe_tx_hash"])
        self.say("what the owners see in the Safe's queue:")
        lines = {
            "Safe": f"{CHAIN_NAME}:{approval.safe}",
            "nonce": str(approval.tx.nonce),
            "target": f"{approval.tx.to} (the app contract)",
            "call": "addComposeHash(bytes32)",
            "compose hash": "0x" + approval.tx.data[4:].hex(),
            "safeTxHash": approval.safe_tx_hash,
            "origin": approval.origin,
        }
        for name, value in lines.items():
            sys.stdout.write(f"            {name:<14}{value}\n")
        if approval.tx.data[4:].hex() != request["compose_hash"][2:]:
            raise DemoFailed("the queue asks for another hash than the one that was prepared")
        return approval

    def approve(self, request_id: str, approval: QueuedApproval) -> str:
        """Two owners sign through the Transaction Service, then it is executed; the transaction hash."""
        for number, owner in enumerate(OWNERS[:2], start=1):
            self.world.wallet.confirm(approval, owner)
            self.say(f"owner {number} signed ({owner.address})")
        self._hear_of(request_id, "threshold_reached")
        signed = self.world.wallet.get(approval.safe, approval.safe_tx_hash)
        transaction_hash = self.world.wallet.execute(signed)
        self.say(f"executed on chain: {transaction_hash}")
        return transaction_hash


def run(summary_path: Path) -> int:
    """Run the story; the exit code. Everything it started is stopped at the end."""
    started = time.monotonic()
    secret = webhook_secret()
    sys.stdout.write("Countersign demo: one change request, from REST to a CVM that runs the approved hash\n\n")
    sys.stdout.write("starting PostgreSQL, Redis, an EVM, a Phala Cloud, a Safe Transaction Service, Countersign ...\n")
    sys.stdout.flush()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="countersign-") as directory,
            Receiver(secret) as receiver,
            ProcessGroup() as group,
        ):
            root = Path(directory)
            world = group.add(World(root / "world"))
            deployment = group.add(
                Deployment(root / "countersign", world, webhooks=[(receiver.url, secret)], keep_database=False)
            )
            headers = {"Authorization": f"Bearer {deployment.api_key}"}
            with httpx.Client(base_url=deployment.url, headers=headers, timeout=30) as client:
                summary = _tell(Story(world, deployment, receiver, client, started))
    except KeyboardInterrupt:
        sys.stderr.write("\ndemo: interrupted; everything it started is stopped\n")
        return 130
    except (DemoFailed, ProcessError, ChainError, httpx.HTTPError) as error:
        sys.stderr.write(f"\ndemo: {error}\n")
        return 1
    summary_path.parent.mkdir(parents=True, exist_ok=True)
    summary_path.write_text(json.dumps(summary, indent=2) + "\n")
    sys.stdout.write(_closing(summary, summary_path))
    return 0 if summary["completed"] else 1


def _tell(story: Story) -> dict[str, Any]:
    story.say("everything runs")
    request_id = story.submit()
    story.say(f"change request {request_id} accepted")
    request = story.follow(request_id, {"proposed"})
    if request["state"] != "proposed":
        raise DemoFailed(f"it ended {request['state']}: {request['reason']}")
    transaction_hash = story.approve(request_id, story.check_as_owner(request))
    request = story.follow(request_id, ENDED)
    expected = len(story.client.get(f"/v1/change-requests/{request_id}/events?limit=100").json()["items"])
    story.receiver.wait_for(expected, 15)
    return _summary(story, request, transaction_hash, expected)


def _summary(story: Story, request: dict[str, Any], transaction_hash: str, expected: int) -> dict[str, Any]:
    approved = str(request["compose_hash"])
    app = story.world.setup.apps[0]
    on_chain = story.world.chain.call(
        app.address, "allowedComposeHashes(bytes32)", bytes.fromhex(approved[2:]), returns="bool"
    )
    running = "0x" + story.world.phala.cvm(app.cvm_uuids[0])["running_compose_hash"]
    received = story.receiver.received()
    verified = {one.message_id for one in received if one.verified}
    correlation_id = request["commit"]["correlation_id"]
    true = (
        request["state"] == "completed"
        and on_chain
        and running == approved
        and len(verified) == expected
        and all(one.verified for one in received)
        and request["execution"]["transaction_hash"] == transaction_hash
        and bool(correlation_id)
    )
    return {
        "completed": true,
        "change_request": request,
        "compose_hash": {"approved": approved, "on_chain": bool(on_chain), "running": running},
        "safe_tx_hash": request["approval"]["safe_tx_hash"],
        "transaction_hash": transaction_hash,
        "correlation_id": correlation_id,
        "webhooks": {
            "expected": expected,
            "received": len({one.message_id for one in received}),
            "verified": len(verified),
        },
        "states": story.times,
        "seconds": round(time.monotonic() - story.started, 1),
    }


def _closing(summary: dict[str, Any], path: Path) -> str:
    hashes, hooks = summary["compose_hash"], summary["webhooks"]
    times = "  ".join(f"{name} {seconds} s" for name, seconds in summary["states"].items())
    verdict = (
        "the CVM runs exactly what the owners approved" if summary["completed"] else "NOT everything is as it should"
    )
    return f"""
{times}

approved      {hashes["approved"]}
on chain      {"allowed" if hashes["on_chain"] else "NOT allowed"}
running       {hashes["running"]}
safeTxHash    {summary["safe_tx_hash"]}
transaction   {summary["transaction_hash"]}
correlation   {summary["correlation_id"]}
webhooks      {hooks["verified"]} verified of {hooks["received"]} received of {hooks["expected"]} expected

{summary["change_request"]["state"]}: {verdict} ({summary["seconds"]} s; summary in {path})
"""
