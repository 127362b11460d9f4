"""Whatever can happen around a change request, each by name, with the same few numbers to choose by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.domain.conflicts import OnConflict
from service.domain.errors import Busy, CountersignError, NotVisibleYet, TokenDead, Unreachable
from service.domain.phala_facts import OperationStatus
from service.domain.reasons import Reason
from tests.support.model.outside import ModelCvm, lost
from tests.support.model.world import PATCHES, World

MOST_LIVE: Final = 6

_PHALA: Final[Mapping[str, Callable[[], CountersignError]]] = {
    "lost": lambda: lost(Reason.PHALA_UNREACHABLE),
    "503": lambda: Unreachable("503", reason=Reason.PHALA_UNREACHABLE),
    "409": lambda: Busy("409"),
    "465": lambda: NotVisibleYet("465"),
    "466": lambda: TokenDead("466"),
}
_PHALA_FAULTS: Final = [
    *(("commit", fault) for fault in ("lost", "503", "409", "465", "466", "lost")),
    *(("prepare", fault) for fault in ("lost", "409", "lost")),
    *((call, fault) for call in ("cvm", "operations", "running") for fault in ("lost", "503")),
]
_SAFE_CALLS: Final = ("post", "delete", "get", "pending", "at_nonce", "delegators")
_CHAIN_CALLS: Final = ("view", "allowed", "safe", "block", "facts", "ownership", "executions", "simulate")


@dataclass(frozen=True)
class Choice:
    """By what something is chosen: ``which`` of several, from 0 to 11, and whether a call had its effect."""

    cvm: int
    patch: int
    which: int
    after: bool

    def at(self, world: World) -> ModelCvm:
        """The CVM."""
        return world.cvms[self.cvm]

    @property
    def update(self) -> dict[str, Any]:
        """The patch."""
        return dict(PATCHES[self.patch])

    @property
    def on_conflict(self) -> OnConflict:
        """Half of the submissions take the place of another request of their CVM."""
        return OnConflict.SUPERSEDE if self.which % 2 else OnConflict.REFUSE


def _submit_patch(world: World, by: Choice) -> None:
    if len(world.live()) < MOST_LIVE:
        world.submit(
            by.cvm,
            by.update,
            None,
            days=1 if by.which == 0 else 30,
            on_conflict=by.on_conflict,
            held=by.which == 2,
            later=1200.0 if by.which == 4 else None,
        )


def _submit_prepared(world: World, by: Choice) -> None:
    prepared = world.prepare_elsewhere(by.cvm, by.update)
    if prepared is not None and len(world.live()) < MOST_LIVE:
        world.submit(by.cvm, by.update if by.after else None, prepared, days=30, on_conflict=by.on_conflict)


def _of_live(world: World, by: Choice, act: Callable[[str], None]) -> None:
    live = world.live()
    if live:
        act(live[by.which % len(live)])


def _freeze(world: World, by: Choice) -> None:
    (world.freeze if by.which < 3 else world.unfreeze)()


def _hand_in(world: World, by: Choice) -> None:
    prepared = world.prepare_elsewhere(by.cvm, by.update)
    if prepared is not None:
        _of_live(world, by, lambda request_id: world.hand_in(request_id, prepared))


def _phala_fails(world: World, by: Choice) -> None:
    call, fault = _PHALA_FAULTS[by.which % len(_PHALA_FAULTS)]
    by.at(world).fail(call, _PHALA[fault](), after_effect=by.after and fault == "lost")


def _answer_is_lost(world: World, by: Choice) -> None:
    """Of the next commit, or prepare, of any CVM: it was taken."""
    for cvm in world.cvms:
        cvm.fail("commit" if by.after else "prepare", lost(Reason.PHALA_UNREACHABLE), after_effect=True)


def _phala_is(world: World, by: Choice) -> None:
    by.at(world).down = Reason.PHALA_UNREACHABLE if by.which == 0 else None
    by.at(world).lags = by.which == 1


def _drift(world: World, by: Choice) -> None:
    by.at(world).hash_salt = "another default" if by.which == 0 else ""


def _finish(world: World, by: Choice) -> None:
    world.finish(by.cvm, OperationStatus.FAILED if by.which == 0 else OperationStatus.COMPLETED)


def _safe_service_fails(world: World, by: Choice) -> None:
    call = _SAFE_CALLS[by.which % len(_SAFE_CALLS)]
    world.queue.fail(call, lost(Reason.SAFE_SERVICE_UNREACHABLE), after_effect=by.after)


def _safe_service_is(world: World, by: Choice) -> None:
    world.queue.down = Reason.SAFE_SERVICE_UNREACHABLE if by.which < 4 else None


def _chain_fails(world: World, by: Choice) -> None:
    world.chain.fail(_CHAIN_CALLS[by.which % len(_CHAIN_CALLS)], Unreachable("503", reason=Reason.RPC_UNREACHABLE))


def _node_lags(world: World, by: Choice) -> None:
    world.chain.lag = max(0, by.which - 8)


def _receiver_is(world: World, by: Choice) -> None:
    world.receiver.status = 500 if by.which < 3 else 204
    if by.after:
        world.receiver.fail("post", lost(Reason.INTERNAL_ERROR), after_effect=True)


def _approve(world: World, by: Choice) -> None:
    """Two owners sign what is lowest, one executes it: what owners mostly do."""
    for owner in (0, 1):
        world.sign(0, owner)
    world.execute(by.which)


def _allow_elsewhere(world: World, by: Choice) -> None:
    at = by.at(world)
    world.allow_elsewhere(at.hash_of(by.update), at.info.device_id or "")


HAPPENINGS: Final[Mapping[str, Callable[[World, Choice], object]]] = {
    "submit a patch": _submit_patch,
    "submit a prepared update": _submit_prepared,
    "cancel": lambda world, by: _of_live(world, by, world.cancel),
    "release": lambda world, by: _of_live(world, by, world.release),
    "commits are frozen or may follow": _freeze,
    "ask for a fresh token": lambda world, by: _of_live(world, by, world.refresh),
    "hand in a token": _hand_in,
    "prepare elsewhere": lambda world, by: world.prepare_elsewhere(by.cvm, by.update),
    "hear of a prepare": lambda world, by: world.hear(by.cvm, by.which % 3),
    "click the commit link": lambda world, by: by.at(world).link_clicked(),
    "an operation ends": _finish,
    "Phala Cloud fails": _phala_fails,
    "the next answer is lost": _answer_is_lost,
    "Phala Cloud is down, lags, or is well": _phala_is,
    "Phala Cloud has another default": _drift,
    "owners approve": _approve,
    "an owner signs": lambda world, by: world.sign(by.which, by.cvm),
    "an owner executes": lambda world, by: world.execute(by.which),
    "an owner proposes a rejection": lambda world, by: world.propose_rejection(by.which),
    "a nonce is used otherwise": lambda world, _: world.use_nonce(),
    "an owner proposes something else": lambda world, by: world.propose_other(by.which % 3),
    "an owner deletes from the queue": lambda world, by: world.delete(by.which),
    "it is approved by another route": _allow_elsewhere,
    "the approval is taken back": lambda world, by: world.remove(by.at(world).hash_of(by.update)),
    "the Safe service fails": _safe_service_fails,
    "the Safe service is down or well": _safe_service_is,
    "blocks vanish": lambda world, by: world.chain.reorg(1 + by.which % world.chain.depth),
    "blocks are mined": lambda world, by: world.chain.mine(empty=by.which % 4),
    "the chain fails": _chain_fails,
    "a node lags": _node_lags,
    "the receiver fails or is well": _receiver_is,
    "webhooks are delivered": lambda world, _: world.deliver(),
    "the chain is read": lambda world, _: world.observe(),
}
