"""Webhook URLs in bodies. Their names are resolved before a route does its work, so that no transaction waits for it.

The work itself hears of a refusal: a retry with an ``Idempotency-Key`` gets the answer that was kept, whatever the name
resolves to by now.
"""

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Body, Depends

from service.api.deps import Caller, CallerDep
from service.api.problems import Problem, invalid
from service.api.webhook_bodies import CREATE_EXAMPLES, UPDATE_EXAMPLES, CreateEndpointBody, UpdateEndpointBody
from service.domain.errors import AddressRefused

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Checked(Generic[B]):
    """A body whose URL was looked at, and what speaks against it."""

    body: B
    refusal: Problem | None

    def allowed(self) -> B:
        """The body.

        Raises:
            Problem: ``invalid_request``: its URL cannot be a receiver's.
        """
        if self.refusal is not None:
            raise self.refusal
        return self.body


def _refusal(caller: Caller, url: str) -> Problem | None:
    try:
        caller.parts.webhook_guard.check(url)
    except AddressRefused as error:
        return invalid("#/url", error.detail.removeprefix("the URL "))
    return None


def _endpoint(
    body: Annotated[CreateEndpointBody, Body(openapi_examples=CREATE_EXAMPLES)], caller: CallerDep
) -> Checked[CreateEndpointBody]:
    return Checked(body, _refusal(caller, body.url))


def _change(
    body: Annotated[UpdateEndpointBody, Body(openapi_examples=UPDATE_EXAMPLES)], caller: CallerDep
) -> Checked[UpdateEndpointBody]:
    return Checked(body, None if body.url is None else _refusal(caller, body.url))


CheckedEndpoint = Annotated[Checked[CreateEndpointBody], Depends(_endpoint)]
CheckedChange = Annotated[Checked[UpdateEndpointBody], Depends(_change)]
