"""One Safe with its queue, in two forms: the real adapter on the Transaction Service sandbox, and the fake."""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from pydantic import SecretStr

from sandbox.chain.accounts import DELEGATE, OUTSIDER, OWNERS
from sandbox.chain.local import LocalChain
from sandbox.chain.safes import SafeTx, SafeVersion, deploy_safe, execute, owner_sign
from sandbox.polling import wait_for
from service.adapters.safe import TransactionService
from service.adapters.signer import LocalSigner
from service.domain.calls import SafeCall, safe_tx_hash
from service.domain.snapshots import SafeTransaction, SafeTransactionKind, SafeTransactionState
from service.ports import SafeQueue
from tests.support.builders import CHAIN_ID, SAFE
from tests.support.fake_safe_queue import FakeSafeQueue

WAIT_SECONDS = 20.0
_salts = itertools.count(1)


def signer_of(account: LocalAccount) -> LocalSigner:
    return LocalSigner(SecretStr(account.key.hex()))


class QueueWorld(ABC):
    """A Safe of three owners with threshold 2, and ``DELEGATE`` as a delegate of the first."""

    queue: SafeQueue
    safe: str

    def transaction(self, nonce: int, call: SafeCall | None = None) -> SafeTransaction:
        """An approval-like call of an outsider's address, or another call."""
        call = call or SafeCall(OUTSIDER.address, "0xdfc77223" + "9f" * 32, 0)
        return SafeTransaction(
            id="stx",
            kind=SafeTransactionKind.APPROVAL,
            state=SafeTransactionState.INTENDED,
            safe=self.safe,
            nonce=nonce,
            call=call,
            safe_tx_hash=safe_tx_hash(CHAIN_ID, self.safe, call, nonce),
            confirmations=(),
            threshold=None,
            transaction_hash=None,
        )

    def post(self, transaction: SafeTransaction, by: LocalAccount = DELEGATE, origin: str = "Countersign") -> None:
        signature = signer_of(by).sign(transaction.safe_tx_hash)
        self.queue.post(transaction, signature, by.address, origin)

    @abstractmethod
    def confirm(self, transaction: SafeTransaction, owner: LocalAccount) -> str:
        """An owner signs in the Safe's app; the signature."""

    @abstractmethod
    def execute(self, transaction: SafeTransaction) -> str:
        """Owners execute it, and the service knows; the transaction hash."""


class FakeQueueWorld(QueueWorld):
    def __init__(self) -> None:
        owners = [owner.address for owner in OWNERS]
        self._fake = FakeSafeQueue(owners, {DELEGATE.address: frozenset({OWNERS[0].address})})
        self.queue = self._fake
        self.safe = SAFE

    def confirm(self, transaction: SafeTransaction, owner: LocalAccount) -> str:
        signature = signer_of(owner).sign(transaction.safe_tx_hash)
        self._fake.confirm(transaction.safe_tx_hash, owner.address, signature)
        return signature

    def execute(self, transaction: SafeTransaction) -> str:
        transaction_hash = "0x" + "ee" * 32
        self._fake.execute(transaction.safe_tx_hash, transaction_hash)
        return transaction_hash


@dataclass
class RealQueueWorld(QueueWorld):
    chain: LocalChain
    address: str
    client: httpx.Client
    queue: TransactionService
    version: SafeVersion = "1.4.1"
    safe: str = field(init=False)

    def __post_init__(self) -> None:
        self.safe = deploy_safe(self.chain, self.version, salt=next(_salts))
        self.until(lambda: self.client.get(f"/api/v1/safes/{self.safe}/").status_code == httpx.codes.OK)
        self.add_delegate(OWNERS[0], self.safe)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the indexer."""
        assert wait_for(condition, WAIT_SECONDS), "the service did not get there in time"

    def add_delegate(
        self, owner: LocalAccount, safe: str | None, delegate: str = DELEGATE.address, expires: str | None = None
    ) -> None:
        message = {"delegateAddress": delegate, "totp": int(time.time()) // 3600}
        types = {"Delegate": [{"name": "delegateAddress", "type": "address"}, {"name": "totp", "type": "uint256"}]}
        domain = {"name": "Safe Transaction Service", "version": "1.0", "chainId": CHAIN_ID}
        signed = owner.sign_message(encode_typed_data(domain, types, message))
        body = {
            "safe": safe,
            "delegate": delegate,
            "delegator": owner.address,
            "label": "test",
            "signature": "0x" + bytes(signed.signature).hex(),
            "expiryDate": expires,
        }
        response = self.client.post("/api/v2/delegates/", json=body)
        assert response.status_code == httpx.codes.CREATED, response.text

    def confirm(self, transaction: SafeTransaction, owner: LocalAccount) -> str:
        signature = signer_of(owner).sign(transaction.safe_tx_hash)
        path = f"/api/v1/multisig-transactions/{transaction.safe_tx_hash}/confirmations/"
        assert self.client.post(path, json={"signature": signature}).status_code == httpx.codes.CREATED
        return signature

    def execute(self, transaction: SafeTransaction) -> str:
        call = transaction.call
        tx = SafeTx(call.to, bytes.fromhex(call.data[2:]), transaction.nonce, operation=call.operation)
        digest = bytes.fromhex(transaction.safe_tx_hash[2:])
        signatures = {str(owner.address): owner_sign(digest, owner) for owner in OWNERS[:2]}
        receipt = execute(self.chain, self.safe, tx, signatures)

        def indexed() -> bool:
            told = self.queue.get(self.safe, transaction.safe_tx_hash)
            return told is not None and told.is_executed

        self.until(indexed)
        return str(receipt["transactionHash"])
