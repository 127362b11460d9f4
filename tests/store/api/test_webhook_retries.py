"""``Idempotency-Key`` on the POSTs of webhook endpoints."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import text

from service.adapters.webhook_guard import WebhookGuard
from service.store.database import Database
from service.wiring import ApiParts
from tests.support.routes import problem
from tests.support.served_api import Api, serving

PATH = "/v1/webhook-endpoints"
URL = {"url": "https://hooks.example.com/"}
_LOCKS = text("""
    SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE locktype = 'advisory' AND datname = current_database()
""")


def test_a_retry_makes_no_second_endpoint_and_shows_the_same_secret(api: Api):
    first, retry = (api.acme.post(PATH, json=URL, headers={"Idempotency-Key": "hook"}) for _ in range(2))
    assert first.status_code == 201
    assert (retry.content, retry.headers["location"]) == (first.content, first.headers["location"])
    assert retry.headers["idempotent-replayed"] == "true"
    assert len(api.acme.get(PATH).json()["items"]) == 1


def test_a_retried_rotation_test_or_resend_happens_once(api: Api):
    own = f"{PATH}/{api.acme.post(PATH, json=URL).json()['id']}"
    rotated = [api.acme.post(f"{own}/rotate-secret", json={}, headers={"Idempotency-Key": "r"}) for _ in range(2)]
    assert rotated[0].json()["secret"] == rotated[1].json()["secret"]
    tests = [api.acme.post(f"{own}/test", headers={"Idempotency-Key": "t"}).json() for _ in range(2)]
    assert tests[0] == tests[1]
    resent = [
        api.acme.post(f"{own}/deliveries/{tests[0]['id']}/resend", headers={"Idempotency-Key": "s"}) for _ in range(2)
    ]
    assert [answer.headers.get("idempotent-replayed") for answer in resent] == [None, "true"]
    assert len(api.acme.get(f"{own}/deliveries").json()["items"]) == 1


def test_a_url_that_is_taken_is_kept_as_a_refusal(api: Api):
    made = api.acme.post(PATH, json=URL).json()
    headers = {"Idempotency-Key": "taken"}
    first = api.acme.post(PATH, json=URL, headers=headers)
    problem(first, 409, "webhook_endpoint_exists")
    assert api.acme.delete(f"{PATH}/{made['id']}").status_code == 200
    retry = api.acme.post(PATH, json=URL, headers=headers)
    assert (retry.status_code, retry.content) == (409, first.content)
    assert api.acme.post(PATH, json=URL, headers={"Idempotency-Key": "free"}).status_code == 201


class _Names:
    """A resolver that counts the locks of idempotent work at the moment it is asked."""

    def __init__(self, database: Database) -> None:
        self.address = "93.184.215.14"
        self.locks: list[int] = []
        self._database = database

    def __call__(self, _: str, __: int) -> Sequence[str]:
        with self._database.reads() as session:
            self.locks.append(session.execute(_LOCKS).scalar_one())
        return [self.address]


@pytest.mark.usefixtures("workspaces")
def test_names_are_resolved_before_the_work_and_do_not_matter_to_a_retry(parts: ApiParts, database: Database):
    names = _Names(database)
    made, refused = {"Idempotency-Key": "made"}, {"Idempotency-Key": "refused"}
    inside = {"url": "https://inside.example.com/"}
    with serving(replace(parts, webhook_guard=WebhookGuard(resolve=names))) as api:
        first = api.acme.post(PATH, json=URL, headers=made)
        assert first.status_code == 201
        names.address = "10.0.0.7"
        retry = api.acme.post(PATH, json=URL, headers=made)
        assert (retry.status_code, retry.content) == (201, first.content)
        problem(api.acme.post(PATH, json=inside, headers=refused), 422, "invalid_request")
        names.address = "93.184.215.14"
        assert api.acme.post(PATH, json=inside, headers=refused).status_code == 201
    assert names.locks == [0] * 4
