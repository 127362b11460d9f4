import json
from dataclasses import replace

import pytest

from service.domain.approver import Approver
from service.domain.chain import AppOwnership, SafeState
from tests.support.builders import CHAIN_ID, SAFE, SINGLETON

OTHER = "0x" + "77" * 20
APP = AppOwnership(has_code=True, owner=SAFE, pending_owner=None)
PLAIN = SafeState(SAFE, "1.4.1", (OTHER,), 1, 0, singleton=SINGLETON, l2=True)
ETHEREUM = 1


def test_a_plain_safe_and_app_give_no_warning():
    assert Approver(APP, PLAIN).warnings(CHAIN_ID) == ()
    assert Approver(APP, None).warnings(CHAIN_ID) == ()


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (replace(APP, requires_tcb_up_to_date=True), ["requireTcbUpToDate", "KMS refuses to boot", "UpToDate"]),
        (replace(APP, allows_any_device=True), ["allowAnyDevice", "every host"]),
        (replace(APP, pending_owner=OTHER), [f"transferred to {OTHER}", "acceptOwnership()", f"{SAFE} cannot"]),
    ],
)
@pytest.mark.parametrize("safe", [PLAIN, None])
def test_warnings_about_the_app(app: AppOwnership, safe: SafeState | None, words: list[str]):
    (warning,) = Approver(app, safe).warnings(CHAIN_ID)
    assert all(word in warning for word in words)


@pytest.mark.parametrize(
    ("safe", "words"),
    [
        (replace(PLAIN, guard=OTHER), ["transaction guard", OTHER]),
        (replace(PLAIN, modules=(OTHER, SAFE)), ["without its owners", f": {OTHER}, {SAFE}"]),
        (replace(PLAIN, modules=(OTHER,), more_modules=True), [f": {OTHER}, others"]),
        (replace(PLAIN, singleton=OTHER, l2=None), ["unpublished contract", OTHER, "Safe 1.4.1"]),
        (replace(PLAIN, singleton=None, l2=None), ["unpublished contract"]),
        (replace(PLAIN, l2=False), ["L2 variant"]),
    ],
)
def test_warnings_about_the_safe(safe: SafeState, words: list[str]):
    (warning,) = Approver(APP, safe).warnings(CHAIN_ID)
    assert all(word in warning for word in words)


def test_the_l1_variant_is_the_usual_one_on_ethereum():
    assert Approver(APP, replace(PLAIN, l2=False)).warnings(ETHEREUM) == ()


def test_several_warnings_are_told_in_one_order():
    app = replace(APP, allows_any_device=True, requires_tcb_up_to_date=True)
    safe = replace(PLAIN, guard=OTHER, modules=(OTHER,), l2=None)
    warnings = Approver(app, safe).warnings(CHAIN_ID)
    assert len(warnings) == len(set(warnings)) == 5
    assert warnings == Approver(app, safe).warnings(CHAIN_ID)


def test_it_can_be_stored():
    stored = json.loads(json.dumps(Approver(APP, PLAIN).as_json()))
    assert (stored["owner"], stored["pending_owner"]) == (SAFE, None)
    assert stored["safe"]["owners"] == [OTHER]
    assert Approver(APP, None).as_json()["safe"] is None
