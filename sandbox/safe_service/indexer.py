"""Follows the chain: known Safes, their owners, executions and on-chain approvals; undoes what a reorg drops."""

import json
import logging
import threading

import httpx

from sandbox.jsonrpc import RpcError
from sandbox.safe_service import executions
from sandbox.safe_service.events import APPROVE_HASH, EXECUTION, OWNER_CHANGES, SAFE_SETUP, SAFE_TX, Log
from sandbox.safe_service.service import Service

logger = logging.getLogger(__name__)
_TOPICS = [SAFE_SETUP, SAFE_TX, *EXECUTION, APPROVE_HASH, *OWNER_CHANGES]
_RANGE = 1000  # blocks of one eth_getLogs
_REMEMBERED = 1000  # blocks; a deeper reorganisation is indexed from the beginning


class Indexer:
    """Brings the database up to the chain whenever it is asked to.

    Args:
        service: what to work on.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._database = service.database
        self._rpc = service.chain.rpc
        self._lock = threading.Lock()

    def catch_up(self) -> None:
        """Index up to the head, unless told to lag; while the node does not answer, what is known stays."""
        with self._lock:
            if self._control("paused"):
                return
            try:
                self._follow()
            except (httpx.HTTPError, RpcError) as error:
                logger.warning("chain not indexed: %s", error)

    def _control(self, name: str) -> int:
        row = self._database.one("SELECT value FROM controls WHERE name = ?", [name])
        return int(row["value"]) if row else 0

    def _follow(self) -> None:
        head = self._rpc("eth_getBlockByNumber", ["latest", False])
        tip = self._database.one("SELECT number, hash FROM blocks ORDER BY number DESC LIMIT 1")
        if tip and tip["hash"] == head["hash"]:
            return
        target = int(head["number"], 16) - self._control("blocks_behind")
        known = self._common_ancestor()
        for start in range(known + 1, target + 1, _RANGE):
            self._index(start, min(start + _RANGE - 1, target))

    def _common_ancestor(self) -> int:
        """The highest indexed block that the chain still has (-1 for none); what lies above it is undone."""
        blocks = self._database.all("SELECT number, hash FROM blocks ORDER BY number DESC")
        present = (block["number"] for block in blocks if self._block_hash(block["number"]) == block["hash"])
        ancestor = int(next(present, -1))
        if blocks and blocks[0]["number"] > ancestor:
            self._undo(ancestor)
        return ancestor

    def _block_hash(self, number: int) -> str | None:
        block = self._rpc("eth_getBlockByNumber", [hex(number), False])
        return str(block["hash"]) if block else None

    def _index(self, start: int, end: int) -> None:
        last_hash = self._block_hash(end)
        if last_hash is None:
            return
        logs_filter = {"fromBlock": hex(start), "toBlock": hex(end), "topics": [_TOPICS]}
        logs = self._of_safes([Log.parse(raw) for raw in self._rpc("eth_getLogs", [logs_filter])])
        blocks = {log.block_number: log.block_hash for log in logs} | {end: last_hash}
        gathered = executions.gather(self._rpc, logs)
        changed = {log.address: log.block_number for log in logs if log.topic in OWNER_CHANGES}
        states = {safe: self._state(safe, block) for safe, block in changed.items()}
        if self._block_hash(end) != last_hash:
            return  # the chain moved below us: the next call starts over
        with self._database.transaction():
            for log in logs:
                self._apply(log, gathered)
            for safe, (owners, threshold, nonce) in states.items():
                self._apply_state(safe, changed[safe], owners, threshold, nonce)
            for number, block_hash in blocks.items():
                self._database.insert("blocks", {"number": number, "hash": block_hash})
            self._database.run("DELETE FROM blocks WHERE number < ?", [end - _REMEMBERED])

    def _state(self, safe: str, block: int) -> tuple[list[str], int, int]:
        chain, at = self._service.chain, hex(block)
        return chain.owners(safe, at), chain.threshold(safe, at), chain.nonce(safe, at)

    def _apply(self, log: Log, gathered: executions.Gathered) -> None:
        if log.topic == SAFE_SETUP:
            owners, threshold = log.setup()
            self._database.insert(
                "safes",
                {
                    "address": log.address,
                    "owners": json.dumps(owners),
                    "threshold": threshold,
                    "block_number": log.block_number,
                    "created": gathered.block_micros[log.block_number],
                    "creation_hash": log.transaction_hash,
                    "changed_block": log.block_number,
                },
                or_ignore=True,
            )
            self._database.run("UPDATE transactions SET threshold = ? WHERE safe = ?", [threshold, log.address])
        elif log.topic == APPROVE_HASH:
            executions.apply_approval(self._database, log, gathered)
        elif log.topic in EXECUTION:
            executions.apply_execution(self._service, log, gathered)

    def _of_safes(self, logs: list[Log]) -> list[Log]:
        """Leave out other contracts' logs: several of the topics are common."""
        known = {row["address"] for row in self._database.all("SELECT address FROM safes")}
        known |= {log.address for log in logs if log.topic == SAFE_SETUP}
        return [log for log in logs if log.address in known]

    def _apply_state(self, safe: str, block: int, owners: list[str], threshold: int, nonce: int) -> None:
        """Take over owners and threshold; pending Safe transactions follow, past ones keep theirs."""
        row = self._database.one("SELECT owners FROM safes WHERE address = ?", [safe])
        if row is None:
            return
        for owner in set(json.loads(row["owners"])) - set(owners):
            self._database.run(
                "DELETE FROM confirmations WHERE owner = ? AND safe_tx_hash IN (SELECT safe_tx_hash"
                " FROM transactions WHERE safe = ? AND executed_at IS NULL AND nonce >= ?)",
                [owner, safe, nonce],
            )
            self._database.run("DELETE FROM delegates WHERE safe = ? AND delegator = ?", [safe, owner])
        self._database.run(
            "UPDATE safes SET owners = ?, threshold = ?, changed_block = ? WHERE address = ?",
            [json.dumps(owners), threshold, block, safe],
        )
        self._database.run(
            "UPDATE transactions SET threshold = ? WHERE safe = ? AND executed_at IS NULL AND nonce >= ?",
            [threshold, safe, nonce],
        )

    def _undo(self, ancestor: int) -> None:
        """Forget vanished blocks: executions are pending again, signatures stay, on-chain approvals go."""
        logger.info("the chain was reorganised above block %d", ancestor)
        changed = self._database.all(
            "SELECT address FROM safes WHERE changed_block > ?1 AND block_number <= ?1", [ancestor]
        )
        states = {row["address"]: self._state(row["address"], ancestor) for row in changed}
        vanished = "(SELECT address FROM safes WHERE block_number > ?1)"
        statements = (
            executions.UNDO,
            "DELETE FROM confirmations WHERE transaction_hash IS NOT NULL AND block_number > ?1",
            f"UPDATE transactions SET threshold = NULL WHERE safe IN {vanished}",  # noqa: S608 - own text
            "DELETE FROM safes WHERE block_number > ?1",
            "DELETE FROM blocks WHERE number > ?1",
        )
        with self._database.transaction():
            for statement in statements:
                self._database.run(statement, [ancestor])
            for safe, (owners, threshold, nonce) in states.items():
                self._apply_state(safe, ancestor, owners, threshold, nonce)
