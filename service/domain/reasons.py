"""Why a change request ended or waits: one enum, each code with advice for the person who reads it."""

from enum import StrEnum


class Reason(StrEnum):
    """Public reason code, stable; shown as ``reason.code`` and sent in webhooks."""

    # before the prepare
    CVM_NOT_FOUND = "cvm_not_found"
    CVM_BUSY = "cvm_busy"
    APPROVAL_NOT_POSSIBLE = "approval_not_possible"
    CHAIN_NOT_CONFIGURED = "chain_not_configured"
    PREPARED_MISMATCH = "prepared_mismatch"
    PREPARE_REFUSED = "prepare_refused"
    PHALA_UNAUTHORIZED = "phala_unauthorized"
    # the app contract and its Safe
    APP_CONTRACT_MISSING = "app_contract_missing"
    APP_CONTRACT_FOREIGN = "app_contract_foreign"
    APP_OWNER_NOT_REGISTERED = "app_owner_not_registered"
    APP_OWNERSHIP_PENDING = "app_ownership_pending"
    APP_OWNERSHIP_RENOUNCED = "app_ownership_renounced"
    APP_OWNER_NO_SAFE = "app_owner_no_safe"
    SAFE_VERSION_UNSUPPORTED = "safe_version_unsupported"
    MULTISEND_MISSING = "multisend_missing"
    PROPOSER_IS_OWNER = "proposer_is_owner"
    PROPOSER_NOT_DELEGATE = "proposer_not_delegate"
    PROPOSAL_REFUSED = "proposal_refused"
    SIMULATION_FAILED = "simulation_failed"
    # the approval
    REJECTED_BY_OWNERS = "rejected_by_owners"
    APPROVAL_WITHDRAWN = "approval_withdrawn"
    CANCELLED_BY_USER = "cancelled_by_user"
    DEADLINE_PASSED = "deadline_passed"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a public reason code, no secret
    SUPERSEDED_BY_PREPARE = "superseded_by_prepare"
    SUPERSEDED_BY_REQUEST = "superseded_by_request"
    # the commit and after
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - likewise
    COMPOSE_DRIFT = "compose_drift"
    COMMIT_REFUSED = "commit_refused"
    OPERATION_FAILED = "operation_failed"
    OTHER_HASH_RUNNING = "other_hash_running"
    NOT_RUNNING_IN_TIME = "not_running_in_time"
    # held before the commit
    COMMITS_FROZEN = "commits_frozen"
    HELD_AFTER_FAILURE = "held_after_failure"
    HELD_FOR_RELEASE = "held_for_release"
    WAITING_FOR_TIME = "waiting_for_time"
    WAITING_FOR_OTHER_COMMITS = "waiting_for_other_commits"
    # waiting
    PHALA_UNREACHABLE = "phala_unreachable"
    PHALA_BUSY = "phala_busy"
    PHALA_LAGS = "phala_lags"
    RPC_UNREACHABLE = "rpc_unreachable"
    RPC_STATE_UNAVAILABLE = "rpc_state_unavailable"
    SAFE_SERVICE_UNREACHABLE = "safe_service_unreachable"
    WAITING_FOR_PROPOSAL = "waiting_for_proposal"
    WAITING_FOR_OWNERS = "waiting_for_owners"
    WAITING_FOR_EXTERNAL_APPROVAL = "waiting_for_external_approval"
    WAITING_FOR_FINALITY = "waiting_for_finality"
    WAITING_FOR_CVM = "waiting_for_cvm"
    WAITING_FOR_PREDECESSOR = "waiting_for_predecessor"
    WORKSPACE_BLOCKED = "workspace_blocked"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105 - a public reason code, no secret
    INTERNAL_ERROR = "internal_error"


BLOCKS_WORKSPACE = frozenset({Reason.PHALA_UNAUTHORIZED, Reason.APP_OWNER_NO_SAFE, Reason.PROPOSER_NOT_DELEGATE})
"""What only the workspace can repair, so that its change requests wait for it."""

