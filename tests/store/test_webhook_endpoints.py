"""Webhook endpoints in the database."""

from contextlib import ExitStack

import pytest
from pydantic import SecretStr

from service.store import webhook_endpoints
from service.store.database import Database
from service.store.webhook_endpoints import MOST_ENDPOINTS, NewEndpoint, TooManyEndpoints
from tests.support import rows
from tests.support.threads import in_background, wait_until_blocked


def new(number: int) -> NewEndpoint:
    return NewEndpoint(f"https://hooks.example.com/{number}", SecretStr("whsec_c2VjcmV0"))


def test_a_workspace_has_no_more_endpoints_than_its_bound_though_two_ask_for_the_last(database: Database):
    ours, theirs = rows.workspace(database, "acme"), rows.workspace(database, "other")
    for number in range(1, MOST_ENDPOINTS):
        webhook_endpoints.create(database, ours, new(number), rows.ACTOR)
    with ExitStack() as stack:
        with database.together() as first:
            webhook_endpoints.create(first, ours, new(0), rows.ACTOR)
            webhook_endpoints.create(database, theirs, new(0), rows.ACTOR)
            late = stack.enter_context(
                in_background(lambda: webhook_endpoints.create(database, ours, new(50), rows.ACTOR))
            )
            wait_until_blocked(database, 1)
        with pytest.raises(TooManyEndpoints):
            late.result(20)
