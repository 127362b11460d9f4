"""The outside world in memory, with the rules of the real one; the real adapters pass the same contract tests."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from eth_account import Account
from eth_keys.datatypes import PrivateKey

from service.domain.approver import Approver
from service.domain.calls import approval_call, rejection_call
from service.domain.outcomes import Facts, News
from service.domain.prepares import Hearing
from service.domain.snapshots import Proposal, SafeTransaction, SafeTransactionKind, SafeTransactionState
from tests.support.builders import NOW, SAFE, proposal, safe_transaction

T = TypeVar("T")


class FixedClock:
    """Time that moves only when told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, **units: float) -> None:
        self._now += timedelta(**units)


class Faulty:
    """Calls that can be told to fail, before or after they take effect; ``calls`` lists what was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._faults: dict[str, deque[tuple[Exception, bool]]] = defaultdict(deque)

    def fail(self, method: str, *errors: Exception, after_effect: bool = False) -> None:
        """Raise ``errors`` in turn from the next calls of ``method``."""
        self._faults[method].extend((error, after_effect) for error in errors)

    def heal(self) -> None:
        """Fail no more."""
        self._faults.clear()

    def _call(self, method: str, effect: Callable[[], T]) -> T:
        self.calls.append(method)
        if not self._faults[method]:
            return effect()
        error, after_effect = self._faults[method].popleft()
        if after_effect:
            effect()
        raise error


class FakeSigner:
    """A real key."""

    def __init__(self, seed: int = 1) -> None:
        self._key = seed.to_bytes(32, "big")

    @property
    def address(self) -> str:
        return str(Account.from_key(self._key).address)

    def sign(self, safe_tx_hash: str) -> str:
        signature = PrivateKey(self._key).sign_msg_hash(bytes.fromhex(safe_tx_hash[2:]))
        raw = bytearray(signature.to_bytes())
        raw[64] += 27
        return "0x" + raw.hex()


class RecordingRequestIntents:
    """Keeps what a request step stored, in order."""

    def __init__(self, joins: Proposal | None = None) -> None:
        self.recorded: list[Facts] = []
        self.committing: list[Facts] = []
        self.published: list[News] = []
        self.hearing = Hearing()
        self.joined: list[tuple[tuple[str, ...], str | None]] = []
        self.approver: Approver | None = None
        self.error: Exception | None = None
        self._joins = joins

    def record(self, facts: Facts, *, commits: bool = False) -> None:
        if self.error is not None:
            raise self.error
        self.recorded.append(facts)
        if commits:
            self.committing.append(facts)

    def publish(self, news: News, now: datetime) -> None:
        if self.error is not None:
            raise self.error
        assert now.tzinfo is not None
        self.published.append(news)
        undecided = tuple(heard for heard in self.hearing.prepares if heard.id not in news.heard)
        self.hearing = replace(self.hearing, prepares=undecided)

    def heard(self) -> Hearing:
        return self.hearing

    def join_proposal(self, devices: tuple[str, ...], safe: str | None, approver: Approver | None = None) -> Proposal:
        if self.error is not None:
            raise self.error
        self.joined.append((devices, safe))
        self.approver = approver
        return self._joins or proposal(devices=devices, safe=safe)

    @property
    def all_facts(self) -> dict[str, object]:
        """The columns as they stand after everything recorded."""
        published = [news.facts for news in self.published]
        return {name: value for facts in (*self.recorded, *published) for name, value in facts.items()}


class RecordingProposalIntents:
    """Claims nonces like the store: the first one that is not taken."""

    def __init__(self, of: Proposal, taken: frozenset[int] = frozenset()) -> None:
        self.claimed: list[int] = []
        self.rejected: list[int] = []
        self.transaction: SafeTransaction | None = None
        self.known: set[str] = set()
        self._of = of
        self._taken = taken

    def claim_nonce(
        self, chain_nonce: int, occupied: Collection[int] = (), scan_from: int | None = None
    ) -> SafeTransaction:
        nonce = chain_nonce
        while nonce in self._taken or nonce in occupied:
            nonce += 1
        self.claimed.append(nonce)
        call = approval_call(self._of.app_contract, self._of.compose_hash, self._of.devices)
        self.transaction = safe_transaction(nonce=nonce, call=call, id=f"stx_{nonce}", scan_from=scan_from)
        return self.transaction

    def knows(self, safe_tx_hash: str) -> bool:
        return safe_tx_hash in self.known

    def intend_rejection(self, nonce: int) -> SafeTransaction:
        self.rejected.append(nonce)
        return safe_transaction(
            SafeTransactionKind.REJECTION,
            nonce=nonce,
            call=rejection_call(SAFE),
            state=SafeTransactionState.INTENDED,
            id=f"stx_r{nonce}",
        )
