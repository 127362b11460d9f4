"""A Safe changes while an approval waits."""

from dataclasses import replace

import pytest

from service.domain.alerts import AlertCode
from service.domain.chain import SafeState
from service.domain.snapshots import SafeSeen
from service.steps.safe_changes import safe_changes, seen
from tests.support.builders import SAFE

A, B, C, KEY = ("0x" + digit * 40 for digit in "abcd")
STATE = SafeState(SAFE, "1.4.1", (A, B), 2, 0, guard=None, modules=())


def told(before: SafeSeen | None, **changes: object) -> list[tuple[AlertCode, str]]:
    alerts = safe_changes(before, replace(STATE, **changes), KEY)  # type: ignore[arg-type]  # fields by name
    return [(alert.code, alert.message) for alert in alerts]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"owners": (B, C)}, AlertCode.OWNERS_CHANGED, f"owners changed: added {C}, removed {A}"),
        ({"threshold": 1}, AlertCode.THRESHOLD_CHANGED, "threshold changed: 2 -> 1"),
        ({"guard": C}, AlertCode.GUARD_CHANGED, f"guard changed: none -> {C}"),
        ({"modules": (C,)}, AlertCode.MODULES_CHANGED, f"modules changed: added {C}"),
    ],
)
def test_each_change_is_told(changes: dict[str, object], code: AlertCode, message: str) -> None:
    assert told(seen(STATE), **changes) == [(code, message)]


@pytest.mark.parametrize("changes", [{}, {"owners": (B, A)}, {"nonce": 7}, {"modules": (C,), "more_modules": True}])
def test_what_is_no_change_or_not_known_is_not_told(changes: dict[str, object]) -> None:
    assert told(seen(STATE), **changes) == []


def test_the_first_look_has_nothing_to_compare_with() -> None:
    assert told(None, threshold=1) == []


def test_our_key_as_an_owner_is_told_whenever_it_is_one() -> None:
    owned = {"owners": (A, B, KEY)}
    codes = [AlertCode.OWNERS_CHANGED, AlertCode.PROPOSER_IS_OWNER]
    assert [code for code, _ in told(seen(STATE), **owned)] == codes
    assert [code for code, _ in told(None, **owned)] == [AlertCode.PROPOSER_IS_OWNER]
