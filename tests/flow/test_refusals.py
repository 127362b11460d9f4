"""What cannot be approved is refused before anything is sent; what is bad leaves nothing half-done."""

from collections.abc import Iterator

import pytest

from sandbox.chain.accounts import DELEGATE, OUTSIDER, OWNERS
from sandbox.deployment import WORKSPACE
from service.domain.reasons import Reason
from tests.support.stack import Stack, compose, first_cvm


@pytest.fixture
def proposer_key(stack: Stack) -> Iterator[Stack]:
    """A stack whose worker's key a test may change; the delegate's is back afterwards."""
    yield stack
    stack.restart_worker_as(DELEGATE)


def _failed(stack: Stack, cvm: str, reason: Reason, **members: object) -> None:
    request_id = stack.submit(cvm, compose(reason.value), **members)
    failed = stack.wait_for(request_id, "failed")
    assert failed["reason"]["code"] == reason
    assert failed["reason"]["advice"]
    assert stack.world.phala.ledger("prepare", cvm) == []


def _off_chain_cvm(stack: Stack) -> str:
    return str(stack.world.phala.create_cvm(WORKSPACE, chain_id=None, kms_type="phala")["vm_uuid"])


def test_a_cvm_without_on_chain_kms(stack: Stack):
    _failed(stack, _off_chain_cvm(stack), Reason.APPROVAL_NOT_POSSIBLE)


def test_a_cvm_without_on_chain_kms_is_updated_at_once_when_asked_for(stack: Stack):
    cvm = _off_chain_cvm(stack)
    request_id = stack.submit(cvm, compose("at once"), allow_without_approval=True)
    stack.wait_for(request_id, "completed")
    assert "committed" in stack.event_names(request_id)
    assert "proposed" not in stack.event_names(request_id)


def test_a_patch_that_moves_no_hash(stack: Stack):
    cvm = first_cvm(stack.world.add_app())
    answer = stack.post(cvm_id=cvm, patch={"vcpu": 2})
    assert answer.status_code == 202
    failed = stack.wait_for(answer.json()["id"], "failed")
    assert failed["reason"]["code"] == Reason.APPROVAL_NOT_POSSIBLE
    assert stack.world.phala.ledger("prepare", cvm) == []


def test_an_unknown_cvm(stack: Stack):
    request_id = stack.submit("no-such-cvm", compose("unknown"))
    assert stack.wait_for(request_id, "failed")["reason"]["code"] == Reason.CVM_NOT_FOUND


def test_an_app_whose_owner_is_no_registered_safe(stack: Stack):
    cvm = stack.world.add_foreign_app()
    _failed(stack, first_cvm(cvm), Reason.APP_OWNER_NOT_REGISTERED)


def test_a_proposer_that_is_an_owner(proposer_key: Stack):
    proposer_key.restart_worker_as(OWNERS[2])
    _failed(proposer_key, first_cvm(proposer_key.world.add_app()), Reason.PROPOSER_IS_OWNER)


def test_a_proposer_that_is_no_delegate_blocks_the_workspace_until_it_is_one(proposer_key: Stack):
    stack = proposer_key
    stack.restart_worker_as(OUTSIDER)
    cvm = first_cvm(stack.world.add_app())
    request_id = stack.submit(cvm, compose("no delegate"))
    stack.wait_until(lambda: (stack.get(request_id)["reason"] or {}).get("code") == Reason.PROPOSER_NOT_DELEGATE)
    (block,) = stack.client.get("/v1/workspace").json()["blocks"]
    assert block["code"] == Reason.PROPOSER_NOT_DELEGATE
    assert stack.world.phala.ledger("prepare", cvm) == []

    stack.restart_worker_as(DELEGATE)
    assert stack.client.post("/v1/workspace/recheck").status_code == 202
    stack.wait_for(request_id, "proposed")
    assert stack.client.get("/v1/workspace").json()["blocks"] == []


def test_bad_bodies_are_problems_that_say_what_to_do(stack: Stack):
    cvm = first_cvm(stack.world.add_app())
    prepared = stack.prepare_elsewhere(cvm, compose("bad bodies"))
    short_hash = {**prepared, "compose_hash": prepared["compose_hash"][:-1]}
    bad_checksum = {**prepared, "app_id": _other_case(prepared["app_id"])}
    wrong_chain = {**prepared, "chain_id": 424242}
    for body in (
        {"cvm_id": cvm, "patch": {"docker_compose_file": "services: ["}},
        {"cvm_id": cvm, "patch": {"unknown_field": 1}},
        {"cvm_id": cvm, "patch": {}},
        {"prepared": short_hash},
        {"prepared": bad_checksum},
        {"prepared": wrong_chain},
    ):
        answer = stack.client.post("/v1/change-requests", json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    malformed = stack.client.post("/v1/change-requests", content=b"{", headers={"content-type": "application/json"})
    assert malformed.status_code == 400
    listed = stack.client.get("/v1/change-requests", params={"cvm_id": cvm})
    assert listed.json()["items"] == []


def _other_case(address: str) -> str:
    return "0x" + "".join(c.lower() if c.isupper() else c.upper() for c in address[2:])
