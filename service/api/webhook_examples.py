"""Examples of webhook endpoints and the feed in the API's description; tests check them against the schemas."""

from typing import Any, Final

_ENDPOINT: Final = "ep_01980f3ac5e97f1b2c3d4e5f60718295"
_DELIVERY: Final = "dlv_01980f3ac5e97f1b2c3d4e5f60718296"
_EVENT: Final = "evt_01980f3ac5e97f1b2c3d4e5f60718294"
_REQUEST: Final = "cr_01980f3ac5e97f1b2c3d4e5f60718293"
_SECRET: Final = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="  # noqa: S105 - an example, 0 to 31
_PAGE: Final = f"/v1/webhook-endpoints/{_ENDPOINT}"

CREATE: Final[dict[str, Any]] = {"url": "https://hooks.example.com/countersign", "description": "Deploy bot"}
CREATE_FILTERED: Final[dict[str, Any]] = {
    "url": "https://hooks.example.com/alerts",
    "event_types": ["change_request.failed", "change_request.alert", "webhook_endpoint.*"],
    "secret": _SECRET,
}
REPLAY_TIMES: Final[dict[str, Any]] = {"since": "2026-07-01T12:00:00Z", "until": "2026-07-01T18:00:00Z"}
REPLAY_EVENTS: Final[dict[str, Any]] = {"since": _EVENT, "undelivered_only": True}

ENDPOINT: Final[dict[str, Any]] = {
    "id": _ENDPOINT,
    "object": "webhook_endpoint",
    "url": "https://hooks.example.com/countersign",
    "description": "Deploy bot",
    "event_types": [],
    "state": "active",
    "managed_by": "api",
    "previous_secret_expires_at": None,
    "last_success_at": "2026-07-01T09:30:03Z",
    "failing_since": None,
    "disabled": None,
    "created_at": "2026-06-30T08:00:00Z",
    "updated_at": "2026-06-30T08:00:00Z",
    "links": {"self": _PAGE, "deliveries": f"{_PAGE}/deliveries"},
}
NEW_ENDPOINT: Final[dict[str, Any]] = {**ENDPOINT, "last_success_at": None, "secret": _SECRET}
ROTATED: Final[dict[str, Any]] = {
    **ENDPOINT,
    "previous_secret_expires_at": "2026-07-02T10:00:00Z",
    "updated_at": "2026-07-01T10:00:00Z",
    "secret": _SECRET,
}
PAUSED: Final[dict[str, Any]] = {**ENDPOINT, "state": "paused"}
DELETED: Final[dict[str, Any]] = {**ENDPOINT, "state": "deleted"}
ENDPOINTS: Final[dict[str, Any]] = {"object": "list", "items": [ENDPOINT]}

DELIVERY: Final[dict[str, Any]] = {
    "id": _DELIVERY,
    "object": "webhook_delivery",
    "endpoint_id": _ENDPOINT,
    "event_id": _EVENT,
    "event_type": "change_request.received",
    "change_request_id": _REQUEST,
    "state": "pending",
    "attempt_count": 1,
    "next_attempt_at": "2026-07-01T09:30:06Z",
    "created_at": "2026-07-01T09:30:00Z",
    "delivered_at": None,
    "attempts": [
        {
            "attempted_at": "2026-07-01T09:30:01Z",
            "duration_ms": 84,
            "status": 503,
            "response": "upstream is restarting",
            "fault": {
                "code": "bad_status",
                "advice": "Only 2xx counts as delivered; redirects are not followed. "
                "Look at what the receiver answered.",
            },
        }
    ],
}
FRESH_DELIVERY: Final[dict[str, Any]] = {
    **DELIVERY,
    "event_type": "webhook_endpoint.test",
    "change_request_id": None,
    "attempt_count": 0,
    "attempts": [],
}
DELIVERIES: Final[dict[str, Any]] = {"object": "list", "items": [DELIVERY], "next_cursor": None}
REPLAYED: Final[dict[str, Any]] = {"object": "webhook_replay", "deliveries": 42, "complete": True, "next_since": None}
FEED: Final[dict[str, Any]] = {
    "object": "list",
    "items": [
        {
            "id": _EVENT,
            "type": "change_request.received",
            "change_request_id": _REQUEST,
            "seq": 1,
            "state": "received",
            "timestamp": "2026-07-01T09:30:00Z",
            "data": {"id": _REQUEST, "sequence": 1, "state": "received", "title": "Release 1.4.2"},
            "actor": {"kind": "api_key", "id": "key_01980f3ac5e97f1b2c3d4e5f60718295", "name": "CI", "owners": []},
            "previous_hash": "0" * 64,
            "hash": "5d0f4c1b8f0e6f9a7a1f6f2f3a86c1f0be4d9b1c2e0c7a5d6b3e8f9a0b1c2d3e",
        }
    ],
    "next_cursor": "ODIxLjE0",
    "has_more": False,
}

ANSWERS: Final[dict[str, Any]] = {
    "WebhookEndpoint": ENDPOINT,
    "NewWebhookEndpoint": NEW_ENDPOINT,
    "RotatedWebhookEndpoint": ROTATED,
    "PausedWebhookEndpoint": PAUSED,
    "DeletedWebhookEndpoint": DELETED,
    "WebhookEndpoints": ENDPOINTS,
    "WebhookDelivery": DELIVERY,
    "TestWebhookDelivery": FRESH_DELIVERY,
    "WebhookDeliveries": DELIVERIES,
    "WebhookReplay": REPLAYED,
    "Feed": FEED,
}
