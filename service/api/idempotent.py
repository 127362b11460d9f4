"""``Idempotency-Key`` on every POST, with the semantics of Stripe's API v1.

What is kept, and what is not:

- Kept: status, body and ``Location`` of the first request, once the work began, whether it succeeded, was refused by
  the work itself (403, 404, 409) or failed with 500.
- Not kept: what was refused by key, scope, limits or validation (422, wherever it is found); and 503.
"""

import hashlib
import re
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final, TypeVar

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import Response

from service.api.deps import Caller
from service.api.problems import (
    IDEMPOTENCY_IN_PROGRESS,
    IDEMPOTENCY_MISMATCH,
    INVALID_REQUEST,
    InvalidPart,
    Problem,
    answer,
    internal_error,
)
from service.store import idempotency
from service.store.database import Database
from service.store.health import UNAVAILABLE
from service.store.idempotency import Answer, Attempt

HEADER: Final = "Idempotency-Key"
PARAMETER: Final[dict[str, Any]] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "1 to 255 printable ASCII characters: makes a repeat of this request safe for 24 hours",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_FORM: Final = re.compile(r"[ -~]{1,255}")
_KEPT_HEADERS: Final = ("content-type", "location")


def key_of(headers: Headers) -> str | None:
    """The key that a request carries.

    Raises:
        Problem: ``invalid_request``: it is too long, empty, not printable, or there are two.
    """
    values = headers.getlist(HEADER)
    if not values:
        return None
    if len(values) > 1 or not _FORM.fullmatch(values[0]):
        part = InvalidPart(parameter=HEADER, detail="give one key of 1 to 255 printable ASCII characters")
        raise Problem(INVALID_REQUEST, f"{HEADER}: {part.detail}", errors=[part])
    return values[0]


def fingerprint(method: str, target: str, body: bytes) -> bytes:
    """By which a retry is told from another request: SHA-256 of method, path with query, and body as sent."""
    head = f"{method}\0{target}\0".encode()
    return hashlib.sha256(head + body).digest()


def first(check: Callable[..., None]) -> Callable[[Endpoint], Endpoint]:
    """Have the values of an endpoint checked before its transaction begins: for what must ask somebody else.

    Args:
        check: takes the endpoint's arguments by name; raises ``Problem``.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.check_first = check  # type: ignore[attr-defined]  # read by ``idempotent``
        return endpoint

    return mark


def idempotent(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:
    """The endpoint, whose work is done once for each key.

    Args:
        endpoint: answers a model or a response, and takes a ``Caller``, by whose database it does all it does.
        status: of its success.
    """
    check_first = getattr(endpoint, "check_first", None)

    @wraps(endpoint)
    def run(**values: Any) -> Any:  # noqa: ANN401 - whatever the endpoint takes and answers
        if check_first is not None:
            check_first(**values)
        name, caller = next((name, value) for name, value in values.items() if isinstance(value, Caller))
        if caller.attempt is None:
            return endpoint(**values)
        failures: list[Exception] = []

        def work(database: Database) -> Answer:
            inside = values | {name: caller.within(database)}
            try:
                return _kept(_response(endpoint(**inside), status, values.get("response")))
            except Problem as problem:
                if problem.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
                    raise
                return _kept(answer(problem, caller.request_id))
            except UNAVAILABLE:
                raise
            except Exception as error:  # noqa: BLE001 - kept as Stripe keeps it, and raised below
                failures.append(error)
                return _kept(answer(internal_error(), caller.request_id))

        given = _once(caller, caller.attempt, work)
        if failures:
            raise failures[0]
        return given

    return run


def _once(caller: Caller, attempt: Attempt, work: Callable[[Database], Answer]) -> Response:
    try:
        kept = idempotency.once(caller.database, attempt, work)
    except idempotency.InProgress:
        detail = "The first request with this Idempotency-Key has not been answered yet."
        raise Problem(IDEMPOTENCY_IN_PROGRESS, detail, headers={"Retry-After": "1"}) from None
    except idempotency.Mismatch:
        detail = "This Idempotency-Key was used for a request with another path or body: take a new one."
        raise Problem(IDEMPOTENCY_MISMATCH, detail) from None
    headers = {**kept.headers, "Idempotent-Replayed": "true"} if kept.replayed else dict(kept.headers)
    return Response(kept.body, kept.status, headers)


def _response(result: object, status: int, template: object) -> Response:
    if isinstance(result, Response):
        return result
    if not isinstance(result, BaseModel):
        raise TypeError("an endpoint that creates something answers a model or a response")
    headers = dict(template.headers) if isinstance(template, Response) else {}
    headers.pop("content-length", None)
    return Response(result.model_dump_json(by_alias=True), status, headers, media_type="application/json")


def _kept(response: Response) -> Answer:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Answer(response.status_code, headers, bytes(response.body).decode())
