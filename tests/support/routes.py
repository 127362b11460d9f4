"""Every route that needs an API key, as the tests of all of them see it. A test holds the table to the API's own."""

from dataclasses import dataclass
from typing import Any

import httpx

from service.api.examples import SUBMIT_PATCH
from service.domain.api_keys import Scope

UNKNOWN_IDS = {
    "request_id": f"cr_{'0' * 32}",
    "key_id": f"key_{'0' * 32}",
    "endpoint_id": f"ep_{'0' * 32}",
    "delivery_id": f"dlv_{'0' * 32}",
    "contract": f"8453:0x{'0' * 39}1",
}
CONTRACT = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
HOOKS = "/v1/webhook-endpoints"
HOOK = f"{HOOKS}/{{endpoint_id}}"


@dataclass(frozen=True)
class Route:
    """A route, the scope it needs, and a body it takes.

    ``floor`` is the scope that it needs of every workspace, where the workspace's policy may say which one it needs.
    """

    method: str
    template: str
    scope: Scope
    body: dict[str, Any] | None = None
    floor: Scope | None = None

    def needs(self, scope: Scope) -> Scope:
        """The scope that a refused key of this scope is told to have."""
        return self.scope if self.floor is None or scope.includes(self.floor) else self.floor

    def path(self, ids: dict[str, str] = UNKNOWN_IDS) -> str:
        """The path with ids, which belong to nobody unless given."""
        return self.template.format_map(ids)

    @property
    def has_id(self) -> bool:
        """Whether it is about one object."""
        return "{" in self.template

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


ROUTES = (
    Route("POST", "/v1/change-requests", Scope.SUBMIT, SUBMIT_PATCH),
    Route("GET", "/v1/change-requests", Scope.READ),
    Route("GET", "/v1/change-requests/{request_id}", Scope.READ),
    Route("GET", "/v1/change-requests/{request_id}/events", Scope.READ),
    Route("POST", "/v1/change-requests/{request_id}/cancel", Scope.SUBMIT),
    Route("POST", "/v1/change-requests/{request_id}/refresh", Scope.SUBMIT),
    Route("POST", "/v1/change-requests/{request_id}/retry", Scope.SUBMIT),
    Route("POST", "/v1/change-requests/{request_id}/release", Scope.MANAGE, floor=Scope.SUBMIT),
    Route("GET", "/v1/workspace/freeze", Scope.READ),
    Route("POST", "/v1/workspace/freeze", Scope.MANAGE, {"reason": "an incident"}),
    Route("DELETE", "/v1/workspace/freeze", Scope.MANAGE),
    Route("GET", "/v1/workspace", Scope.READ),
    Route("PATCH", "/v1/workspace", Scope.ADMIN, {"name": "Acme"}),
    Route("POST", "/v1/workspace/recheck", Scope.MANAGE),
    Route("GET", "/v1/workspace/safes", Scope.READ),
    Route("POST", "/v1/workspace/safes", Scope.ADMIN, {"address": f"base:{CONTRACT}"}),
    Route("DELETE", "/v1/workspace/safes/{contract}", Scope.ADMIN),
    Route("GET", "/v1/workspace/external-apps", Scope.READ),
    Route("POST", "/v1/workspace/external-apps", Scope.ADMIN, {"chain_id": 8453, "address": CONTRACT}),
    Route("DELETE", "/v1/workspace/external-apps/{contract}", Scope.ADMIN),
    Route("GET", "/v1/chains", Scope.READ),
    Route("GET", "/v1/events", Scope.READ),
    Route("POST", HOOKS, Scope.MANAGE, {"url": "https://hooks.example.com/"}),
    Route("GET", HOOKS, Scope.READ),
    Route("GET", HOOK, Scope.READ),
    Route("PATCH", HOOK, Scope.MANAGE, {"paused": True}),
    Route("DELETE", HOOK, Scope.MANAGE),
    Route("POST", f"{HOOK}/rotate-secret", Scope.MANAGE, {}),
    Route("POST", f"{HOOK}/test", Scope.MANAGE),
    Route("GET", f"{HOOK}/deliveries", Scope.READ),
    Route("POST", f"{HOOK}/deliveries/{{delivery_id}}/resend", Scope.MANAGE),
    Route("POST", f"{HOOK}/replay", Scope.MANAGE, {"since": "2026-01-01T00:00:00Z"}),
    Route("POST", "/v1/api-keys", Scope.MANAGE, {"name": "ci", "scope": "submit"}),
    Route("GET", "/v1/api-keys", Scope.MANAGE),
    Route("GET", "/v1/api-keys/{key_id}", Scope.MANAGE),
    Route("DELETE", "/v1/api-keys/{key_id}", Scope.MANAGE),
    Route("POST", "/v1/api-keys/{key_id}/rotate", Scope.MANAGE, {}),
)


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The body of an error answer, which has everything that each of them must have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["type"], body["status"]) == (f"/problems/{slug}", status)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    return body
