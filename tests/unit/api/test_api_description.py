"""The OpenAPI document, and the page of problems."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from service.adapters.webhook_guard import WebhookGuard
from service.api import problem_pages, problems
from service.api.app import create_app
from service.api.bodies import RefreshBody, RetryBody, SubmitBody
from service.api.patch import PatchMembers
from service.api.problems import MEDIA_TYPE, PROBLEMS, ProblemType
from service.api.routers.api_keys import CreateKeyBody, RotateKeyBody
from service.api.routers.change_requests import EventsQuery, ListQuery, ReadQuery
from service.api.routers.freeze import FreezeBody
from service.api.webhook_bodies import (
    CreateEndpointBody,
    DeliveriesQuery,
    FeedQuery,
    ReplayBody,
    RotateSecretBody,
    UpdateEndpointBody,
)
from service.api.workspace_bodies import ContractBody, DeadlinesChange, PolicyChange, RetentionChange, WorkspaceChange
from service.domain.api_keys import Scope
from service.store.database import Database, make_engine
from service.wiring import ApiParts
from tests.support import rows
from tests.support.fakes import FixedClock

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
BODIES: dict[str, type[BaseModel]] = {
    "POST /v1/change-requests": SubmitBody,
    "POST /v1/change-requests/{request_id}/refresh": RefreshBody,
    "POST /v1/change-requests/{request_id}/retry": RetryBody,
    "POST /v1/workspace/freeze": FreezeBody,
    "POST /v1/webhook-endpoints": CreateEndpointBody,
    "PATCH /v1/webhook-endpoints/{endpoint_id}": UpdateEndpointBody,
    "POST /v1/webhook-endpoints/{endpoint_id}/rotate-secret": RotateSecretBody,
    "POST /v1/webhook-endpoints/{endpoint_id}/replay": ReplayBody,
    "PATCH /v1/workspace": WorkspaceChange,
    "POST /v1/workspace/safes": ContractBody,
    "POST /v1/workspace/external-apps": ContractBody,
    "POST /v1/api-keys": CreateKeyBody,
    "POST /v1/api-keys/{key_id}/rotate": RotateKeyBody,
}


@pytest.fixture(scope="module")
def document() -> Json:
    """The document as it is served; nothing is connected to."""
    database = Database(make_engine("postgresql://nobody@localhost/none"), rows.sealer())
    app = create_app(ApiParts(database, FixedClock(), {}, WebhookGuard()))
    described: Json = json.loads(json.dumps(app.openapi()))
    return described


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def examples(document: Json, content: Json) -> list[object]:
    found = []
    for example in content.get("examples", {}).values():
        name = example.get("$ref", "").removeprefix("#/components/examples/")
        found.append((document["components"]["examples"][name] if name else example)["value"])
    return found


def test_every_operation_has_valid_examples_of_its_success(document: Json):
    for name, operation in operations(document):
        (success,) = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        for content in success["content"].values():
            assert examples(document, content), name
            for value in examples(document, content):
                check(document, content["schema"], value)


def test_every_body_has_valid_examples(document: Json):
    taken = {}
    for name, operation in operations(document):
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            taken[name] = examples(document, content)
            assert len(taken[name]) == 2, name
            for value in taken[name]:
                check(document, content["schema"], value)
                BODIES[name].model_validate(value)
    assert taken.keys() == BODIES.keys()


def test_every_problem_of_an_operation_is_described(document: Json):
    for name, operation in operations(document):
        failures = {status: answer for status, answer in operation["responses"].items() if not status.startswith("2")}
        if "/v1/" in name:
            assert {"401", "403", "429", "500"} <= set(failures), name
            assert operation["security"] == [{"ApiKey": []}]
            assert "Needs scope" in operation["description"], name
            assert ("Idempotency-Key" in json.dumps(operation.get("parameters"))) is name.startswith("POST"), name
        for status, answer in failures.items():
            content = answer["content"][MEDIA_TYPE]
            for value in examples(document, content):
                check(document, content["schema"], value)
                assert isinstance(value, dict)
                assert str(value["status"]) == status
        assert "default" in failures


def check(document: Json, schema: Json, value: object) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_the_document_speaks_of_no_other_errors(document: Json):
    assert document["openapi"].startswith("3.1")
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_page_of_errors_is_up_to_date():
    assert (ROOT / "docs/errors.md").read_text() == problem_pages.errors_page()


def test_the_page_has_every_problem():
    kinds = [value for value in vars(problems).values() if isinstance(value, ProblemType)]
    assert sorted(kinds, key=lambda kind: kind.slug) == sorted(PROBLEMS, key=lambda kind: kind.slug)
    assert len({kind.slug for kind in PROBLEMS}) == len(PROBLEMS)
    page = problem_pages.errors_page()
    assert all(f"## {kind.slug}\n" in page for kind in PROBLEMS)


def test_the_guide_names_every_member():
    guide = "".join((ROOT / "docs" / page).read_text() for page in ("api.md", "webhooks.md"))
    queries = (ReadQuery, ListQuery, EventsQuery, DeliveriesQuery, FeedQuery)
    parts = (PolicyChange, DeadlinesChange, RetentionChange)
    members = {*PatchMembers.__annotations__}.union(*(body.model_fields for body in (*BODIES.values(), *parts)))
    members |= {name for query in queries for name in query.model_fields}
    members |= {"Idempotency-Key", "Idempotent-Replayed", "RateLimit", "RateLimit-Policy", "Retry-After", *Scope}
    assert {name for name in members if not re.search(rf"\b{name}\b", guide)} == set()
