"""Replays recorded exchanges of a real Safe Transaction Service against the sandbox.

What the recording leaves out (Safes deployed, transactions executed, requests not kept) is stated in `SETUP`, by the
exchange it comes before. Safes have their recorded addresses, so recorded hashes and signatures hold unchanged.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from sandbox.chain.accounts import DEPLOYER, OWNERS
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import ZERO_ADDRESS, SafeTx, deploy_safe, owner_sign, safe_tx_hash

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "safe" / "exchanges.jsonl"
EXCHANGES: list[dict[str, Any]] = [json.loads(line) for line in VECTORS.read_text().splitlines()]
RECORDED_AT = "http://127.0.0.1:18889"
SALTS = {
    "0x6ed1307d3110aC4483E09F6De04759443B14ab8D": 1795401151,
    "0x803Fa09cc8DB004C3eF5D52Cc1AA5aF0eaaBD560": 1795401178,
    "0x63E59A32482B4E492613393F1B033eb92d1E29A8": 1795401194,
    "0x94729adb97199D8a9c78740aCeCB967d133FB2a6": 1795401542,
}
SAFE_A, SAFE_B, SAFE_C, SAFE_D = SALTS
REVERTING_CONTRACT = "0x12975173B87F7595EE45dFFb2Ab812ECE596Bf84"
OWNER_0, OWNER_1, OWNER_2 = (owner.address for owner in OWNERS)
_EXEC = "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@dataclass
class RecordedClock:
    """The service's time: that of the exchange at hand, a millisecond later at each look."""

    time: datetime = field(default_factory=lambda: moment(EXCHANGES[0]["at"]))

    def __call__(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time


@dataclass
class Replay:
    """One run through all exchanges."""

    chain: LocalChain
    client: httpx.Client
    clock: RecordedClock
    transactions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for exchange in EXCHANGES:
            self._remember(exchange["response"]["body"])

    def _remember(self, content: Any) -> None:
        if isinstance(content, dict) and "confirmations" in content:
            self.transactions[content["safeTxHash"]] = content  # the last representation knows most
        elif isinstance(content, dict):
            self._remember(content.get("results"))
        elif isinstance(content, list):
            for item in content:
                self._remember(item)

    def run(self) -> dict[str, httpx.Response]:
        answers = {}
        for exchange in EXCHANGES:
            for step in SETUP.get(exchange["id"], ()):
                step(self)
            self.clock.time = max(moment(exchange["at"]), self.clock.time)
            request = exchange["request"]
            content_type = request["headers"].get("Content-Type")
            answers[exchange["id"]] = self.client.request(
                request["method"],
                request["path"] + (f"?{request['query']}" if request["query"] else ""),
                headers={"Content-Type": content_type} if content_type else {},
                content=request.get("body_raw")
                or (json.dumps(request["body"]) if request["body"] is not None else None),
            )
        return answers

    def find(self, prefix: str) -> dict[str, Any]:
        (found,) = (body for tx_hash, body in self.transactions.items() if tx_hash.startswith(prefix))
        return found

    def send(self, method: str, path: str, body: dict[str, Any], status: int) -> None:
        answer = self.client.request(method, path, json=body)
        assert answer.status_code == status, (path, answer.status_code, answer.text)


Step = Callable[[Replay], None]


def lag(paused: bool) -> Step:
    return lambda replay: replay.send("PUT", "/_sandbox/indexing", {"paused": paused}, 204)


def deploy(safe: str) -> Step:
    def step(replay: Replay) -> None:
        assert deploy_safe(replay.chain, salt=SALTS[safe]) == safe

    return step


def deploy_reverting(replay: Replay) -> None:
    replay.chain.rpc("anvil_setCode", [REVERTING_CONTRACT, "0x60006000fd"])  # revert(0, 0)


def propose(prefix: str, **changes: Any) -> Step:
    """File a proposal that was not kept, as its later representation shows it."""

    def step(replay: Replay) -> None:
        tx = replay.find(prefix)
        replay.clock.time = max(moment(tx["submissionDate"]) - timedelta(milliseconds=20), replay.clock.time)
        sender = tx["proposedByDelegate"] or tx["proposer"]
        signature = next((c["signature"] for c in tx["confirmations"] if c["owner"] == sender), None)
        copied = ("to", "value", "data", "operation", "gasToken", "safeTxGas", "baseGas", "gasPrice", "refundReceiver")
        body = {name: tx[name] for name in (*copied, "nonce", "origin")}
        body |= {"contractTransactionHash": tx["safeTxHash"], "sender": sender, "signature": signature}
        path = f"/api/v2/safes/{tx['safe']}/multisig-transactions/"
        replay.send("POST", path, {**body, **changes}, 201)

    return step


def confirm(prefix: str, owner: str) -> Step:
    def step(replay: Replay) -> None:
        tx = replay.find(prefix)
        (signature,) = (c["signature"] for c in tx["confirmations"] if c["owner"] == owner)
        path = f"/api/v1/multisig-transactions/{tx['safeTxHash']}/confirmations/"
        replay.send("POST", path, {"signature": signature}, 201)

    return step


def mine(replay: Replay, sender: str, safe: str, data: bytes, at: datetime, *, fee_market: bool = False) -> None:
    replay.chain.rpc("evm_setNextBlockTimestamp", [int(at.timestamp())])
    price = (
        {"maxFeePerGas": hex(2 * 10**9), "maxPriorityFeePerGas": "0x1"} if fee_market else {"gasPrice": hex(2 * 10**9)}
    )
    request = {"from": sender, "to": safe, "data": "0x" + data.hex(), "gas": hex(500_000), **price}
    sent = replay.chain.rpc("eth_sendTransaction", [request])
    assert replay.chain.receipt(sent)["status"] == "0x1"


def execute(prefix: str, signatures: str | None = None) -> Step:
    """Execute on chain with the signatures the recording shows, in the block time it shows."""

    def step(replay: Replay) -> None:
        tx = replay.find(prefix)
        at = moment(tx["executionDate"]) if tx["executionDate"] else replay.clock.time
        blob = bytes.fromhex((signatures or tx["signatures"])[2:])
        gas = (int(tx["safeTxGas"]), int(tx["baseGas"]), int(tx["gasPrice"]))
        data = bytes.fromhex((tx["data"] or "0x")[2:])
        call = (tx["to"], int(tx["value"]), data, tx["operation"], *gas, tx["gasToken"], tx["refundReceiver"], blob)
        sender, fee_market = tx["executor"] or DEPLOYER.address, tx["maxFeePerGas"] is not None
        mine(replay, sender, tx["safe"], encode_call(_EXEC, *call), at, fee_market=fee_market)

    return step


def approve_hash(prefix: str, owner: str) -> Step:
    def step(replay: Replay) -> None:
        tx = replay.find(prefix)
        (at,) = (c["submissionDate"] for c in tx["confirmations"] if c["owner"] == owner)
        mine(
            replay,
            owner,
            tx["safe"],
            encode_call("approveHash(bytes32)", bytes.fromhex(tx["safeTxHash"][2:])),
            moment(at),
        )

    return step


def execute_unproposed(safe: str, nonce: int) -> Step:
    """Use up a nonce by a Safe transaction that nobody proposed and the recording does not show."""

    def step(replay: Replay) -> None:
        tx = SafeTx(to=OWNER_0, data=b"", nonce=nonce)
        digest = safe_tx_hash(replay.chain.chain_id, safe, tx)
        signers = sorted(OWNERS[:2], key=lambda owner: int(owner.address, 16))
        blob = b"".join(owner_sign(digest, owner) for owner in signers)
        call = (tx.to, 0, b"", 0, 0, 0, 0, ZERO_ADDRESS, ZERO_ADDRESS, blob)
        mine(replay, DEPLOYER.address, safe, encode_call(_EXEC, *call), replay.clock.time)

    return step


def fill(safe: str, nonces: list[int]) -> Step:
    """Owner 0's proposals that a recorded count includes and no answer shows."""

    def step(replay: Replay) -> None:
        for number, nonce in enumerate(nonces):
            tx = SafeTx(to=OWNER_0, data=number.to_bytes(2, "big"), nonce=nonce)
            digest = safe_tx_hash(replay.chain.chain_id, safe, tx)
            zero = {"value": 0, "operation": 0, "safeTxGas": 0, "baseGas": 0, "gasPrice": 0}
            signed = {"sender": OWNER_0, "signature": "0x" + owner_sign(digest, OWNERS[0]).hex()}
            body = {"to": tx.to, "data": "0x" + tx.data.hex(), "nonce": nonce, **zero, **signed}
            body["contractTransactionHash"] = "0x" + digest.hex()
            replay.send("POST", f"/api/v2/safes/{safe}/multisig-transactions/", body, 201)

    return step


def propose_last_hundred(replay: Replay) -> None:
    for tx_hash, tx in sorted(replay.transactions.items(), key=lambda item: int(item[1]["nonce"])):
        if tx["safe"] == SAFE_D:
            propose(tx_hash)(replay)


def recorded_request(exchange_id: str, status: int, **changes: Any) -> Step:
    """The request of an exchange, sent once before it (or changed)."""

    def step(replay: Replay) -> None:
        (exchange,) = (e for e in EXCHANGES if e["id"] == exchange_id)
        replay.clock.time = max(moment(exchange["at"]) - timedelta(milliseconds=30), replay.clock.time)
        request = exchange["request"]
        replay.send(request["method"], request["path"], {**request["body"], **changes}, status)

    return step


def add_global_delegate(replay: Replay) -> None:
    (exchange,) = (e for e in EXCHANGES if e["id"] == "57-sep-add-delegate-201")
    body = {**exchange["request"]["body"], "safe": None}
    replay.send("POST", "/api/v2/delegates/", body, 201)


SETUP: dict[str, tuple[Step, ...]] = {
    "08-safe-info-just-deployed-404": (lag(paused=True), deploy(SAFE_A)),
    "11-safe-info-200": (lag(paused=False),),
    "19-get-tx-v1": (propose("0x7e0d5990"),),
    "25-get-confirmations-2": (confirm("0x7e0d5990", OWNER_1),),
    "29-get-tx-3-confirmations": (confirm("0x7e0d5990", OWNER_2),),
    "43-get-tx-mined-not-yet-indexed": (lag(paused=True), execute("0x7e0d5990")),
    "46-get-tx-executed-v1": (lag(paused=False),),
    "81-get-tx-untrusted": (propose("0x4defd0e1"),),
    "85-get-tx-by-delegate-confirmed": (confirm("0xb395c702", OWNER_1),),
    "130-propose-data-0x-201": (propose("0x3afce9b8"),),
    "145-get-origin-json": (propose("0x19e7ca36"), propose("0x9a31eadd"), fill(SAFE_A, [2, 2, 2])),
    "162-delete-deleted-404": (recorded_request("162-delete-deleted-404", 204),),
    "165-remove-delegate-again-404": (recorded_request("165-remove-delegate-again-404", 204),),
    "171-propose-by-global-delegate-201": (add_global_delegate,),
    "175-kit-get-safe-info": (deploy(SAFE_B),),
    "188-kit-get-confirmations": (confirm("0xc9badf9d", OWNER_1),),
    "205-kit-get-transaction-executed": (execute("0xc9badf9d"),),
    "210-propose-will-fail-201": (deploy(SAFE_C), deploy_reverting),
    "211-get-executed-failed": (execute("0xf1366b6a"),),
    "215-propose-for-approvehash-201": (execute_unproposed(SAFE_C, 1),),
    "216-get-approved-hash": (approve_hash("0x23415a22", OWNER_1),),
    "219-confirm-mined-not-indexed-201": (lag(paused=True), execute("0x23415a22"), propose("0x4eff18c7")),
    "221-get-executed-with-approved-hash": (lag(paused=False),),
    "223-get-erc20-decoded": (propose("0x83466ab1"),),
    "231-get-pending-after-owner-removed": (execute("0xe4c1a977"),),
    "238-safe-info-after-changes": (execute("0x6ced3da7"),),
    "255-list-limit-0": (deploy(SAFE_D), fill(SAFE_D, list(range(105))), propose_last_hundred),
}


def rejection_signatures() -> str:
    """Both owners' signatures of the rejection, in the order of their owners (1 before 0)."""
    bodies = {exchange["id"]: exchange["request"]["body"] for exchange in EXCHANGES}
    by_owner_1 = bodies["86-propose-rejection-201"]["signature"]
    return str(by_owner_1 + bodies["90-confirm-rejection-201"]["signature"][2:])


SETUP["92-get-replaced-tx"] = (execute("0x7a2a3649", rejection_signatures()),)
