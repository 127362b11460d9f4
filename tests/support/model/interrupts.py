"""Workers that die or freeze at any call of a step, and what happens in the world meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeVar

from service.domain.errors import Unreachable
from service.domain.reasons import Reason
from tests.support.fakes import Faulty, FixedClock

T = TypeVar("T")


class WorkerDied(BaseException):
    """The process is gone: nothing of the step is run any more, so no ``except Exception`` may see it."""


class Fate(Enum):
    """What becomes of the worker at the call."""

    DIES = "dies"
    FREEZES = "freezes"
    """It stops for longer than its lease, and goes on where it was."""


@dataclass
class Interrupts:
    """At most one interruption, before or after a call takes effect: the n-th from now, or the first of a method."""

    fate: Fate | None = None
    at: int | str = 0
    after: bool = False
    meanwhile: Callable[[], None] = lambda: None
    happened: int = 0
    froze: bool = False
    """Whether the worker of the present step slept past its lease: what it saw before may not be so any more."""

    def arm(self, fate: Fate, at: int | str, meanwhile: Callable[[], None], *, after: bool) -> None:
        """Interrupt the worker at its call of that number, counted from 0, or at its first call of that method."""
        self.fate, self.at, self.meanwhile, self.after = fate, at, meanwhile, after

    def disarm(self) -> None:
        """The step is over."""
        self.fate = None

    def around(self, method: str, call: Callable[[], T]) -> T:
        """Make a call of the worker; the interruption hits it, if it is the one."""
        if self.fate is None or not self._is_it(method):
            return call()
        fate, self.fate = self.fate, None
        if not self.after:
            self._hit(fate)
        try:
            return call()
        finally:
            if self.after:
                self._hit(fate)

    def _is_it(self, method: str) -> bool:
        if isinstance(self.at, str):
            return self.at == method
        self.at -= 1
        return self.at < 0

    def _hit(self, fate: Fate) -> None:
        self.happened += 1
        if fate is Fate.DIES:
            raise WorkerDied
        self.froze = True
        self.meanwhile()


class Interrupted(Faulty):
    """A part of the outside world whose every call may be the worker's last, and which may be down."""

    interrupts: Interrupts
    down: Reason | None = None

    def _call(self, method: str, effect: Callable[[], T]) -> T:
        def call() -> T:
            if self.down is not None:
                raise Unreachable("503", reason=self.down)
            return super(Interrupted, self)._call(method, effect)

        return self.interrupts.around(method, call)


class WorkersClock:
    """The clock as workers read it: between the last call of a step and its outcome there is a look at the time."""

    def __init__(self, interrupts: Interrupts, clock: FixedClock) -> None:
        self._interrupts = interrupts
        self._clock = clock

    def now(self) -> datetime:
        return self._interrupts.around("now", self._clock.now)
