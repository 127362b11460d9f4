"""Whether an approval can come about at all, asked before anything is sent."""

import re
from typing import Final

from service.domain.approver import Approver
from service.domain.calls import MULTI_SEND_CALL_ONLY, MULTI_SEND_CODE_HASH, inner_calls
from service.domain.chain import AppOwnership, Block, SafeState
from service.domain.errors import Refused
from service.domain.hexes import ZERO_ADDRESS
from service.domain.outcomes import Facts
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest, WorkspacePolicy
from service.domain.workspaces import safe_subject
from service.ports import Chain, RequestIntents, SafeQueue

_SUPPORTED: Final = re.compile(r"1\.[345]\.")
"""Safe versions whose transactions are hashed as ``domain.calls`` does: older ones leave the chain id out, and what a
newer one does is not known."""
SOME_HASH: Final = "0x" + "5a" * 32
"""Stands for a compose hash that is not known before the prepare: the contract treats all alike."""


def app_of(app_contract: str, chain: Chain, at: Block) -> AppOwnership:
    """The app contract and who owns it at one block.

    Raises:
        Refused: there is none, or it is no DstackApp.
    """
    app = chain.ownership(app_contract, at)
    if not app.has_code:
        raise Refused(f"no contract at {app_contract} on chain {chain.chain_id}", reason=Reason.APP_CONTRACT_MISSING)
    if not app.is_app:
        raise Refused(
            f"the contract {app_contract} on chain {chain.chain_id} is no DstackApp", reason=Reason.APP_CONTRACT_FOREIGN
        )
    return app


def preflight(
    workspace: WorkspacePolicy,
    app_contract: str,
    app: AppOwnership,
    compose_hash: str,
    devices: tuple[str, ...],
    *,
    chain: Chain,
    queue: SafeQueue,
    proposer: str,
    at: Block,
) -> Approver:
    """Check owner, Safe, delegate and calls at one block.

    Args:
        workspace: whose Safes and external apps count.
        app_contract: checksummed.
        app: what ``app_of`` says of it at that block.
        compose_hash: bytes32 to be allowed, or ``SOME_HASH``.
        devices: bytes32 ids to be allowed with it.
        chain: chain of the app contract.
        queue: Safe Transaction Service of that chain.
        proposer: checksummed address of the service's own key.
        at: the block to read at, usually the head.

    Raises:
        Refused: with the reason why it cannot be approved.
    """
    if app.owner == ZERO_ADDRESS:
        raise Refused(f"the ownership of {app_contract} was renounced", reason=Reason.APP_OWNERSHIP_RENOUNCED)
    if (chain.chain_id, app_contract) in workspace.external_apps:
        return Approver(app, None)
    safe = _registered_owner(workspace, app_contract, app, chain, at)
    _check_proposer(safe, queue.delegators(safe.address, proposer), proposer, chain.chain_id)
    if devices:
        _check_multi_send(chain, at)
    for call in inner_calls(compose_hash, devices):
        revert = chain.simulate(safe.address, app_contract, call, at)
        if revert is not None:
            raise Refused(f"the call {call[:10]} would revert: {revert}", reason=Reason.SIMULATION_FAILED)
    return Approver(app, safe)


def warn(request: ChangeRequest, approver: Approver, chain: Chain, intents: RequestIntents) -> None:
    """Store the warnings that the request does not carry yet.

    Raises:
        LeaseLost: another worker took over.
    """
    new = [text for text in approver.warnings(chain.chain_id) if text not in request.warnings]
    if new:
        intents.record(Facts(warnings=[*request.warnings, *new]))


def _registered_owner(
    workspace: WorkspacePolicy, app_contract: str, app: AppOwnership, chain: Chain, at: Block
) -> SafeState:
    if app.owner is None or (chain.chain_id, app.owner) not in workspace.safes:
        if app.pending_owner is not None and (chain.chain_id, app.pending_owner) in workspace.safes:
            raise Refused(
                f"{app_contract} is still owned by {app.owner or 'nobody'}: the Safe {app.pending_owner} must call "
                "acceptOwnership() on it",
                reason=Reason.APP_OWNERSHIP_PENDING,
            )
        raise Refused(f"{app_contract} is owned by {app.owner or 'nobody'}", reason=Reason.APP_OWNER_NOT_REGISTERED)
    safe = chain.safe(app.owner, at)
    if safe is None:
        raise Refused(
            f"there is no Safe at {app.owner} on chain {chain.chain_id}",
            reason=Reason.APP_OWNER_NO_SAFE,
            subject=safe_subject(chain.chain_id, app.owner),
        )
    if _SUPPORTED.match(safe.version) is None:
        raise Refused(f"Safe {safe.address} has version {safe.version}", reason=Reason.SAFE_VERSION_UNSUPPORTED)
    return safe


def _check_proposer(safe: SafeState, delegators: frozenset[str], proposer: str, chain_id: int) -> None:
    if proposer in safe.owners:
        raise Refused(f"{proposer} is an owner of {safe.address}", reason=Reason.PROPOSER_IS_OWNER)
    if delegators.isdisjoint(safe.owners):
        raise Refused(
            f"{proposer} is no delegate of an owner of {safe.address}",
            reason=Reason.PROPOSER_NOT_DELEGATE,
            subject=safe_subject(chain_id, safe.address),
        )


def _check_multi_send(chain: Chain, at: Block) -> None:
    """A DELEGATECALL to an address without code succeeds and does nothing; to other code, it does anything."""
    found = chain.code_hash(MULTI_SEND_CALL_ONLY, at)
    if found != MULTI_SEND_CODE_HASH:
        what = "there is no contract" if found is None else "there is another contract"
        raise Refused(f"{what} at {MULTI_SEND_CALL_ONLY} on chain {chain.chain_id}", reason=Reason.MULTISEND_MISSING)
