"""Routes of webhook endpoints and their deliveries."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Query
from pydantic import AfterValidator, SecretStr
from starlette.responses import Response

from service.api import cursors, webhook_bodies, webhook_schemas
from service.api.deps import Caller, ManageDep, ReadDep
from service.api.description import example, failures
from service.api.problems import (
    BODY_TOO_LARGE,
    INVALID_REQUEST,
    MALFORMED_JSON,
    NOT_FOUND,
    TOO_MANY_WEBHOOK_ENDPOINTS,
    UNSUPPORTED_MEDIA_TYPE,
    WEBHOOK_ENDPOINT_DELETED,
    WEBHOOK_ENDPOINT_DISABLED,
    WEBHOOK_ENDPOINT_EXISTS,
    WEBHOOK_ENDPOINT_OF_FILE,
    Problem,
    ProblemType,
    invalid,
)
from service.api.receivers import CheckedChange, CheckedEndpoint
from service.api.route import ApiRoute
from service.api.webhook_bodies import DeliveriesQuery, ReplayBody, RotateSecretBody
from service.api.webhook_schemas import (
    DeliveryList,
    DeliveryOut,
    EndpointList,
    EndpointOut,
    EndpointWithSecret,
    ReplayOut,
)
from service.domain.ids import form_of
from service.domain.webhook_signature import secret_of
from service.store import webhook_endpoints, webhook_history
from service.store.tables import WebhookEndpoint
from service.store.webhook_endpoints import NewEndpoint
from service.store.webhook_history import Bound, Range, Shown, UnknownEvent

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"], route_class=ApiRoute)

_SECRET_BYTES: Final = 32
_ENDPOINT_ID: Final = form_of("ep")
_DELIVERY_ID: Final = form_of("dlv")
_EVENT_ID: Final = form_of("evt")
_OF_BODY: Final = (MALFORMED_JSON, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST)
_REFUSALS: Final[dict[type[Exception], ProblemType]] = {
    webhook_endpoints.UrlTaken: WEBHOOK_ENDPOINT_EXISTS,
    webhook_endpoints.TooManyEndpoints: TOO_MANY_WEBHOOK_ENDPOINTS,
    webhook_endpoints.EndpointDeleted: WEBHOOK_ENDPOINT_DELETED,
    webhook_endpoints.EndpointDisabled: WEBHOOK_ENDPOINT_DISABLED,
    webhook_endpoints.ManagedByFile: WEBHOOK_ENDPOINT_OF_FILE,
}


def _missing() -> Problem:
    return Problem(NOT_FOUND, "There is no such webhook endpoint or delivery in the workspace of this API key.")


def _endpoint_id(value: str) -> str:
    if not _ENDPOINT_ID.fullmatch(value):
        raise _missing()
    return value


def _delivery_id(value: str) -> str:
    if not _DELIVERY_ID.fullmatch(value):
        raise _missing()
    return value


EndpointId = Annotated[str, AfterValidator(_endpoint_id), Path(description="`ep_...`")]
DeliveryId = Annotated[str, AfterValidator(_delivery_id), Path(description="`dlv_...`")]


@contextmanager
def _refusals() -> Iterator[None]:
    """What the store refuses, as problems."""
    try:
        yield
    except tuple(_REFUSALS) as error:
        kind = _REFUSALS[type(error)]
        raise Problem(kind, f"{kind.meaning} {kind.remedy}") from None


def _found(row: WebhookEndpoint | None) -> WebhookEndpoint:
    if row is None:
        raise _missing()
    return row


def _chosen(secret: SecretStr | None) -> SecretStr:
    return secret or SecretStr(secret_of(secrets.token_bytes(_SECRET_BYTES)))


@router.post(
    "",
    status_code=201,
    summary="Create a webhook endpoint",
    responses=example(201, "NewWebhookEndpoint", "Created; the secret is shown this once", headers=["Location"])
    | failures(*_OF_BODY, WEBHOOK_ENDPOINT_EXISTS, TOO_MANY_WEBHOOK_ENDPOINTS),
)
def create(checked: CheckedEndpoint, caller: ManageDep, response: Response) -> EndpointWithSecret:
    """Have events sent to a URL from now on. Keep the secret of the answer: it is not shown again."""
    body = checked.allowed()
    secret = _chosen(body.secret)
    new = NewEndpoint(body.url, secret, body.description, body.event_types)
    with _refusals():
        row = webhook_endpoints.create(caller.database, caller.workspace_id, new, caller.actor)
    shown = webhook_schemas.with_secret(row, caller.database.public_url, secret.get_secret_value())
    response.headers["Location"] = shown.links.self
    return shown


@router.get(
    "", summary="List webhook endpoints", responses=example(200, "WebhookEndpoints", "All that are not deleted")
)
def listing(caller: ReadDep) -> EndpointList:
    """List the workspace's endpoints, oldest first; those of the workspace file too."""
    with caller.database.transaction() as session:
        rows = webhook_endpoints.listing(session, caller.workspace_id)
    return EndpointList(items=[webhook_schemas.endpoint(row, caller.database.public_url) for row in rows])


