"""One question put to several endpoints at once, and what to make of their answers."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from service.adapters.jsonrpc import RpcEndpoint
from service.domain.errors import CountersignError, Refused, Unreachable

T = TypeVar("T")

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 0.25
"""How long those that have not answered are waited for once enough have, or twice as long as these took."""
HEDGE_SECONDS: Final = 0.5
"""How long an answer that decides is waited for before another endpoint is asked too."""


def attempt(endpoint: RpcEndpoint, ask: Callable[[RpcEndpoint], T]) -> T:
    """One call to an endpoint that was entered; its health learns how it ended."""
    fault: Unreachable | None = None
    try:
        return ask(endpoint)
    except Unreachable as error:
        fault = error
        raise
    finally:
        endpoint.health.leave(fault)


@dataclass(slots=True)
class Answers(Generic[T]):
    """What came of a question.

    Attributes:
        given: the answers and whose they are.
        faults: of those that gave none.
        seconds: how long it took.
    """

    given: list[tuple[RpcEndpoint, T]] = field(default_factory=list)
    faults: list[CountersignError] = field(default_factory=list)
    seconds: float = 0.0


class Poll(Generic[T]):
    """A question to endpoints, each asked in a thread of the pool."""

    def __init__(self, pool: Executor, ask: Callable[[RpcEndpoint], T]) -> None:
        self._pool = pool
        self._ask = ask
        self._began = time.monotonic()
        self._pending: dict[Future[T], RpcEndpoint] = {}

    @property
    def pending(self) -> int:
        """Calls under way."""
        return len(self._pending)

    def put(self, endpoint: RpcEndpoint) -> None:
        """Ask one endpoint, unless it must not be asked now."""
        if endpoint.health.enter():
            self._pending[self._pool.submit(copy_context().run, attempt, endpoint, self._ask)] = endpoint

    def ended(self, seconds: float | None) -> list[tuple[RpcEndpoint, T | CountersignError]]:
        """The calls that ended, as soon as one did; none when nothing did within ``seconds``.

        Raises:
            Exception: a defect, in the thread of a call.
        """
        done, _ = wait(self._pending, seconds, FIRST_COMPLETED)
        ended: list[tuple[RpcEndpoint, T | CountersignError]] = []
        for future in done:
            endpoint = self._pending.pop(future)
            try:
                ended.append((endpoint, future.result()))
            except CountersignError as error:
                ended.append((endpoint, error))
        return ended

    def leave(self) -> None:
        """Wait no longer: what is under way ends by itself."""
        for endpoint in self._pending.values():
            endpoint.health.leave_behind()

    def gather(self, enough: int, within: float | None) -> Answers[T]:
        """What all asked endpoints answer; once ``enough`` did, the others are waited for a moment only.

        Args:
            enough: how many.
            within: seconds after which nobody is waited for.
        """
        answers: Answers[T] = Answers()
        until = None if within is None else self._began + within
        waits = True
        while self._pending:
            now = time.monotonic()
            if waits and len(answers.given) >= enough:
                until, waits = now + max(GRACE_SECONDS, 2 * (now - self._began)), False
            ended = self.ended(None if until is None else max(0.0, until - now))
            if not ended:
                break
            for endpoint, answer in ended:
                if isinstance(answer, CountersignError):
                    answers.faults.append(answer)
                else:
                    answers.given.append((endpoint, answer))
        self.leave()
        answers.seconds = time.monotonic() - self._began
        return answers


class Tally(Generic[T]):
    """Counts equal answers. A refusal is an answer too: a deterministic no."""

    def __init__(self) -> None:
        self._votes: Counter[Hashable] = Counter()
        self._said: dict[Hashable, list[tuple[RpcEndpoint, T | Refused]]] = {}

    def add(self, endpoint: RpcEndpoint, answer: T | Refused) -> None:
        """Count an answer, which must be hashable."""
        key = (answer.reason, answer.detail) if isinstance(answer, Refused) else (None, answer)
        self._votes[key] += 1
        self._said.setdefault(key, []).append((endpoint, answer))

    @property
    def most(self) -> int:
        """How many gave the most frequent answer."""
        return max(self._votes.values(), default=0)

    def winner(self) -> T:
        """The most frequent answer.

        Raises:
            Refused: that was the answer.
        """
        ((best, _),) = self._votes.most_common(1)
        for key, said in self._said.items():
            if key != best and key != (None, None):  # noqa: PLR1714 - two different questions
                names = ", ".join(endpoint.name for endpoint, _ in said)
                log.warning("contradicted by others that agree: %s", names)
        _, answer = self._said[best][0]
        if isinstance(answer, Refused):
            raise answer
        return answer


def agree(poll: Poll[T], order: Iterable[RpcEndpoint], enough: int, tally: Tally[T]) -> list[CountersignError]:
    """Ask until ``enough`` endpoints gave an equal answer, or nobody is left; the faults of those who gave none.

    As many as needed are asked at first, and another one for each that gives none, or another one, or takes long.
    """
    waiting = deque(order)
    faults: list[CountersignError] = []
    while tally.most < enough:
        while waiting and poll.pending < enough - tally.most:
            poll.put(waiting.popleft())
        if not poll.pending:
            break
        ended = poll.ended(HEDGE_SECONDS if waiting else None)
        if not ended:
            poll.put(waiting.popleft())
        for endpoint, answer in ended:
            if isinstance(answer, CountersignError) and not isinstance(answer, Refused):
                faults.append(answer)
            else:
                tally.add(endpoint, answer)
    poll.leave()
    return faults
