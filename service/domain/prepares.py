"""Prepares of a CVM that Phala Cloud told us about, and what each means for our change requests. Pure.

Every prepare, ours included, is told by a webhook and kills the CVM's earlier commit token. Which of two came later is
decided by the times of Phala Cloud. The time of our own minting is known exactly once its echo was heard; until then
it is only known to lie in a span.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import SecretStr

from service.domain.snapshots import ChangeRequest, Intake
from service.domain.states import State

TOKEN_LIFETIME: Final = timedelta(days=14)
"""How long Phala Cloud honours a commit token."""

DOUBT: Final = timedelta(seconds=60)
"""How far a minting may be from the time that we noted: a slow answer, and clocks that differ."""


class Verdict(StrEnum):
    """What becomes of a heard prepare."""

    ECHO = "echo"
    """Our own: one of our requests holds or held its token."""
    ADOPT = "adopt"
    """The same update, later: its token takes the place of ours."""
    IGNORE = "ignore"
    """Earlier than ours, or ended: its token is dead."""
    SUPERSEDE = "supersede"
    """Another update, later: ours is over."""
    WAIT = "wait"
    """Not to be told yet; a dead token, our own echo or the end of the request will tell."""
    NEW = "new"
    """No change request holds the CVM: it becomes one."""


DECIDED: Final = frozenset({Verdict.ECHO, Verdict.ADOPT, Verdict.IGNORE, Verdict.NEW})
"""Verdicts that are stored; the others leave it undecided."""


@dataclass(frozen=True, slots=True)
class HeardPrepare:
    """A prepare as Phala Cloud told it. Hashes bytes32, address checksummed, times by Phala Cloud's clock.

    Attributes:
        ours: whether any of our requests holds or held this token.
        current: whether the request that listens holds it now.
    """

    id: str
    chain_id: int
    app_contract: str
    device_id: str
    compose_hash: str
    token: SecretStr
    expires_at: datetime
    ours: bool = False
    current: bool = False

    @property
    def minted_at(self) -> datetime:
        """When it was prepared."""
        return self.expires_at - TOKEN_LIFETIME


@dataclass(frozen=True, slots=True)
class Hearing:
    """What is known of the prepares of a request's CVM.

    Attributes:
        prepares: those not decided on yet.
        minted_at: when the token that the request holds was minted, by Phala Cloud's clock; ``None`` if not heard.
        token: the token that the request holds now; another one than a moment ago if one was handed in.
    """

    prepares: tuple[HeardPrepare, ...] = ()
    minted_at: datetime | None = None
    token: SecretStr | None = None


def same_update(request: ChangeRequest, heard: HeardPrepare) -> bool:
    """Whether the approval that ``request`` needs is the one that the heard prepare needs."""
    ours = (request.chain_id, request.app_contract, request.device_id, request.compose_hash)
    return ours == (heard.chain_id, heard.app_contract, heard.device_id, heard.compose_hash)


def judge(request: ChangeRequest, heard: HeardPrepare, minted_at: datetime | None) -> Verdict:
    """What a heard prepare means for the live request of its CVM.

    Args:
        request: the request.
        heard: the prepare.
        minted_at: see ``Hearing``.
    """
    if heard.ours:
        return Verdict.ECHO
    if request.state is State.RECEIVED:
        return Verdict.WAIT
    earliest, latest = (minted_at, minted_at) if minted_at is not None else _span(request)
    if heard.minted_at < earliest:
        return Verdict.IGNORE
    if heard.minted_at <= latest:
        return Verdict.WAIT
    return Verdict.ADOPT if same_update(request, heard) else Verdict.SUPERSEDE


def _span(request: ChangeRequest) -> tuple[datetime, datetime]:
    """Between which times the token was minted, as far as we noted them ourselves."""
    noted = request.state_entered_at if request.token_expires_at is None else request.token_expires_at - TOKEN_LIFETIME
    # A token that was handed in without its time can be as old as a token gets.
    age = TOKEN_LIFETIME if request.intake is Intake.PREPARED else timedelta(0)
    return noted - DOUBT - age, noted + DOUBT


def newest_elsewhere(request: ChangeRequest, hearing: Hearing, *, token_dead: bool = False) -> HeardPrepare | None:
    """The newest prepare elsewhere that came after ours.

    Args:
        request: the live request of the CVM.
        hearing: what was heard.
        token_dead: Phala Cloud refuses our token, so that one which may be later is taken to be.
    """
    later = {Verdict.ADOPT, Verdict.SUPERSEDE} | ({Verdict.WAIT} if token_dead else set())
    found = (heard for heard in hearing.prepares if judge(request, heard, hearing.minted_at) in later)
    return max(found, key=lambda heard: heard.expires_at, default=None)


@dataclass(frozen=True, slots=True)
class KnownPrepares:
    """What else is known of a CVM that no request holds.

    Attributes:
        newest: when its newest known prepare was made.
        unanswered: (first, last) moment between which prepares of ours without a known answer may have been made.
    """

    newest: datetime | None
    unanswered: tuple[tuple[datetime, datetime], ...]


def judge_newcomer(heard: HeardPrepare, known: KnownPrepares, now: datetime) -> Verdict:
    """What a heard prepare means when no request holds its CVM."""
    if heard.ours:
        return Verdict.ECHO
    dead = now >= heard.expires_at or (known.newest is not None and heard.minted_at < known.newest)
    return Verdict.IGNORE if dead or _within(heard.minted_at, known.unanswered) else Verdict.NEW


def _within(moment: datetime, spans: Iterable[tuple[datetime, datetime]]) -> bool:
    return any(first - DOUBT <= moment <= last + DOUBT for first, last in spans)