@router.get(
    "/{endpoint_id}",
    summary="Read a webhook endpoint",
    responses=example(200, "WebhookEndpoint", "The endpoint") | failures(NOT_FOUND),
)
def read(endpoint_id: EndpointId, caller: ReadDep) -> EndpointOut:
    """Read an endpoint; one that was deleted too."""
    return webhook_schemas.endpoint(_read(caller, endpoint_id), caller.database.public_url)


def _read(caller: Caller, endpoint_id: str) -> WebhookEndpoint:
    with caller.database.transaction() as session:
        return _found(webhook_endpoints.get(session, caller.workspace_id, endpoint_id))


@router.patch(
    "/{endpoint_id}",
    summary="Change a webhook endpoint",
    responses=example(200, "PausedWebhookEndpoint", "The endpoint as it is now")
    | failures(*_OF_BODY, NOT_FOUND, WEBHOOK_ENDPOINT_EXISTS, WEBHOOK_ENDPOINT_DELETED, WEBHOOK_ENDPOINT_OF_FILE),
)
def update(endpoint_id: EndpointId, checked: CheckedChange, caller: ManageDep) -> EndpointOut:
    """Change an endpoint, pause it, or let it go on. While it is paused its events are kept for it."""
    body = checked.allowed()
    values: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"paused"})
    with _refusals():
        row = webhook_endpoints.change(
            caller.database, caller.workspace_id, endpoint_id, values, actor=caller.actor, paused=body.paused
        )
    return webhook_schemas.endpoint(_found(row), caller.database.public_url)


@router.delete(
    "/{endpoint_id}",
    summary="Delete a webhook endpoint",
    responses=example(200, "DeletedWebhookEndpoint", "The endpoint as it was")
    | failures(NOT_FOUND, WEBHOOK_ENDPOINT_OF_FILE),
)
def delete(endpoint_id: EndpointId, caller: ManageDep) -> EndpointOut:
    """Delete an endpoint. What was not delivered is dropped; its deliveries stay readable. Again changes nothing."""
    with _refusals():
        row = webhook_endpoints.delete(caller.database, caller.workspace_id, endpoint_id, caller.actor)
    return webhook_schemas.endpoint(_found(row), caller.database.public_url)


@router.post(
    "/{endpoint_id}/rotate-secret",
    summary="Replace the secret of a webhook endpoint",
    responses=example(200, "RotatedWebhookEndpoint", "The endpoint; the new secret is shown this once")
    | failures(*_OF_BODY, NOT_FOUND, WEBHOOK_ENDPOINT_DELETED, WEBHOOK_ENDPOINT_OF_FILE),
)
def rotate_secret(
    endpoint_id: EndpointId,
    body: Annotated[RotateSecretBody, Body(openapi_examples=webhook_bodies.ROTATE_EXAMPLES)],
    caller: ManageDep,
) -> EndpointWithSecret:
    """Replace the secret. For `overlap_seconds` both sign, so that a receiver may take its time to change."""
    secret = _chosen(body.secret)
    until = caller.parts.clock.now() + timedelta(seconds=body.overlap_seconds)
    with _refusals():
        row = webhook_endpoints.rotate(
            caller.database, caller.workspace_id, endpoint_id, secret, until=until, actor=caller.actor
        )
    return webhook_schemas.with_secret(_found(row), caller.database.public_url, secret.get_secret_value())


