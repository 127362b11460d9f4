"""The Safes' owners as a script: they look at every queue in turn, sign what waits, and execute it, nonce by nonce."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import httpx

from sandbox.chain.accounts import OWNERS
from sandbox.chain.local import ChainError
from sandbox.chain.safes import next_nonce
from sandbox.jsonrpc import RpcError
from sandbox.wallet import QueuedApproval
from sandbox.world import World

LOOK_SECONDS: Final = 0.3
_AT_ONCE: Final = 6


class Owners:
    """Approve whatever is queued for some Safes, and reject what they were told to.

    Attributes:
        executed: how many transactions they executed.
        troubles: what kept them from it, to be looked at; they try again.
    """

    def __init__(self, world: World, safes: Callable[[], Iterable[str]]) -> None:
        """Take the world, and who says which Safes there are by now."""
        self.executed = 0
        self.troubles: list[str] = []
        self._world = world
        self._safes = safes
        self._refused: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="owners")

    def refuse(self, app: str) -> None:
        """Reject what is proposed for this app from now on."""
        self._refused.add(app)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while not self._stop.wait(LOOK_SECONDS):
                list(pool.map(self._serve, tuple(self._safes())))

    def _serve(self, safe: str) -> None:
        try:
            nonce = next_nonce(self._world.chain, safe)
            while not self._stop.is_set() and self._decide(safe, nonce):
                nonce += 1
        except (httpx.HTTPError, RpcError, ChainError, ValueError) as error:
            # Somebody took it out of the queue, or a block vanished: they look again.
            self.troubles.append(f"{type(error).__name__}: {error}"[:200])

    def _decide(self, safe: str, nonce: int) -> bool:
        """Execute what waits at a nonce; whether it did."""
        waiting = [one for one in self._world.wallet.pending(safe, nonce) if one.tx.nonce == nonce]
        if not waiting:
            return False
        rejections = [one for one in waiting if one.tx.to == safe and not one.tx.data]
        if not rejections and waiting[0].tx.to in self._refused:
            self._world.wallet.propose_rejection(waiting[0], OWNERS[0])
            return self._decide(safe, nonce)
        self._execute((rejections or waiting)[0])
        return True

    def _execute(self, approval: QueuedApproval) -> None:
        for owner in OWNERS[:2]:
            if owner.address not in approval.signatures:
                self._world.wallet.confirm(approval, owner)
        self._world.wallet.execute(self._world.wallet.get(approval.safe, approval.safe_tx_hash))
        self.executed += 1
