"""What the policy of a workspace says about a caller, beside the scope that a route needs of every workspace's keys."""

from service.api.auth import require
from service.api.deps import Caller
from service.api.problems import NOT_PERMITTED, WORKSPACE_BLOCKED, Problem
from service.domain.workspaces import PolicyAct
from service.store import api_keys
from service.store.tables import ChangeRequest


def permit(caller: Caller, act: PolicyAct) -> None:
    """Refuse a caller whose key is too small for an act here, or whose workspace the operator blocked.

    Raises:
        Problem: ``insufficient_scope`` or ``workspace_blocked``.
    """
    holder = caller.holder
    require(holder, holder.policy.least[act])
    if holder.blocked is not None and act is not PolicyAct.CANCEL:
        raise Problem(WORKSPACE_BLOCKED, f"The operator blocked this workspace: {holder.blocked}")


def permit_cancel(caller: Caller, row: ChangeRequest) -> None:
    """The same for cancelling one change request.

    Raises:
        Problem: ``insufficient_scope`` or ``not_permitted``.
    """
    permit(caller, PolicyAct.CANCEL)
    if caller.holder.policy.may_cancel_others(caller.holder.scope):
        return
    with caller.database.transaction() as session:
        own = row.submitted_by is not None and api_keys.is_successor(session, caller.holder.key_id, row.submitted_by)
    if not own:
        raise Problem(
            NOT_PERMITTED,
            "In this workspace a change request is cancelled by the key that submitted it, or by one of scope manage.",
        )
