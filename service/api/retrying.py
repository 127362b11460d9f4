"""A change request that ended, submitted once more."""

from service.api import submissions
from service.api.bodies import RetryBody
from service.api.deps import Caller
from service.api.patch import warnings_about
from service.api.problems import NOTHING_TO_RETRY, PREPARE_NEEDED, Problem
from service.domain.api_keys import Scope
from service.domain.gates import CommitPolicy
from service.domain.states import TERMINAL, State
from service.store.requests import Submission
from service.store.tables import ChangeRequest


def retry(row: ChangeRequest, body: RetryBody, caller: Caller) -> ChangeRequest:
    """Keep a new change request with the patch of one that ended.

    Raises:
        Problem: ``nothing_to_retry``, ``prepare_needed``, or whatever keeps a submission from being stored.
    """
    state = State(row.state)
    if state not in TERMINAL or state is State.COMPLETED:
        raise Problem(NOTHING_TO_RETRY, f"The change request is {state}. {NOTHING_TO_RETRY.meaning}")
    if row.patch is None:
        raise Problem(PREPARE_NEEDED, f"{PREPARE_NEEDED.meaning} {PREPARE_NEEDED.remedy}")
    now = caller.parts.clock.now()
    may_loosen = caller.holder.scope.includes(Scope.MANAGE)
    policy = None if row.commit_policy is None else CommitPolicy(row.commit_policy)
    again = Submission(
        workspace_id=caller.workspace_id,
        cvm_id=row.vm_uuid or row.cvm_id,  # whoever has the name now
        vm_uuid=row.vm_uuid,
        patch=row.patch,
        prepared=None,
        title=row.title,
        allow_without_approval=row.allow_without_approval,
        warnings=warnings_about(row.patch),
        deadline_seconds=body.deadline_seconds or round((row.deadline_at - row.created_at).total_seconds()),
        change_reason=row.change_reason,
        change_links=row.change_links,
        change_metadata=row.change_metadata,
        on_conflict=body.on_conflict,
        commit_policy=policy if may_loosen or policy is CommitPolicy.HOLD else None,
        may_loosen=may_loosen,
        not_before=row.not_before if row.not_before is not None and row.not_before > now else None,
        retry_of=row.id,
    )
    return submissions.store(again, caller)
