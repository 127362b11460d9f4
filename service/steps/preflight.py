"""Whether an approval can come about at all, asked before anything is sent."""

from typing import Final

from service.domain.chain import AppOwnership, Block, SafeState
from service.domain.errors import Refused
from service.domain.reasons import Reason
from service.domain.snapshots import WorkspacePolicy
from service.ports import Chain, SafeQueue

_OLDEST_SAFE: Final = (1, 3)
"""Older Safes hash a transaction without the chain id."""


def preflight(
    workspace: WorkspacePolicy,
    app_contract: str,
    calls: tuple[str, ...],
    *,
    chain: Chain,
    queue: SafeQueue,
    proposer: str,
    at: Block,
) -> str | None:
    """Check owner, Safe, delegate and calls of an app contract at one block.

    Args:
        workspace: whose Safes and external apps count.
        app_contract: checksummed.
        calls: ``0x``-prefixed calldatas the Safe will send to the app contract; what is not known yet is left out.
        chain: chain of the app contract.
        queue: Safe Transaction Service of that chain.
        proposer: checksummed address of the service's own key.
        at: the block to read at, usually the head.

    Returns:
        The checksummed Safe that owns the app contract, ``None`` for an app whose approval is external.

    Raises:
        Refused: with the reason why it cannot be approved.
    """
    ownership = chain.ownership(app_contract, at)
    if not ownership.has_code:
        raise Refused(f"no contract at {app_contract} on chain {chain.chain_id}", reason=Reason.APP_CONTRACT_MISSING)
    if (chain.chain_id, app_contract) in workspace.external_apps:
        return None
    safe = _registered_owner(workspace, app_contract, ownership, chain, at)
    _check_proposer(safe, queue.delegators(safe.address, proposer), proposer)
    for call in calls:
        revert = chain.simulate(safe.address, app_contract, call, at)
        if revert is not None:
            raise Refused(f"the call {call[:10]} would revert: {revert}", reason=Reason.SIMULATION_FAILED)
    return safe.address


def _registered_owner(
    workspace: WorkspacePolicy, app_contract: str, ownership: AppOwnership, chain: Chain, at: Block
) -> SafeState:
    if ownership.owner is None or (chain.chain_id, ownership.owner) not in workspace.safes:
        if ownership.pending_owner is not None and (chain.chain_id, ownership.pending_owner) in workspace.safes:
            raise Refused(
                f"{app_contract} waits for its pending owner {ownership.pending_owner}",
                reason=Reason.APP_OWNERSHIP_PENDING,
            )
        raise Refused(
            f"{app_contract} is owned by {ownership.owner or 'nobody'}", reason=Reason.APP_OWNER_NOT_REGISTERED
        )
    safe = chain.safe(ownership.owner, at)
    if safe is None:
        raise Refused(
            f"there is no Safe at {ownership.owner} on chain {chain.chain_id}", reason=Reason.APP_OWNER_NOT_REGISTERED
        )
    version = tuple(int(part) for part in safe.version.split("+")[0].split(".")[:2])
    if version < _OLDEST_SAFE:
        raise Refused(f"Safe {safe.address} has version {safe.version}, older than 1.3", reason=Reason.PROPOSAL_REFUSED)
    return safe


def _check_proposer(safe: SafeState, delegators: frozenset[str], proposer: str) -> None:
    if proposer in safe.owners:
        raise Refused(f"{proposer} is an owner of {safe.address}", reason=Reason.PROPOSER_IS_OWNER)
    if delegators.isdisjoint(safe.owners):
        raise Refused(f"{proposer} is no delegate of an owner of {safe.address}", reason=Reason.PROPOSER_NOT_DELEGATE)
