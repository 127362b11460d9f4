"""Exceptions as problems."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from service.api.fields import CVM_ID, NO_NUL, ONE_LINE
from service.api.hints import hint
from service.api.middleware import request_id_of
from service.api.problems import (
    BODY_TOO_LARGE,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    LONGEST_PART,
    MALFORMED_JSON,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    UNAVAILABLE,
    InvalidPart,
    Problem,
    answer,
)

_OF_THE_FRAMEWORK: Final = {
    400: (MALFORMED_JSON, "The body cannot be read."),
    404: (NOT_FOUND, "There is no such route; GET /openapi.json lists them."),
    405: (METHOD_NOT_ALLOWED, "Use one of the methods in the Allow header."),
    413: (BODY_TOO_LARGE, BODY_TOO_LARGE.remedy),
}
_KINDS: Final = {
    "missing": "is required",
    "extra_forbidden": "unknown parameter",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
}
_PATTERNS: Final = {
    NO_NUL: "must not contain NUL characters",
    ONE_LINE: "must be one line without control characters and without changes of the text's direction",
    CVM_ID: "must be 1 to 128 letters, digits, hyphens and underscores, and begin with a letter or digit",
}


def on_http_exception(request: Request, error: Exception) -> Response:
    """Our own problems, and what the framework raises itself (unknown route, wrong method)."""
    if isinstance(error, Problem):
        return answer(error, request_id_of(request))
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {"Allow": _allowed(request)} if status == HTTPStatus.METHOD_NOT_ALLOWED else None
    kind, detail = _OF_THE_FRAMEWORK.get(status, (INTERNAL_ERROR, INTERNAL_ERROR.remedy))
    return answer(Problem(kind, detail, headers=headers), request_id_of(request))


def _allowed(request: Request) -> str:
    """The methods of all routes that have the path; the framework knows those of the first one only."""
    found: set[str] = set()
    for route in request.app.state.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return ", ".join(sorted(found))


def on_unavailable(request: Request, _: Exception) -> Response:
    """The database does not answer."""
    problem = Problem(UNAVAILABLE, UNAVAILABLE.remedy, headers={"Retry-After": "5"})
    return answer(problem, request_id_of(request))


def on_validation_error(request: Request, error: Exception) -> Response:
    """What pydantic says, with pointers into the body and without anything that was sent but unknown names."""
    if not isinstance(error, RequestValidationError):
        raise error
    about_changes = request.url.path.startswith("/v1/change-requests")
    parts = [_part(each, error.body, hint if about_changes else _unknown) for each in error.errors()]
    first = parts[0]
    more = f" (and {len(parts) - 1} more)" if len(parts) > 1 else ""
    detail = f"{first.pointer or first.parameter}: {first.detail}{more}"
    return answer(Problem(INVALID_REQUEST, detail, errors=parts), request_id_of(request))


def _unknown(_: str) -> str:
    return "unknown member"


def _part(error: Mapping[str, Any], body: object, about_unknown: Callable[[str], str]) -> InvalidPart:
    source, *loc = error["loc"]
    detail = _detail(error)
    if source == "body":
        if error["type"] == "extra_forbidden":
            detail = about_unknown(str(loc[-1]))
        return InvalidPart(pointer=_pointer(body, loc), detail=detail)
    return InvalidPart(parameter=str(loc[0])[:LONGEST_PART], detail=detail)


def _detail(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _KINDS:
        return _KINDS[kind]
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    return str(error["msg"])


def _pointer(body: object, loc: Sequence[str | int]) -> str:
    """JSON pointer of an error; names that pydantic puts in for the branches of a union are left out."""
    at: object = body
    tokens: list[str] = []
    for index, part in enumerate(loc):
        is_member = isinstance(at, Mapping) and part in at
        is_item = isinstance(at, list) and isinstance(part, int) and part < len(at)
        if is_member or is_item:
            at = at[part]  # type: ignore[index]  # either way it has that key
        elif index < len(loc) - 1 or not isinstance(at, Mapping):
            continue
        tokens.append(quote(str(part).replace("~", "~0").replace("/", "~1"), safe="~")[:LONGEST_PART])
    return "/".join(["#", *tokens])
