"""Webhook endpoints as tests of the API make them, read them, and have events delivered to them."""

import base64
from typing import Any

from service.domain.deliveries import Attempt
from service.domain.outcomes import Notice, Wait
from service.domain.reasons import Reason
from service.domain.states import State
from service.domain.webhooks import Fault
from service.store import outbox, transitions
from service.store.database import Database
from service.store.outbox import Result
from service.store.tables import ChangeRequest, WebhookEndpoint
from tests.support import rows
from tests.support.served_api import Api

PATH = "/v1/webhook-endpoints"
URL = "https://hooks.example.com/countersign"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
Json = dict[str, Any]


def create(api: Api, url: str = URL, **members: Any) -> Json:
    answer = api.acme.post(PATH, json={"url": url, **members})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def read(api: Api, endpoint_id: str) -> Json:
    answer = api.acme.get(f"{PATH}/{endpoint_id}")
    assert answer.status_code == 200, answer.text
    shown: Json = answer.json()
    return shown


def tell(database: Database, workspace_id: str, count: int = 1) -> str:
    """Append events to a new change request; its id."""
    request_id = rows.change_request(database, workspace_id)
    lease = rows.lease(database, ChangeRequest, request_id)
    notices = tuple((Notice.ALERT, {"number": number}) for number in range(count))
    transitions.apply(database, lease, State.RECEIVED, Wait(0, Reason.PHALA_BUSY, notices=notices), rows.NOW)
    return request_id


def record(database: Database, endpoint_id: str, attempt: Attempt, retry: float | None = None) -> None:
    """Record an attempt of everything that is due."""
    lease = rows.lease(database, WebhookEndpoint, endpoint_id)
    sent = outbox.load(database, lease, rows.NOW, 1000).deliveries
    outbox.record(database, lease, [Result(one.id, attempt, retry) for one in sent], disable_seconds=1e9)
    outbox.give_back(database, lease, 0, unanswered=False)


TAKEN = Attempt(rows.NOW, 5, 204, "")
REFUSED = Attempt(rows.NOW, 84, 503, "restarting", Fault.BAD_STATUS)


def listed(api: Api, endpoint_id: str, **query: Any) -> list[Json]:
    answer = api.acme.get(f"{PATH}/{endpoint_id}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items
