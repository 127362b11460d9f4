"""``registered``: hand token, hash and transaction back to Phala Cloud, once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from pydantic import SecretStr

from service.domain.chain import Block
from service.domain.errors import (
    Busy,
    NotFound,
    NotVisibleYet,
    Refused,
    TokenDead,
    Unauthorized,
    Unreachable,
)
from service.domain.outcomes import Advance, Facts, Outcome, Wait, stop
from service.domain.prepares import newest_elsewhere, same_update
from service.domain.reasons import Reason
from service.domain.schedules import step_backoff
from service.domain.snapshots import ChangeRequest
from service.domain.states import State
from service.ports import Chain, Clock, Phala, RequestIntents
from service.steps.approval import chain_of, needed_approval
from service.steps.ends import ending, ends_on_refusal, token_ended, wished_end
from service.steps.holding import held
from service.steps.looking import adopt_operation, find_operation, vm_uuid_of
from service.steps.renewal import adopt, renew, superseded_by

ALREADY_REGISTERED: Final = "already-registered"
"""Phala Cloud's sentinel for a commit without a transaction: it checks the contract's state only."""

_SETTLING = timedelta(seconds=60)
"""How long an operation that an unanswered commit started may take to be listed."""

_HEAD_SECONDS: Final = 5.0


@ends_on_refusal
def commit(
    request: ChangeRequest,
    *,
    phala: Phala,
    chains: Mapping[int, Chain],
    intents: RequestIntents,
    clock: Clock,
    new_id: Callable[[], str],
    lag_window_seconds: float = 600.0,
) -> Outcome:
    """Serve a request in ``registered``.

    Args:
        request: the snapshot.
        phala: Phala Cloud with the workspace's key.
        chains: configured chains by id.
        intents: stores the attempt before the POST.
        clock: the time.
        new_id: makes the id of an attempt.
        lag_window_seconds: how long Phala Cloud may fail to see an approval that is final.

    Raises:
        CountersignError: a retryable fault, or ``LeaseLost``.
    """
    needed = needed_approval(request)
    if request.commit_attempt_id is not None:
        found = _look_again(request, phala, clock)
        if found is not None:
            return found
    else:
        end = ending(request, clock.now())
        if end is not None:
            return end
    wait = held(request, clock.now())
    if wait is not None and not request.gates.removed:
        return wait
    chain = chain_of(chains, needed.chain_id)
    view = chain.view()
    if (request.evidence_block_number or 0) > view.final.number:
        detail = f"the node is behind: its final block is {view.final.number}"
        return Wait(_HEAD_SECONDS, Reason.WAITING_FOR_FINALITY, detail)
    at_final, at_head = needed.read_at(chain, view.final, view.head)
    if not at_final.both:
        raise Refused(f"not allowed at the final block {view.final.number}", reason=Reason.APPROVAL_WITHDRAWN)
    if wait is not None:
        return wait
    attempt = _Attempt(request, phala, chain, intents, clock, new_id, timedelta(seconds=lag_window_seconds))
    return attempt.run(_Newest(view.head, at_head.both))


def _look_again(request: ChangeRequest, phala: Phala, clock: Clock) -> Outcome | None:
    """What becomes of an attempt without an answer, if that is known; ``None`` to go on.

    Raises:
        Unreachable: the look failed. It is repeated for some time after the deadline: not seen is not a no.
    """
    now = clock.now()
    late = now >= request.deadline_at + timedelta(seconds=request.workspace.run_deadline_seconds)
    try:
        found = _adopt(request, phala)
    except Unreachable as fault:
        if not late:
            raise
        detail = f"a commit was sent, and what became of it could not be seen: {fault.detail}"
        return stop(State.EXPIRED, Reason.DEADLINE_PASSED, detail)
    if found is None and now >= request.deadline_at:
        attempted = request.commit_attempted_at
        if attempted is not None and now < attempted + _SETTLING:
            detail = "a commit was sent just before the deadline; its operation may be listed yet"
            return Wait(_HEAD_SECONDS, Reason.PHALA_UNREACHABLE, detail)
        return stop(State.EXPIRED, Reason.DEADLINE_PASSED, "a commit was sent, and no operation of it was seen")
    return found


def _adopt(request: ChangeRequest, phala: Phala) -> Advance | None:
    operation = find_operation(request, phala)
    return None if operation is None else adopt_operation(operation)


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest block, and whether the approval is there."""

    block: Block
    allowed: bool


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One round: a POST, and when the token is dead one more with a fresh token."""

    request: ChangeRequest
    phala: Phala
    chain: Chain
    intents: RequestIntents
    clock: Clock
    new_id: Callable[[], str]
    lag_window: timedelta

    def run(self, newest: _Newest) -> Outcome:
        token = self.request.commit_token
        if token is None or token_ended(self.request, self.clock.now()):
            return self._renew("the commit token ended")
        try:
            return self._post(token, newest, repeats=self.request.commit_attempt_id)
        except TokenDead as dead:
            return _adopt(self.request, self.phala) or self._renew(dead.detail)

    def _renew(self, why: str) -> Outcome:
        """Commit with a fresh token: of a prepare elsewhere, or of the same patch prepared again.

        A newer prepare of another update is never killed by preparing again: it supersedes the request.
        """
        request, now = self.request, self.clock.now()
        attempted = request.commit_attempted_at
        if request.commit_attempt_id is not None and attempted is not None and now < attempted + _SETTLING:
            # The POST just refused did not land: what is waited for is the earlier one, from its time.
            facts = Facts(commit_attempted_at=attempted)
            return self._wait(Reason.PHALA_UNREACHABLE, f"{why}; an unanswered commit may have spent it", facts)
        unwanted = wished_end(request)
        if unwanted is not None:
            # A wish that came during an unanswered attempt, which is over: its newer prepare must not be killed.
            return unwanted
        hearing = self.intents.heard()
        newest = newest_elsewhere(request, hearing, token_dead=True)
        if newest is not None and not same_update(request, newest):
            return superseded_by(newest)
        handed_in = hearing.token if hearing.token != request.commit_token else None
        token = handed_in if newest is None else adopt(newest, self.intents, now).token
        if token is None:
            return self._prepare_again(why)
        try:
            return self._post(token, self._look(), repeats=None)
        except TokenDead as dead:
            return _adopt(request, self.phala) or self._prepare_again(dead.detail)

    def _prepare_again(self, why: str) -> Outcome:
        if self.request.patch is None:
            if token_ended(self.request, self.clock.now()):
                return stop(State.EXPIRED, Reason.TOKEN_EXPIRED, why)
            raise Refused(why, reason=Reason.TOKEN_REFUSED)
        renewed = renew(self.request, self.phala, self.intents, self.clock)
        if isinstance(renewed, Advance):
            return renewed
        try:
            return self._post(renewed.token, self._look(), repeats=None)
        except TokenDead as dead:
            found = _adopt(self.request, self.phala)
            if found is None:
                raise Refused(f"a fresh token was refused too: {dead.detail}", reason=Reason.TOKEN_REFUSED) from dead
            return found

    def _look(self) -> _Newest:
        """Read the newest state again: what was read before the preparing is old by now."""
        head = self.chain.view().head
        return _Newest(head, needed_approval(self.request).read(self.chain, head).both)

    def _post(self, token: SecretStr, newest: _Newest, *, repeats: str | None) -> Outcome:
        """Send one commit if the approval is there still.

        Args:
            token: the commit token.
            newest: read just now.
            repeats: names an earlier attempt with this token whose outcome is unknown.

        Raises:
            TokenDead: Phala Cloud refuses the token.
            CountersignError: a deterministic no, or the look after an unanswered POST failed.
        """
        request, needed = self.request, needed_approval(self.request)
        if not newest.allowed:
            detail = f"not allowed any more at block {newest.block.number}"
            return Wait(_HEAD_SECONDS, Reason.WAITING_FOR_FINALITY, detail)
        since = request.commit_refused_since
        last = since is not None and self.clock.now() >= since + self.lag_window
        transaction = ALREADY_REGISTERED if last else request.transaction_hash or ALREADY_REGISTERED
        self._record_attempt(repeats)
        try:
            correlation_id = self.phala.commit(vm_uuid_of(request), token, needed.compose_hash, transaction)
        except NotVisibleYet as lag:
            if last:
                raise Refused(lag.detail, reason=Reason.COMMIT_REFUSED) from lag
            return self._wait_for_lag(lag)
        except (Busy, Unreachable, Refused) as fault:
            return _adopt(request, self.phala) or self._after(fault, repeats)
        except (Unauthorized, NotFound):
            if repeats is None:
                self.intents.record(Facts(commit_attempt_id=None))  # it did not land: nothing has to be looked for
                raise
            # The earlier attempt may have landed all the same.
            found = _adopt(request, self.phala)
            if found is None:
                raise
            return found
        return Advance(State.COMMITTED, Facts(correlation_id=correlation_id, commit_token=None))

    def _record_attempt(self, repeats: str | None) -> None:
        """Store the POST before it is sent: a repeat goes on under its attempt's id, with a time of its own."""
        attempt_id = self.new_id() if repeats is None else repeats
        facts = Facts(commit_attempt_id=attempt_id, commit_attempted_at=self.clock.now())
        self.intents.record(facts, commits=True)

    def _after(self, fault: Busy | Unreachable | Refused, repeats: str | None) -> Wait:
        if isinstance(fault, Refused):
            raise Refused(fault.detail, reason=Reason.COMMIT_REFUSED) from fault
        unknown = repeats is not None or (isinstance(fault, Unreachable) and fault.outcome_unknown)
        facts = Facts() if unknown else Facts(commit_attempt_id=None)
        return self._wait(fault.reason, fault.detail, facts, fault.retry_after)

    def _wait_for_lag(self, lag: NotVisibleYet) -> Wait:
        now = self.clock.now()
        since = self.request.commit_refused_since or now
        wait = self._wait(
            lag.reason, lag.detail, Facts(commit_attempt_id=None, commit_refused_since=since), lag.retry_after
        )
        left = (since + self.lag_window - now).total_seconds()
        return replace(wait, seconds=min(wait.seconds, left))

    def _wait(self, reason: Reason, detail: str, facts: Facts | None = None, retry_after: float | None = None) -> Wait:
        seconds = step_backoff(self.request.attempts + 1, retry_after)
        return Wait(seconds, reason, detail, facts or Facts(), failed_attempt=True)
