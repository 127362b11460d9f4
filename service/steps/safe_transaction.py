"""The Safe transaction of a proposal, recomputed before it counts."""

from service.domain.calls import SafeCall, approval_call, rejection_call, safe_tx_hash
from service.domain.chain import Block, SafeState
from service.domain.errors import Refused
from service.domain.reasons import Reason
from service.domain.snapshots import Proposal, SafeTransaction
from service.ports import Chain, Signer

ZERO_DEVICE = "0x" + "0" * 64


def verified_approval(proposal: Proposal, transaction: SafeTransaction, chain_id: int) -> SafeTransaction:
    """``transaction``, once its call and safeTxHash follow from what the proposal approves.

    Raises:
        Refused: they do not; such a transaction must never be signed.
    """
    call = approval_call(proposal.app_contract, proposal.compose_hash, proposal.devices)
    return _verified(proposal, transaction, call, chain_id)


def verified_rejection(proposal: Proposal, transaction: SafeTransaction, chain_id: int) -> SafeTransaction:
    """The same for the rejection.

    Raises:
        Refused: as above.
    """
    return _verified(proposal, transaction, rejection_call(safe_of(proposal)), chain_id)


def _verified(proposal: Proposal, transaction: SafeTransaction, call: SafeCall, chain_id: int) -> SafeTransaction:
    safe = safe_of(proposal)
    tx_hash = safe_tx_hash(chain_id, safe, call, transaction.nonce)
    if (transaction.safe, transaction.call, transaction.safe_tx_hash) != (safe, call, tx_hash):
        raise Refused(
            f"the stored Safe transaction {transaction.id} is not the one the proposal asks for",
            reason=Reason.PROPOSAL_REFUSED,
        )
    return transaction


def safe_of(proposal: Proposal) -> str:
    """Checksummed Safe of a proposal that goes through one.

    Raises:
        ValueError: its approval is external.
    """
    if proposal.safe is None:
        raise ValueError(f"proposal {proposal.id} has no Safe")
    return proposal.safe


def safe_state(proposal: Proposal, chain: Chain, at: Block) -> SafeState:
    """The proposal's Safe at one block.

    Raises:
        Refused: there is none.
    """
    state = chain.safe(safe_of(proposal), at)
    if state is None:
        raise Refused(
            f"there is no Safe at {proposal.safe} on chain {chain.chain_id}", reason=Reason.APP_OWNER_NOT_REGISTERED
        )
    return state


def delegate_only(signer: Signer, safe: SafeState) -> None:
    """Nothing more than this stands between the service's signature and an approval.

    Raises:
        Refused: its key is an owner of the Safe, so what it signs would count.
    """
    if signer.address in safe.owners:
        raise Refused(f"{signer.address} has become an owner of {safe.address}", reason=Reason.PROPOSER_IS_OWNER)


def is_approved(proposal: Proposal, chain: Chain, at: Block) -> bool:
    """Whether everything the proposal asks for is allowed at a block, by whatever route."""
    reads = (
        chain.allowed(proposal.app_contract, proposal.compose_hash, device, at)
        for device in proposal.devices or (ZERO_DEVICE,)
    )
    return all(read.compose_hash and (read.device or not proposal.devices) for read in reads)
