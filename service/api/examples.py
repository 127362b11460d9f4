"""Examples in the API's description. Tests send them and check them against the schemas."""

from typing import Any, Final

from service.api.problem_pages import section
from service.api.problems import NOT_FOUND

_ID: Final = "cr_01980f3ac5e97f1b2c3d4e5f60718293"
_HASH: Final = "0x9f91439e3f3c2a5d8c0f6a1b7e4d2c9b8a7f6e5d4c3b2a190807f6e5d4c3b2a1"
_DEVICE: Final = "0x3c1d0b5e7a9f8e6d4c2b1a0f9e8d7c6b5a4938271605f4e3d2c1b0a998877665"
_APP: Final = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
_SAFE: Final = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
_OWNERS: Final = (
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
)
_SAFE_TX: Final = "0x1b7c4f0a2d5e8b93c6f1a4d7e0b3c6f9a2d5e8b1c4f7a0d3e6b9c2f5a8d1e4b7"
_UUID: Final = "3f2b8c14-5a6d-4e7f-8a9b-0c1d2e3f4a5b"
_CALLDATA: Final = "0xdfc77223" + _HASH[2:]
_PAGE: Final = f"/v1/change-requests/{_ID}"

SUBMIT_PATCH: Final[dict[str, Any]] = {
    "cvm_id": "my-agent",
    "title": "Release 1.4.2",
    "patch": {
        "docker_compose_file": "services:\n  app:\n    image: ghcr.io/acme/agent:1.4.2\n",
        "allowed_envs": ["OPENAI_API_KEY"],
    },
}

SUBMIT_PREPARED: Final[dict[str, Any]] = {
    "title": "Release 1.4.2",
    "prepared": {
        "success": True,
        "prepare_only": True,
        "compose_hash": _HASH,
        "app_id": _APP[2:].lower(),
        "device_id": _DEVICE[2:],
        "kms_info": {
            "id": "kms_x1",
            "slug": "kms-base-prod5",
            "url": "https://kms.example.com",
            "version": "v0.5.3",
            "chain_id": 8453,
            "kms_contract_address": "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C",
            "gateway_app_id": "0x39F2f3373CEcFf85BD8BBd985adeeF32547a302c",
        },
        "chain_id": 8453,
        "contract_explorer_url": f"https://basescan.org/address/{_APP.lower()}",
        "onchain_status": {"compose_hash_allowed": False, "device_id_allowed": True, "is_allowed": False},
        "commit_token": "7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f",
        "commit_url": f"https://cloud.phala.com/acme/cvms/{_UUID}/confirm-update?token=...&compose_hash=...",
        "api_commit_url": f"https://cloud-api.phala.com/api/v1/cvms/{_UUID}/commit-update?token=...",
    },
}

REFRESH_PREPARED: Final[dict[str, Any]] = {"prepared": SUBMIT_PREPARED["prepared"]}

CHANGE_REQUEST: Final[dict[str, Any]] = {
    "id": _ID,
    "object": "change_request",
    "workspace": "acme",
    "state": "proposed",
    "state_meaning": "waiting for the Safe's owners",
    "title": "Release 1.4.2",
    "intake": "patch",
    "cvm": {"id": "my-agent", "vm_uuid": _UUID, "name": "my-agent"},
    "chain": {"id": 8453, "name": "base"},
    "app_contract": _APP,
    "app_contract_eip3770": f"base:{_APP}",
    "app_contract_explorer_url": f"https://basescan.org/address/{_APP}",
    "device_id": _DEVICE,
    "compose_hash": _HASH,
    "patch": ["allowed_envs", "docker_compose_file"],
    "allow_without_approval": False,
    "approval": {
        "kind": "safe",
        "state": "queued",
        "safe": _SAFE,
        "safe_eip3770": f"base:{_SAFE}",
        "safe_facts": {
            "version": "1.4.1",
            "singleton": "0x29fcB43b46531BcA003ddC8FCB67FFE91900C762",
            "l2": True,
            "guard": None,
            "modules": [],
            "more_modules": False,
            "module_guard": None,
            "threshold": 2,
            "owners": list(_OWNERS),
            "owners_eip3770": [f"base:{owner}" for owner in _OWNERS],
        },
        "nonce": 17,
        "safe_tx_hash": _SAFE_TX,
        "target": _APP,
        "calldata": _CALLDATA,
        "operation": 0,
        "calls": [{"to": _APP, "function": "addComposeHash(bytes32)", "argument": _HASH, "calldata": _CALLDATA}],
        "devices": [],
        "confirmations": [_OWNERS[0]],
        "signatures": [{"owner": _OWNERS[0], "kind": "eip712"}],
        "contract_signatures": [],
        "missing": list(_OWNERS[1:]),
        "threshold": 2,
        "ready": False,
        "alerts": [],
        "rejection": None,
        "detail": None,
        "links": {
            "safe_app_queue": f"https://app.safe.global/transactions/queue?safe=base:{_SAFE}",
            "safe_app_transaction": (
                f"https://app.safe.global/transactions/tx?safe=base:{_SAFE}&id=multisig_{_SAFE}_{_SAFE_TX}"
            ),
            "safe_explorer": f"https://basescan.org/address/{_SAFE}",
        },
    },
    "execution": None,
    "commit": None,
    "running_evidence": None,
    "reason": {
        "code": "waiting_for_owners",
        "advice": "The Safe's owners review, sign and execute the transaction in the Safe's queue.",
        "detail": None,
    },
    "next": {"due_at": "2026-07-01T09:31:12Z", "attempts": 0, "waiting_for": "waiting_for_owners"},
    "warnings": [],
    "cancel_requested_at": None,
    "deadline_at": "2026-07-31T09:30:00Z",
    "token_expires_at": "2026-07-15T09:30:01Z",
    "token_refresh": {
        "by_service": True,
        "requested_at": None,
        "attempts": 0,
        "next_attempt_at": None,
        "reason": None,
    },
    "created_at": "2026-07-01T09:30:00Z",
    "updated_at": "2026-07-01T09:30:12Z",
    "state_entered_at": "2026-07-01T09:30:03Z",
    "prepared_at": "2026-07-01T09:30:01Z",
    "links": {
        "self": _PAGE,
        "events": f"{_PAGE}/events",
        "cancel": f"{_PAGE}/cancel",
        "refresh": f"{_PAGE}/refresh",
    },
}

