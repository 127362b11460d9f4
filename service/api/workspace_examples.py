"""Examples of workspaces in the API's description. Tests send them and check them against the schemas."""

from typing import Any, Final

_SAFE: Final = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
_APP: Final = "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"

CHANGE: Final[dict[str, Any]] = {
    "key": {"summary": "Another Phala API key", "value": {"phala_api_key": "phak_0123456789abcdef"}},
    "policy": {
        "summary": "CI submits and cancels its own; events are kept for two years",
        "value": {
            "policy": {"submit": "submit", "cancel_own_only": True},
            "retention": {"events_days": 730, "deliveries_days": 30},
        },
    },
}

REGISTER_SAFE: Final[dict[str, Any]] = {
    "eip3770": {"summary": "By the chain's short name", "value": {"address": f"base:{_SAFE}"}},
    "chain_id": {"summary": "By the chain's id", "value": {"chain_id": 8453, "address": _SAFE}},
}

REGISTER_APP: Final[dict[str, Any]] = {
    "eip3770": {"summary": "By the chain's short name", "value": {"address": f"base:{_APP}"}},
    "chain_id": {"summary": "By the chain's id", "value": {"chain_id": 8453, "address": _APP}},
}

WORKSPACE: Final[dict[str, Any]] = {
    "id": "ws_01980f3ac5e97f1b2c3d4e5f60718296",
    "object": "workspace",
    "slug": "acme",
    "name": "Acme, releases",
    "phala": {
        "base_url": "https://cloud-api.phala.com/api/v1",
        "api_key_set_at": "2026-07-01T08:00:00Z",
        "webhook_secrets": 1,
        "webhook_secrets_set_at": "2026-07-01T08:00:00Z",
        "webhook_url": "/v1/hooks/phala/acme",
    },
    "policy": {
        "submit": "submit",
        "cancel": "submit",
        "release": "manage",
        "cancel_own_only": False,
        "allow_without_approval": False,
    },
    "deadlines": {"request_seconds": 2592000, "run_seconds": 3600},
    "commits": {"policy": "auto", "parallel": 1, "frozen": False},
    "retention": {"events_days": 365, "deliveries_days": 90},
    "blocked": True,
    "blocks": [
        {
            "code": "phala_unauthorized",
            "subject": "phala:key",
            "detail": "Phala Cloud: Invalid API key",
            "advice": "Give the workspace a Phala API key that may update this CVM.",
            "since": "2026-07-01T09:30:00Z",
            "seen_at": "2026-07-01T09:35:30Z",
        }
    ],
    "created_at": "2026-07-01T08:00:00Z",
}


def _contract(kind: str, address: str) -> dict[str, Any]:
    return {
        "id": f"8453:{address}",
        "object": kind,
        "chain_id": 8453,
        "chain": "base",
        "address": address,
        "eip3770": f"base:{address}",
        "explorer_url": f"https://basescan.org/address/{address}",
        "created_at": "2026-07-01T08:00:00Z",
    }


SAFE: Final = _contract("safe", _SAFE)
EXTERNAL_APP: Final = _contract("external_app", _APP)

ANSWERS: Final[dict[str, Any]] = {
    "Workspace": WORKSPACE,
    "Safe": SAFE,
    "Safes": {"object": "list", "items": [SAFE]},
    "ExternalApp": EXTERNAL_APP,
    "ExternalApps": {"object": "list", "items": [EXTERNAL_APP]},
}
