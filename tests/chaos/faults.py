"""Random faults: a plan that follows from its seed alone, and how each fault is brought about."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.chaos.proxy import Answer, Behaviour, BlackHole, Corrupt, Cut, Delay, DropAnswers
from tests.chaos.site import KINDS, Site


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks.

    Attributes:
        at: seconds after the beginning.
        seconds: how long.
        target: a process, or what a proxy stands in front of.
        kind: what happens to it.
    """

    at: float
    seconds: float
    target: str
    kind: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how long it lasts at least and at most, in seconds."""

    least: float
    most: float


_HTTP: Final = {
    "delay": Kind(1, 5),
    "cut": Kind(0.5, 5),
    "black hole": Kind(1, 8),
    "corrupt": Kind(0.5, 3),
    "500": Kind(0.5, 4),
    "503": Kind(1, 8),
    "429": Kind(1, 5),
    "answers dropped": Kind(0.5, 4),
}
_PROCESS: Final = {"kill -9": Kind(0.2, 2), "frozen": Kind(1, 5), "frozen past its lease": Kind(16, 19)}
_SERVER: Final = {"restart": Kind(0.2, 1), "kill -9": Kind(0.2, 2), "frozen": Kind(1, 4)}
_WIRE: Final = {"delay": Kind(0.5, 2), "cut": Kind(0.5, 4), "black hole": Kind(1, 8), "answers dropped": Kind(0.3, 2)}

LANES: Final[Sequence[Mapping[str, Mapping[str, Kind]]]] = (
    {
        "worker": _PROCESS,
        "worker-2": _PROCESS,
        "serve": {name: _PROCESS[name] for name in ("kill -9", "frozen")},
        "beat": {name: _PROCESS[name] for name in ("kill -9", "frozen")},
        "watch": {name: _PROCESS[name] for name in ("kill -9", "frozen")},
    },
    {
        "redis": {**_SERVER, **_WIRE, "flushall": Kind(0.1, 0.1), "corrupt": Kind(0.3, 1)},
        "postgres": {**_SERVER, **_WIRE},
    },
    {
        "phala": {**_HTTP, "behind the chain": Kind(2, 6), "busy with another operation": Kind(1, 4)},
        "safe_service": _HTTP,
    },
    {
        "rpc": _HTTP,
        "ws": _WIRE,
        "receiver": _HTTP,
        "api": {name: _HTTP[name] for name in ("delay", "cut", "black hole", "503", "answers dropped")},
        "chain": {"reorg": Kind(0.1, 0.1)},
    },
)
"""What breaks at the same time as what: of a lane one at a time."""

_GAP_SECONDS: Final = (1.0, 6.0)
_WEIGHTS: Final = {"worker": 3, "worker-2": 3, "phala": 2, "postgres": 2}


def plan(seed: int, count: int) -> list[Fault]:
    """So many faults, in the order in which they begin."""
    chance = random.Random(seed)
    free = [0.0] * len(LANES)
    faults = []
    for _ in range(count):
        lane = min(range(len(LANES)), key=free.__getitem__)
        targets = sorted(LANES[lane])
        (target,) = chance.choices(targets, [_WEIGHTS.get(name, 1) for name in targets])
        name = chance.choice(sorted(LANES[lane][target]))
        kind = LANES[lane][target][name]
        at = free[lane] + chance.uniform(*_GAP_SECONDS)
        fault = Fault(round(at, 2), round(chance.uniform(kind.least, kind.most), 2), target, name)
        free[lane] = fault.at + fault.seconds
        faults.append(fault)
    return sorted(faults, key=lambda fault: fault.at)


def _behaviour(kind: str, seconds: float) -> Behaviour | None:
    behaviours: dict[str, Behaviour] = {
        "delay": Delay(seconds / 4),
        "cut": Cut(),
        "black hole": BlackHole(),
        "corrupt": Corrupt(),
        "500": Answer(500),
        "503": Answer(503),
        "429": Answer(429, retry_after=1),
        "answers dropped": DropAnswers(),
    }
    return behaviours.get(kind)


@contextmanager
def broken(site: Site, fault: Fault) -> Iterator[None]:
    """The fault lasts as long as the block."""
    behaviour = _behaviour(fault.kind, fault.seconds)
    if behaviour is not None:
        begin, end = _at_the_proxy(site, fault.target, behaviour)
    elif fault.target in KINDS:
        begin, end = _to_a_process(site, fault)
    elif fault.target in {"redis", "postgres"}:
        begin, end = _to_a_server(site, fault)
    else:
        begin, end = _to_the_world(site, fault)
    begin()
    try:
        yield
    finally:
        end()


Acts = tuple[Callable[[], object], Callable[[], object]]
"""How a fault begins and how it ends."""


def _nothing() -> None:
    """What ends by itself."""


def _at_the_proxy(site: Site, target: str, behaviour: Behaviour) -> Acts:
    proxy = site.proxies[target]
    return lambda: proxy.behave(behaviour), proxy.pass_on


def _to_a_process(site: Site, fault: Fault) -> Acts:
    if fault.kind == "kill -9":
        return lambda: site.kill(fault.target), lambda: site.bring_back(fault.target)
    process = site.process(fault.target)
    return process.pause, process.resume


def _to_a_server(site: Site, fault: Fault) -> Acts:
    process = site.process(fault.target)
    acts: dict[str, Acts] = {
        "restart": (process.stop, lambda: site.start_server(fault.target)),
        "kill -9": (process.kill, lambda: site.start_server(fault.target)),
        "frozen": (process.pause, process.resume),
        "flushall": (site.stack.flush_broker, _nothing),
    }
    return acts[fault.kind]


def _to_the_world(site: Site, fault: Fault) -> Acts:
    world = site.world
    cvm = site.cvms[int(fault.at * 100) % len(site.cvms)]
    acts: dict[str, Acts] = {
        "behind the chain": (lambda: world.phala.lag(4), lambda: world.phala.lag(0)),
        "busy with another operation": (lambda: site.keep_busy(cvm, fault.seconds), _nothing),
        "reorg": (lambda: site.stack.reorg(1), _nothing),
    }
    return acts[fault.kind]
