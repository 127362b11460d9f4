"""The official api-kit and protocol-kit propose, confirm and execute against the sandbox."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sandbox.chain.accounts import DELEGATE, OWNERS
from sandbox.chain.apps import deploy_dstack_app, transfer_to_safe
from sandbox.chain.artifacts import safe_artifact
from sandbox.chain.local import encode_call
from sandbox.chain.safes import DEPLOYMENTS, SafeVersion, deploy_safe
from tests.support.safe_service import SafeWorld

pytestmark = [pytest.mark.chain, pytest.mark.node]

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("official_kits.mjs")
COMPOSE_HASH = bytes.fromhex("ab" * 32)


def run_kits(task: dict[str, Any]) -> dict[str, Any]:
    command = ["node", str(SCRIPT)]
    run = subprocess.run(
        command, cwd=ROOT, input=json.dumps(task), capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    answers: dict[str, Any] = json.loads(run.stdout)
    return answers


@pytest.mark.parametrize("version", ["1.3.0", "1.4.1", "1.5.0"])
def test_kits_propose_confirm_and_execute(world: SafeWorld, version: SafeVersion):
    chain = world.chain
    safe = deploy_safe(chain, version)
    app = deploy_dstack_app(chain, "two-step")
    transfer_to_safe(chain, app, safe)  # nonce 0
    deployment = DEPLOYMENTS[version]
    (multi_send,) = chain.deploy_deterministic(safe_artifact("MultiSend_V1_4_1").bytecode)  # the kit insists on one
    answers = run_kits(
        {
            "rpcUrl": chain.rpc.url,
            "txServiceUrl": str(world.client.base_url).rstrip("/") + "/api",
            "safe": safe,
            "to": app,
            "data": "0x" + encode_call("addComposeHash(bytes32)", COMPOSE_HASH).hex(),
            "ownerKeys": ["0x" + bytes(owner.key).hex() for owner in OWNERS],
            "delegateKey": "0x" + bytes(DELEGATE.key).hex(),
            "contracts": {
                "safeSingletonAddress": deployment.singleton,
                "safeProxyFactoryAddress": deployment.factory,
                "fallbackHandlerAddress": deployment.fallback_handler,
                "multiSendAddress": multi_send,
                "multiSendCallOnlyAddress": deployment.multi_send_call_only,
            },
        }
    )
    owner, second_owner = OWNERS[0].address, OWNERS[1].address
    assert answers["service"] == "6.10.1"
    assert answers["safe"]["version"] == f"{version}+L2"
    assert answers["ownedSafes"] == [safe]
    assert (answers["nextNonce"], answers["nextNonceAfterProposal"]) == ("1", "2")
    assert f"Sender={DELEGATE.address} is not an owner or delegate" in answers["beforeDelegation"]
    assert [(d["delegate"], d["delegator"]) for d in answers["delegates"]] == [(DELEGATE.address, owner)]

    proposed = answers["proposed"]
    assert (proposed["proposer"], proposed["proposedByDelegate"]) == (owner, DELEGATE.address)
    assert (proposed["confirmations"], proposed["trusted"], proposed["confirmationsRequired"]) == ([], True, 2)
    assert proposed["origin"] == "official kits"
    assert f"Signer={DELEGATE.address} is not an owner" in answers["delegateConfirms"]
    assert [(c["owner"], c["signatureType"]) for c in answers["confirmations"]] == [
        (owner, "ETH_SIGN"),
        (second_owner, "EOA"),
    ]
    assert answers["pending"] == [answers["safeTxHash"]]
    assert answers["executable"] is True

    executed = answers["executed"]
    assert (executed["isExecuted"], executed["isSuccessful"]) == (True, True)
    assert executed["transactionHash"] == answers["transactionHash"]
    assert chain.call(app, "allowedComposeHashes(bytes32)", COMPOSE_HASH, returns="bool")
    assert answers["pendingAfter"] == 0
    assert answers["all"][0] == answers["safeTxHash"]
    assert "was already executed" in answers["confirmedTooLate"]

    (approval,) = answers["approvedOnChain"]
    assert (approval["owner"], approval["signatureType"]) == (second_owner, "APPROVED_HASH")
    rejection = answers["rejection"]
    assert (rejection["to"], rejection["value"], rejection["data"], rejection["nonce"]) == (safe, "0", None, "2")
    assert answers["listed"] == [answers["rejectionHash"], answers["secondHash"]]
    assert answers["delegatesAfter"] == 0
    assert "Not Found" in answers["unknownSafe"]