@router.post(
    "/{endpoint_id}/test",
    status_code=202,
    summary="Send a test event",
    responses=example(202, "TestWebhookDelivery", "The delivery")
    | failures(NOT_FOUND, WEBHOOK_ENDPOINT_DELETED, WEBHOOK_ENDPOINT_DISABLED),
)
def send_test(endpoint_id: EndpointId, caller: ManageDep) -> DeliveryOut:
    """Send an event of type `webhook_endpoint.test` to this endpoint, whatever it filters."""
    with _refusals():
        now = caller.parts.clock.now()
        row = webhook_endpoints.send_test(caller.database, caller.workspace_id, endpoint_id, now, caller.actor)
    if row is None:
        raise _missing()
    return DeliveryOut.of(Shown(row, "webhook_endpoint.test"))


@router.get(
    "/{endpoint_id}/deliveries",
    summary="List the deliveries of a webhook endpoint",
    responses=example(200, "WebhookDeliveries", "One page, newest first") | failures(NOT_FOUND, INVALID_REQUEST),
)
def deliveries(endpoint_id: EndpointId, query: Annotated[DeliveriesQuery, Query()], caller: ReadDep) -> DeliveryList:
    """List deliveries with their attempts, newest first."""
    before = cursors.decode(query.cursor, _DELIVERY_ID)
    row = _read(caller, endpoint_id)
    with caller.database.transaction() as session:
        found = webhook_history.listing(session, row.id, state=query.state, before=before, limit=query.limit + 1)
    page = found[: query.limit]
    return DeliveryList(
        items=[DeliveryOut.of(shown) for shown in page],
        next_cursor=cursors.encode(page[-1].delivery.id) if len(found) > len(page) else None,
    )


@router.post(
    "/{endpoint_id}/deliveries/{delivery_id}/resend",
    status_code=202,
    summary="Send a delivery again",
    responses=example(202, "WebhookDelivery", "The delivery, pending again")
    | failures(NOT_FOUND, WEBHOOK_ENDPOINT_DELETED, WEBHOOK_ENDPOINT_DISABLED),
)
def resend(endpoint_id: EndpointId, delivery_id: DeliveryId, caller: ManageDep) -> DeliveryOut:
    """Send a delivery again, whatever became of it, with the whole schedule before it."""
    with _refusals():
        shown = webhook_history.resend(caller.database, caller.workspace_id, endpoint_id, delivery_id, caller.actor)
    if shown is None:
        raise _missing()
    return DeliveryOut.of(shown)


@router.post(
    "/{endpoint_id}/replay",
    status_code=202,
    summary="Send a range of events again",
    responses=example(202, "WebhookReplay", "The deliveries are pending")
    | failures(*_OF_BODY, NOT_FOUND, WEBHOOK_ENDPOINT_DELETED, WEBHOOK_ENDPOINT_DISABLED),
)
def replay(
    endpoint_id: EndpointId,
    body: Annotated[ReplayBody, Body(openapi_examples=webhook_bodies.REPLAY_EXAMPLES)],
    caller: ManageDep,
) -> ReplayOut:
    """Send the workspace's events of a range to this endpoint, at most 1000 at a time.

    Its filter holds. Events from before it was made are sent too.
    """
    until = None if body.until is None else _bound("until", body.until)
    wanted = Range(_bound("since", body.since), until, body.undelivered_only)
    try:
        with _refusals():
            done = webhook_history.replay(caller.database, caller.workspace_id, endpoint_id, wanted, caller.actor)
    except UnknownEvent as error:
        member = "since" if error.event_id == body.since else "until"
        raise invalid(f"#/{member}", "is no event of this workspace") from None
    if done is None:
        raise _missing()
    return ReplayOut(deliveries=done.deliveries, complete=done.next_event is None, next_since=done.next_event)


def _bound(member: str, text: str) -> Bound:
    found: datetime | str | None = text if _EVENT_ID.fullmatch(text) else webhook_bodies.moment(text)
    if found is None:
        raise invalid(f"#/{member}", "give a moment such as 2026-07-01T12:00:00Z, or the id of an event")
    return found