ADVICE: dict[Reason, str] = {
    Reason.CVM_NOT_FOUND: "Check cvm_id, and that the workspace's Phala API key can see this CVM.",
    Reason.CVM_BUSY: "Another change request of this CVM is live: wait for it or cancel it, then submit again.",
    Reason.APPROVAL_NOT_POSSIBLE: (
        "This change needs no on-chain approval and would be applied at once. Submit it with "
        "allow_without_approval if the workspace permits that, or apply it at Phala Cloud."
    ),
    Reason.CHAIN_NOT_CONFIGURED: "Add the CVM's chain to COUNTERSIGN_CHAINS and restart, then submit again.",
    Reason.PREPARED_MISMATCH: (
        "The prepared update belongs to another app, device or chain than this CVM: prepare again."
    ),
    Reason.PREPARE_REFUSED: "Phala Cloud refused the change: read reason.detail, correct the patch, submit again.",
    Reason.PHALA_UNAUTHORIZED: "Give the workspace a Phala API key that may update this CVM.",
    Reason.APP_CONTRACT_MISSING: (
        "There is no contract at the app's address on this chain: check the chain and the app."
    ),
    Reason.APP_CONTRACT_FOREIGN: (
        "The contract at the app's address is no DstackApp, so no hash can be allowed on it: check the chain and the "
        "app."
    ),
    Reason.APP_OWNER_NOT_REGISTERED: (
        "Register the Safe that owns the app contract in the workspace, transfer the app to a registered Safe, "
        "or declare the app's approval as external."
    ),
    Reason.APP_OWNERSHIP_PENDING: "The Safe must call acceptOwnership() on the app contract to finish the transfer.",
    Reason.APP_OWNERSHIP_RENOUNCED: (
        "The app contract has no owner any more, so nobody can allow a hash: deploy the app anew under a contract that "
        "has one."
    ),
    Reason.APP_OWNER_NO_SAFE: (
        "The owner is registered in the workspace, but there is no Safe at its address on this chain: correct the "
        "workspace, or declare the app's approval as external."
    ),
    Reason.SAFE_VERSION_UNSUPPORTED: (
        "Transactions of this Safe's version cannot be checked: bring the Safe to version 1.3, 1.4 or 1.5, or declare "
        "the app's approval as external."
    ),
    Reason.MULTISEND_MISSING: (
        "A device has to be allowed too, in one transaction through MultiSendCallOnly 1.4.1, whose canonical contract "
        "is not on this chain: have it deployed at its canonical address, or have the device allowed first."
    ),
    Reason.PROPOSER_IS_OWNER: "The service's key must not be an owner of the Safe: use a key that is only a delegate.",
    Reason.PROPOSER_NOT_DELEGATE: "An owner of the Safe must add the service's key as a delegate.",
    Reason.PROPOSAL_REFUSED: "The Safe Transaction Service refused the proposal: read reason.detail.",
    Reason.SIMULATION_FAILED: "The call would revert when the Safe executes it: check the app contract and its owner.",
    Reason.REJECTED_BY_OWNERS: "The owners executed a rejection. Submit a new change request if it is still wanted.",
    Reason.APPROVAL_WITHDRAWN: (
        "The hash or device is no longer allowed on chain. Submit again to ask for a new approval."
    ),
    Reason.CANCELLED_BY_USER: "Submit a new change request if it is still wanted.",
    Reason.DEADLINE_PASSED: "Submit again; a hash approved meanwhile needs no new signatures.",
    Reason.TOKEN_EXPIRED: (
        "Prepare the same change again and submit it; a hash already approved needs no new signatures."
    ),
    Reason.SUPERSEDED_BY_PREPARE: "A newer prepare of this CVM with another hash exists: follow that one.",
    Reason.SUPERSEDED_BY_REQUEST: "A newer change request of this CVM took its place: follow the one in superseded_by.",
    Reason.TOKEN_REFUSED: "Phala Cloud no longer takes the commit token: prepare the same change again and submit it.",
    Reason.COMPOSE_DRIFT: (
        "Preparing the same patch again gives another hash: submit again and have that hash approved."
    ),
    Reason.COMMIT_REFUSED: "Phala Cloud refused the commit: read reason.detail.",
    Reason.OPERATION_FAILED: "The update failed at Phala Cloud: look at the CVM's operations and logs there.",
    Reason.OTHER_HASH_RUNNING: (
        "The CVM runs another hash than the approved one: look at the CVM's operations at Phala Cloud."
    ),
    Reason.NOT_RUNNING_IN_TIME: "The CVM did not come up in time: look at its boot progress at Phala Cloud.",
    Reason.COMMITS_FROZEN: (
        "The workspace holds all commits: whoever may manage it ends the freeze with DELETE /v1/workspace/freeze."
    ),
    Reason.HELD_AFTER_FAILURE: (
        "Another update of the same rollout failed: find out why, then release this change request or cancel it."
    ),
    Reason.HELD_FOR_RELEASE: "The approval is final: whoever may release it does so with POST .../release.",
    Reason.WAITING_FOR_TIME: "Nothing to do: the commit follows at not_before.",
    Reason.WAITING_FOR_OTHER_COMMITS: (
        "Nothing to do: other updates of the same app are under way, this one follows when they have ended."
    ),
    Reason.PHALA_UNREACHABLE: "Nothing to do: the service tries again.",
    Reason.PHALA_BUSY: "Nothing to do: another operation of the CVM runs, the service tries again.",
    Reason.PHALA_LAGS: "Nothing to do: Phala Cloud does not see the approval yet, the service tries again.",
    Reason.RPC_UNREACHABLE: "Nothing to do: the service tries again; the operator may check the chain's RPC endpoint.",
    Reason.RPC_STATE_UNAVAILABLE: (
        "Nothing to do: the RPC endpoint lacks state at the final block, the service tries again."
    ),
    Reason.SAFE_SERVICE_UNREACHABLE: "Nothing to do: the service tries again.",
    Reason.WAITING_FOR_PROPOSAL: "Nothing to do: the proposal is being posted to the Safe.",
    Reason.WAITING_FOR_OWNERS: "The Safe's owners review, sign and execute the transaction in the Safe's queue.",
    Reason.WAITING_FOR_EXTERNAL_APPROVAL: (
        "The owner of the app contract makes the calls in approval.calls; nothing is proposed to a Safe."
    ),
    Reason.WAITING_FOR_FINALITY: "Nothing to do: the approval is mined and becomes final after some blocks.",
    Reason.WAITING_FOR_CVM: "Nothing to do: the CVM restarts on the approved hash.",
    Reason.WAITING_FOR_PREDECESSOR: (
        "Nothing to do: an earlier change request of this CVM is ending, this one goes on then."
    ),
    Reason.WORKSPACE_BLOCKED: "The operator blocked the workspace: read reason.detail, and ask them.",
    Reason.SECRET_UNREADABLE: (
        "The operator puts the key that sealed it back into COUNTERSIGN_ENCRYPTION_KEYS and restarts the workers."
    ),
    Reason.INTERNAL_ERROR: "Nothing to do: the service tries again; the operator finds the error in the worker's log.",
}
