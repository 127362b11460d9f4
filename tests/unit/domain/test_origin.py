import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.origin import approval_origin, rejection_origin

IDS = [f"cr_{number:032x}" for number in range(12)]


def note(origin: str) -> str:
    return str(json.loads(origin)["note"])


def test_name_and_change_requests_are_in_the_note_that_owners_see() -> None:
    assert note(approval_origin(IDS[:1])) == f"Countersign {IDS[0]}"
    assert note(approval_origin(IDS[:3])) == f"Countersign {IDS[0]} {IDS[1]} {IDS[2]}"
    assert note(rejection_origin(IDS[:1])) == f"Countersign: not needed any more: {IDS[0]}"


@pytest.mark.parametrize("origin", [approval_origin, rejection_origin])
def test_those_without_room_are_counted(origin: Callable[[list[str]], str]) -> None:
    shown = note(origin(IDS)).split()
    named = [word for word in shown if word in IDS]
    assert len(named) >= 4
    assert (named, shown[-1]) == (IDS[: len(named)], f"+{len(IDS) - len(named)}")


@given(st.integers(0, 500))
def test_never_more_than_200_characters(count: int) -> None:
    ids = IDS[:1] * count
    for origin in (approval_origin(ids), rejection_origin(ids)):
        assert len(origin) <= 200
        assert note(origin).startswith("Countersign")
