"""Pieces of the OpenAPI description that FastAPI does not write by itself."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI

from service.api import examples, webhook_examples, workspace_examples
from service.api.problems import (
    IDEMPOTENCY_IN_PROGRESS,
    IDEMPOTENCY_MISMATCH,
    INSUFFICIENT_SCOPE,
    INTERNAL_ERROR,
    MEDIA_TYPE,
    RATE_LIMITED,
    TOO_MANY_AT_ONCE,
    UNAUTHORIZED,
    ProblemBody,
    ProblemType,
)

Responses = dict[int | str, dict[str, Any]]

DESCRIPTION: Final = """\
Carries changes of Phala Cloud CVMs from the wish to the running compose hash, once a Safe's owners approved them.

Authenticate with `Authorization: Bearer <API key>`; each key has a scope. A POST with an `Idempotency-Key` is safe to
repeat. The `RateLimit` headers tell what is left of the key's quota. Errors are `application/problem+json`; `type` is
stable, and each is explained at `/problems/<slug>`. Every answer has an `X-Request-Id`.
"""
_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}
_REQUEST_ID_EXAMPLE: Final = "req_5f0c1f6d8a2b4c3e9d7a6b5c4d3e2f10"


def example(
    status: int, name: str, description: str, *, headers: Sequence[str] = (), media_type: str = "application/json"
) -> Responses:
    """A success with the example ``name`` of the ``ANSWERS`` of some module of examples."""
    reference = {name: {"$ref": f"#/components/examples/{name}"}}
    response: dict[str, Any] = {"description": description, "content": {media_type: {"examples": reference}}}
    if headers:
        response["headers"] = {header: {"schema": {"type": "string"}} for header in headers}
    return {status: response}


def failures(*kinds: ProblemType) -> Responses:
    """The problems an operation can answer, by status, each with an example."""
    responses: Responses = {}
    for kind in kinds:
        response = responses.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}},
            },
        )
        if kind.title not in response["description"]:
            response["description"] += f"; or: {kind.title}"
        response["content"][MEDIA_TYPE]["examples"][kind.slug] = {"value": _example(kind)}
    return responses


def together(first: Responses, second: Responses) -> Responses:
    """Both, where problems of the same status stand beside each other."""
    merged = first | second
    for status in first.keys() & second.keys() - {"default"}:
        one, other = first[status], second[status]
        both = {**_examples(one), **_examples(other)}
        merged[status] = {
            "description": f"{one['description']}; or: {other['description']}",
            "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": both}},
        }
    return merged


def _examples(response: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = response["content"][MEDIA_TYPE]["examples"]
    return found


def _example(kind: ProblemType) -> dict[str, Any]:
    return {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": kind.remedy,
        "request_id": _REQUEST_ID_EXAMPLE,
    }


# "default" also keeps FastAPI from adding a 422 of its own form.
_OTHERS: Final[Responses] = {
    "default": {"description": "Any other problem", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
}
OPEN: Final = failures(INTERNAL_ERROR) | _OTHERS
"""What every operation can answer."""
KEYED: Final = failures(UNAUTHORIZED, INSUFFICIENT_SCOPE, RATE_LIMITED, TOO_MANY_AT_ONCE, INTERNAL_ERROR) | _OTHERS
"""What every operation that needs an API key can answer."""


RETRIABLE: Final = failures(IDEMPOTENCY_IN_PROGRESS, IDEMPOTENCY_MISMATCH)
"""What every POST that takes an ``Idempotency-Key`` can answer besides."""


class DescribedApi(FastAPI):
    """FastAPI whose description has the schema of problems and the examples of answers."""

    def openapi(self) -> dict[str, Any]:
        """See FastAPI's "Extending OpenAPI"."""
        if self.openapi_schema is None:
            document = super().openapi()
            schema = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas = document["components"]["schemas"]
            schemas.update(schema.pop("$defs", {}))
            schemas["Problem"] = schema
            # Put in here, because FastAPI drops nulls from what it writes.
            answers = examples.ANSWERS | webhook_examples.ANSWERS | workspace_examples.ANSWERS
            document["components"]["examples"] = {name: {"value": value} for name, value in answers.items()}
        return super().openapi()
