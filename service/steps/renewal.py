"""A fresh commit token for the same update: of a prepare elsewhere that was heard of, or of a prepare of our own."""

from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import SecretStr

from service.domain.errors import CountersignError, Refused, Unreachable
from service.domain.outcomes import Advance, Facts, News, Notice, stop
from service.domain.phala_facts import AppliedAtOnce, Prepared
from service.domain.prepares import TOKEN_LIFETIME, HeardPrepare, Verdict
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.ports import Clock, Phala, RequestIntents
from service.steps.looking import vm_uuid_of


def superseded_by(newer: HeardPrepare) -> Advance:
    """The end by a newer prepare of another update."""
    detail = f"a prepare of {newer.minted_at.isoformat()} has hash {newer.compose_hash} on device {newer.device_id}"
    return stop(State.SUPERSEDED, Reason.SUPERSEDED_BY_PREPARE, detail)


@dataclass(frozen=True, slots=True)
class FreshToken:
    """A commit token that is stored already."""

    token: SecretStr
    expires_at: datetime

    def of(self, request: ChangeRequest) -> ChangeRequest:
        """The request as it is with it."""
        return replace(
            request,
            commit_token=self.token,
            token_expires_at=self.expires_at,
            token_told=None,
            refresh_requested_at=None,
            refresh_attempted_at=None,
            refresh_due_at=None,
            refresh_attempts=0,
        )


def adopt(newer: HeardPrepare, intents: RequestIntents, now: datetime) -> FreshToken:
    """Take the token of a later prepare of the same update.

    Raises:
        LeaseLost: another worker took over.
    """
    fresh = FreshToken(newer.token, newer.expires_at)
    intents.publish(replace(_refreshed(fresh), heard={newer.id: Verdict.ADOPT}), now)
    return fresh


def renew(request: ChangeRequest, phala: Phala, intents: RequestIntents, clock: Clock) -> FreshToken | Advance:
    """Prepare the very same patch again: a fresh token, or the request's end.

    The intent is stored first. A prepare without an answer is simply made again: same hash, fresh token, the older one
    dead. The approval stands as long as the hash is the same.

    Raises:
        CountersignError: Phala Cloud does not, or not now; a deterministic no has the reason ``prepare_refused``.
        ValueError: there is no patch.
    """
    if request.patch is None:
        raise ValueError(f"change request {request.id} has no patch to prepare again")
    now = clock.now()
    pending_since = request.refresh_attempted_at or now
    intents.record(Facts(prepare_attempted_at=now, refresh_attempted_at=pending_since, commit_attempt_id=None))
    try:
        answer = phala.prepare(vm_uuid_of(request), request.patch)
    except CountersignError as fault:
        if not (isinstance(fault, Unreachable) and fault.outcome_unknown):
            # Nothing was prepared now; an earlier attempt without an answer stays one.
            intents.record(Facts(refresh_attempted_at=request.refresh_attempted_at))
        if isinstance(fault, Refused):
            raise Refused(fault.detail, reason=Reason.PREPARE_REFUSED) from fault
        raise
    if isinstance(answer, AppliedAtOnce):
        return _applied_at_once(answer)
    other = _difference(request, answer)
    if other is not None:
        return other
    fresh = FreshToken(answer.commit_token, now + TOKEN_LIFETIME)
    intents.publish(_refreshed(fresh), now)
    return fresh


def _refreshed(fresh: FreshToken) -> News:
    facts = Facts(
        commit_token=fresh.token.get_secret_value(),
        token_expires_at=fresh.expires_at,
        token_told=None,
        refresh_requested_at=None,
        refresh_attempted_at=None,
        refresh_due_at=None,
        refresh_attempts=0,
        refresh_reason=None,
        refresh_detail=None,
    )
    return News(facts, ((Notice.TOKEN_REFRESHED, {"token_expires_at": fresh.expires_at.isoformat()}),))


def _applied_at_once(answer: AppliedAtOnce) -> Advance:
    alert = "Phala Cloud applied the change at once when its commit token was renewed"
    return Advance(
        State.COMMITTED,
        Facts(correlation_id=answer.correlation_id, commit_token=None),
        detail=alert,
        notices=((Notice.ALERT, {"message": alert, "correlation_id": answer.correlation_id}),),
    )


def _difference(request: ChangeRequest, answer: Prepared) -> Advance | None:
    """The end by an answer that is not about the approved update.

    Its token is named as held, so that its webhook is recognised as our own; an ended request keeps none.
    """
    held = Facts(commit_token=answer.commit_token.get_secret_value())
    if answer.compose_hash != request.compose_hash:
        detail = f"the approved hash is {request.compose_hash}, the same patch now gives {answer.compose_hash}"
        return stop(State.FAILED, Reason.COMPOSE_DRIFT, detail, held)
    told = (answer.app_contract, answer.chain_id, answer.device_id)
    expected = (request.app_contract, request.chain_id, request.device_id)
    if told != expected:
        detail = f"the same patch is now prepared for {told}, it was {expected}"
        return stop(State.FAILED, Reason.PREPARED_MISMATCH, detail, held)
    return None
