"""How many endpoints of a chain must agree, by setting and by default."""

import pytest
from pydantic import ValidationError

from service.settings import ChainSettings


def chain(urls: int, **members: object) -> ChainSettings:
    record = {"name": "base", "rpc_urls": [f"https://rpc{number}.test/key-s3cret" for number in range(urls)]}
    return ChainSettings.model_validate(record | {"safe_service_url": "https://safe.test"} | members)


@pytest.mark.parametrize(("urls", "agreeing"), [(1, 1), (2, 1), (3, 2), (5, 2)])
def test_by_default_two_of_three_or_more_must_agree(urls: int, agreeing: int):
    assert chain(urls).agreeing_endpoints == agreeing


def test_the_operator_may_ask_for_another_number():
    assert [chain(3, rpc_agreement=number).agreeing_endpoints for number in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize("number", [0, -1, 4])
def test_a_number_that_cannot_be_reached_is_refused(number: int):
    with pytest.raises(ValidationError, match="rpc_agreement"):
        chain(3, rpc_agreement=number)


def test_an_endpoint_named_twice_would_vote_twice():
    with pytest.raises(ValidationError, match="names an endpoint twice") as fault:
        chain(1, rpc_urls=["https://rpc.test/key-s3cret"] * 2)
    assert "s3cret" not in str(fault.value.errors(include_input=False, include_url=False, include_context=False))
