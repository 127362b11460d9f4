"""Every recorded exchange of a real Safe Transaction Service, replayed against the sandbox."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.anvil import Anvil
from sandbox.chain.local import LocalChain
from sandbox.chain.safes import deploy_safe_contracts
from sandbox.jsonrpc import JsonRpc
from sandbox.safe_service.server import running
from tests.contract.safe_service.replay import EXCHANGES, RECORDED_AT, RecordedClock, Replay

pytestmark = pytest.mark.chain

# All kept exchanges are replayed. `sandbox.safe_service` lists what the sandbox leaves out beyond them, and why.

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
HASH = re.compile(r"0x[0-9a-f]{64}")
DECIMAL = re.compile(r"\d+")
# What depends on time, block or gas is compared by shape, and only that.
TIMES = {
    "executionDate", "submissionDate", "modified", "created", "currentBlockTimestamp", "erc20BlockTimestamp",
    "masterCopiesBlockTimestamp",
}  # fmt: skip
BLOCKS = {"blockNumber", "currentBlockNumber", "erc20BlockNumber", "masterCopiesBlockNumber", "lastIndexedBlockNumber"}
DECIMALS = {"ethGasPrice", "fee", "maxFeePerGas", "maxPriorityFeePerGas"}
ELSEWHERE = {"host", "ETHEREUM_NODE_URL"}  # where it happens to run


def shape(name: str, value: object) -> object:
    if value is None:
        return None
    if name in TIMES:
        fraction = TIME.fullmatch(str(value))
        assert fraction, f"{name}: {value}"
        return "time with microseconds" if fraction[1] else "time in seconds"
    if name in BLOCKS or name == "gasUsed":
        return type(value)
    if name == "transactionHash":
        return bool(HASH.fullmatch(str(value)))
    if name in DECIMALS:
        return bool(DECIMAL.fullmatch(str(value)))
    return "address" if name in ELSEWHERE else comparable(value)


def comparable(content: object) -> object:
    if isinstance(content, dict):
        return {name: shape(name, value) for name, value in content.items()}
    if isinstance(content, list):
        return [comparable(item) for item in content]
    return content


def body_of(answer: httpx.Response) -> object:
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    return answer.json() if is_json else None


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx.Response]]:
    clock = RecordedClock()
    database = tmp_path_factory.mktemp("safe") / "service.sqlite"
    with (
        Anvil(timestamp=int(clock.time.timestamp()) - 60) as anvil,
        JsonRpc(anvil.rpc_url) as rpc,
        running(database, rpc_url=anvil.rpc_url, now=clock) as address,
        httpx.Client(base_url=address) as client,
    ):
        chain = LocalChain(rpc)
        deploy_safe_contracts(chain, "1.4.1")
        yield Replay(chain, client, clock).run()


@pytest.mark.parametrize("exchange", EXCHANGES, ids=[exchange["id"] for exchange in EXCHANGES])
def test_the_sandbox_answers_as_the_real_service_did(
    exchange: dict[str, Any], answers: dict[str, httpx.Response]
) -> None:
    answer, recorded = answers[exchange["id"]], exchange["response"]
    assert answer.status_code == recorded["status"]
    body = body_of(answer)
    if isinstance(body, dict) and body.get("next"):
        here = str(answer.url.copy_with(path="/", query=None)).rstrip("/")
        body = {k: v.replace(here, RECORDED_AT) if k in ("next", "previous") and v else v for k, v in body.items()}
    assert comparable(body) == comparable(recorded["body"])
    assert list(body) == list(recorded["body"]) if isinstance(body, dict) else True
    if "Location" in recorded["headers"]:
        assert answer.headers["location"] == recorded["headers"]["Location"]