CHANGE_REQUESTS: Final[dict[str, Any]] = {"object": "list", "items": [CHANGE_REQUEST], "next_cursor": None}

EVENTS: Final[dict[str, Any]] = {
    "object": "list",
    "items": [
        {
            "id": "evt_01980f3ac5e97f1b2c3d4e5f60718294",
            "seq": 1,
            "type": "change_request.received",
            "state": "received",
            "timestamp": "2026-07-01T09:30:00Z",
            "data": {"id": _ID, "sequence": 1, "state": "received", "title": "Release 1.4.2"},
            "actor": {"kind": "api_key", "id": "key_01980f3ac5e97f1b2c3d4e5f60718295", "name": "CI", "owners": []},
            "previous_hash": "0" * 64,
            "hash": "5d0f4c1b8f0e6f9a7a1f6f2f3a86c1f0be4d9b1c2e0c7a5d6b3e8f9a0b1c2d3e",
        }
    ],
    "last_seq": 1,
}

_KEY_ID: Final = "key_01980f3ac5e97f1b2c3d4e5f60718295"

CREATE_KEY: Final[dict[str, Any]] = {
    "ci": {"summary": "For a build server", "value": {"name": "CI of my-agent", "scope": "submit"}},
    "expiring": {
        "summary": "For a month",
        "value": {"name": "dashboard", "scope": "read", "expires_in_seconds": 2592000},
    },
}

ROTATE_KEY: Final[dict[str, Any]] = {
    "day": {"summary": "The old key works for another day", "value": {}},
    "hour": {"summary": "For another hour", "value": {"overlap_seconds": 3600}},
}

API_KEY: Final[dict[str, Any]] = {
    "id": _KEY_ID,
    "object": "api_key",
    "name": "CI of my-agent",
    "scope": "submit",
    "works": True,
    "hint": "csk_4fGx",
    "created_by": "command line",
    "replaces": None,
    "created_at": "2026-07-01T09:00:00Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-07-01T09:30:00Z",
}

CHAINS: Final[dict[str, Any]] = {
    "items": [
        {
            "id": 8453,
            "name": "base",
            "status": "catching_up",
            "head_block": 31_500_204,
            "final_block": 31_500_140,
            "read_to_block": 31_420_000,
            "looked_at": "2026-11-02T09:31:07.250000Z",
            "age_seconds": 0.8,
            "failed_looks": 0,
            "catch_up": {"blocks_total": 129_600, "blocks_left": 80_140},
        }
    ]
}

ANSWERS: Final[dict[str, Any]] = {
    "ChangeRequest": CHANGE_REQUEST,
    "ChangeRequests": CHANGE_REQUESTS,
    "Events": EVENTS,
    "ApiKey": API_KEY,
    "ApiKeys": {"object": "list", "items": [API_KEY]},
    "NewApiKey": {**API_KEY, "last_used_at": None, "key": "csk_..."},
    "Chains": CHAINS,
    "Alive": {"status": "ok"},
    "Ready": {"status": "ready", "parts": {"database": "ok: migrated", "queue:commit": "ok: last round trip 4 s ago"}},
    "ProblemPage": section(NOT_FOUND),
}
