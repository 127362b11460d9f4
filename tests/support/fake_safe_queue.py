"""The Safe Transaction Service in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.domain.calls import safe_tx_hash
from service.domain.errors import Refused
from service.domain.signatures import recover
from service.domain.snapshots import SafeTransaction
from service.ports import QueuedTransaction
from tests.support.builders import CHAIN_ID
from tests.support.fakes import Faulty


class FakeSafeQueue(Faulty):
    """The Transaction Service's queues: hash, proposer and signature are checked when something is posted."""

    def __init__(self, owners: Sequence[str], delegators: Mapping[str, frozenset[str]]) -> None:
        super().__init__()
        self.owners = tuple(owners)
        self.delegates = dict(delegators)
        self.posts: list[str] = []
        self.origins: list[str] = []
        self.rows: dict[str, QueuedTransaction] = {}
        self._safes: dict[str, str] = {}

    def pending(self, safe: str, chain_nonce: int) -> Sequence[QueuedTransaction]:
        def effect() -> Sequence[QueuedTransaction]:
            return [row for row in self._of(safe) if not row.is_executed and row.nonce >= chain_nonce]

        return self._call("pending", effect)

    def delegators(self, safe: str, delegate: str) -> frozenset[str]:
        return self._call("delegators", lambda: self.delegates.get(delegate, frozenset()) if safe else frozenset())

    def post(self, transaction: SafeTransaction, signature: str, sender: str, origin: str) -> None:
        def effect() -> None:
            expected = safe_tx_hash(CHAIN_ID, transaction.safe, transaction.call, transaction.nonce)
            if transaction.safe_tx_hash != expected:
                raise Refused(f"Contract-transaction-hash={expected} does not match provided contract-tx-hash")
            if self.delegates.get(sender, frozenset()).isdisjoint(self.owners):
                raise Refused(f"Sender={sender} is not an owner or delegate")
            if recover(expected, signature) != sender:
                raise Refused("Signer is not the sender")
            if any(row.is_executed and row.nonce == transaction.nonce for row in self._of(transaction.safe)):
                raise Refused(f"Nonce={transaction.nonce} was already executed")
            self.posts.append(expected)
            self.origins.append(origin)
            self.add(transaction)

        self._call("post", effect)

    def get(self, safe: str, safe_tx_hash: str) -> QueuedTransaction | None:
        return self._call("get", lambda: self.rows.get(safe_tx_hash) if self._safes.get(safe_tx_hash) == safe else None)

    def at_nonce(self, safe: str, nonce: int) -> Sequence[QueuedTransaction]:
        return self._call("at_nonce", lambda: [row for row in self._of(safe) if row.nonce == nonce])

    def delete(self, safe: str, safe_tx_hash: str) -> None:
        def effect() -> None:
            row = self.rows.get(safe_tx_hash)
            if row is not None and row.is_executed:
                raise Refused("Executed transactions cannot be deleted")
            if self._safes.get(safe_tx_hash) == safe:
                self.lose(safe_tx_hash)

        self._call("delete", effect)

    def _of(self, safe: str) -> list[QueuedTransaction]:
        return [row for tx_hash, row in self.rows.items() if self._safes[tx_hash] == safe]

    # what owners do

    def add(self, transaction: SafeTransaction) -> None:
        """Have a transaction in the queue; the same again changes nothing."""
        self._safes[transaction.safe_tx_hash] = transaction.safe
        row = QueuedTransaction(
            safe_tx_hash=transaction.safe_tx_hash,
            nonce=transaction.nonce,
            to=transaction.call.to,
            data=transaction.call.data,
            is_executed=False,
            is_successful=None,
            transaction_hash=None,
            confirmations=(),
        )
        self.rows.setdefault(transaction.safe_tx_hash, row)

    def confirm(self, safe_tx_hash: str, owner: str, signature: str) -> None:
        """Add a confirmation in the name of ``owner``."""
        row = self.rows[safe_tx_hash]
        self.rows[safe_tx_hash] = replace(row, confirmations=(*row.confirmations, (owner, signature)))

    def lose(self, safe_tx_hash: str) -> None:
        """Somebody deletes it."""
        del self.rows[safe_tx_hash], self._safes[safe_tx_hash]

    def execute(self, safe_tx_hash: str, transaction_hash: str, *, successful: bool = True) -> None:
        """Show a transaction as executed."""
        self.rows[safe_tx_hash] = replace(
            self.rows[safe_tx_hash], is_executed=True, is_successful=successful, transaction_hash=transaction_hash
        )
