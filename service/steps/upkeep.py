"""What goes on beside the state while a request waits: hear of prepares, renew its token, tell that time runs out.

A fault of Phala Cloud is counted and shown, and never keeps the request from looking at the chain.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from service.domain.countdown import REFRESH_WINDOW, mark_to_tell
from service.domain.errors import CountersignError, LeaseLost
from service.domain.outcomes import Advance, Facts, News, Notice, Outcome, Wait
from service.domain.prepares import Hearing, Verdict, judge, newest_elsewhere, same_update
from service.domain.schedules import step_backoff
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.ports import Clock, Phala, RequestIntents
from service.steps.ends import ending, token_ended
from service.steps.looking import adopt_operation, find_operation
from service.steps.renewal import adopt, renew, superseded_by

_WAITING: Final = frozenset({State.PREPARED, State.PROPOSED, State.EXECUTED})
_SERVED: Final = _WAITING | {State.REGISTERED}
_PACE: Final = 10
"""There are days to renew a token in: pauses between tries are so many times those of a step."""

_ADVICE: Final = {
    "deadline": "Have the owners execute the approval before then; the request expires otherwise.",
    "renewable token": "Nothing to do: the service renews it.",
    "token": "Prepare the same update again and hand it in with POST .../refresh; the request expires otherwise.",
}


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What upkeep leaves behind.

    Attributes:
        request: the request as it is now; its step goes on with this one.
        end: the outcome, if there is nothing left for its step to do.
        pause: look again after so many seconds at the latest.
    """

    request: ChangeRequest
    end: Advance | None = None
    pause: float | None = None

    def bound(self, outcome: Outcome) -> Outcome:
        """The step's outcome, with a wait that is no longer than ``pause``."""
        if self.pause is None or not isinstance(outcome, Wait):
            return outcome
        return replace(outcome, seconds=min(outcome.seconds, self.pause))


def upkeep(request: ChangeRequest, *, phala: Callable[[], Phala], intents: RequestIntents, clock: Clock) -> Upkeep:
    """Serve what any request that holds a commit token needs. A stored commit attempt decides for itself.

    Args:
        request: the snapshot.
        phala: makes Phala Cloud with the workspace's key, when it is needed.
        intents: stores what happens.
        clock: the time.

    Raises:
        LeaseLost: another worker took over.
    """
    now = clock.now()
    if request.state not in _SERVED or request.commit_attempt_id is not None:
        return Upkeep(request)
    if request.cancel_requested_at is not None or now >= request.deadline_at:
        return Upkeep(request)
    heard = _listen(request, intents.heard(), intents, now) if request.undecided_prepares else request
    if isinstance(heard, Advance):
        return Upkeep(request, end=heard)
    kept = Upkeep(heard)
    if _is_refresh_due(heard, now):
        kept = _refresh(heard, phala, intents, clock)
    if kept.end is None and ending(kept.request, now) is None:
        kept = replace(kept, request=_count_down(kept.request, intents, now))
    return kept


def _listen(
    request: ChangeRequest, hearing: Hearing, intents: RequestIntents, now: datetime
) -> ChangeRequest | Advance:
    """Act on prepares of the CVM that were heard of."""
    newest = newest_elsewhere(request, hearing, token_dead=token_ended(request, now))
    if newest is not None and not same_update(request, newest):
        return superseded_by(newest)
    verdicts: dict[str, Verdict] = {}
    for heard in hearing.prepares:
        verdict = judge(request, heard, hearing.minted_at)
        if verdict in (Verdict.ADOPT, Verdict.SUPERSEDE) and heard is not newest:
            verdict = Verdict.IGNORE
        if verdict in (Verdict.ECHO, Verdict.IGNORE):
            verdicts[heard.id] = verdict
    # Phala Cloud knows better than we when the token that we hold ends.
    told = next((heard.expires_at for heard in hearing.prepares if heard.current), request.token_expires_at)
    if verdicts:
        intents.publish(News(Facts(token_expires_at=told), heard=verdicts), now)
        request = replace(request, token_expires_at=told)
    return request if newest is None else adopt(newest, intents, now).of(request)


def _is_refresh_due(request: ChangeRequest, now: datetime) -> bool:
    if request.patch is None or (request.refresh_due_at is not None and now < request.refresh_due_at):
        return False
    ends_at = request.token_expires_at
    soon = request.state in _WAITING and ends_at is not None and now >= ends_at - REFRESH_WINDOW
    return soon or request.refresh_requested_at is not None


def _is_ours_the_newest(request: ChangeRequest, hearing: Hearing) -> bool:
    """Whether no prepare of another update is known that may have come later; preparing again would kill it."""
    newest = newest_elsewhere(request, hearing, token_dead=True)
    return newest is None or same_update(request, newest)


def _refresh(request: ChangeRequest, phala: Callable[[], Phala], intents: RequestIntents, clock: Clock) -> Upkeep:
    try:
        client = phala()
        # Somebody may have used the commit link: what runs already would be applied a second time.
        found = find_operation(request, client)
        if found is not None:
            return Upkeep(request, end=adopt_operation(found))
        if not _is_ours_the_newest(request, intents.heard()):
            return Upkeep(request)
        renewed = renew(request, client, intents, clock)
    except LeaseLost:
        raise
    except CountersignError as fault:
        return _failed(request, fault, intents, clock.now())
    return Upkeep(request, end=renewed) if isinstance(renewed, Advance) else Upkeep(renewed.of(request))


def _failed(request: ChangeRequest, fault: CountersignError, intents: RequestIntents, now: datetime) -> Upkeep:
    """Phala Cloud did not renew it: counted, shown, tried again; the request goes on waiting for its approval."""
    attempts = request.refresh_attempts + 1
    pause = _PACE * step_backoff(attempts, fault.retry_after)
    due_at = now + timedelta(seconds=pause)
    facts = Facts(
        refresh_attempts=attempts,
        refresh_due_at=due_at,
        refresh_reason=fault.reason.value,
        refresh_detail=fault.detail,
    )
    intents.record(facts)
    return Upkeep(replace(request, refresh_attempts=attempts, refresh_due_at=due_at), pause=pause)


def _count_down(request: ChangeRequest, intents: RequestIntents, now: datetime) -> ChangeRequest:
    """Tell once at each mark that the token or the deadline is near; the mark is stored with the event."""
    token, deadline = _token_mark(request, now), _deadline_mark(request, now)
    facts, notices = Facts(), []
    if token is not None and request.token_expires_at is not None:
        facts["token_told"] = token
        advice = _ADVICE["token" if request.patch is None else "renewable token"]
        notices.append((Notice.EXPIRING, _expiring("token", request.token_expires_at, advice)))
    if deadline is not None:
        facts["deadline_told"] = deadline
        notices.append((Notice.EXPIRING, _expiring("deadline", request.deadline_at, _ADVICE["deadline"])))
    if notices:
        intents.publish(News(facts, tuple(notices)), now)
    return request


def _token_mark(request: ChangeRequest, now: datetime) -> int | None:
    # A token that outlives the request need not be spoken of.
    ends_at = request.token_expires_at
    if ends_at is None or ends_at >= request.deadline_at or token_ended(request, now):
        return None
    return mark_to_tell(ends_at, now, told=request.token_told)


def _deadline_mark(request: ChangeRequest, now: datetime) -> int | None:
    return mark_to_tell(request.deadline_at, now, told=request.deadline_told, began_at=request.created_at)


def _expiring(what: str, ends_at: datetime, advice: str) -> dict[str, object]:
    return {"what": what, "ends_at": ends_at.isoformat(), "advice": advice}
