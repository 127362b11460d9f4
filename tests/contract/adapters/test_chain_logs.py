"""Logs as an RPC endpoint may answer them: normal form and order, look-alikes left out, the rest nonsense."""

import pytest

from service.domain.chain import TOPICS
from service.domain.errors import Nonsense
from tests.support.hostile_rpc import always, chain_of

APP, HASH = "0x" + "aA" * 20, "0x" + "9f" * 32
TOPIC = next(iter(TOPICS))


def log(**changes: object) -> dict[str, object]:
    members = {
        "address": APP,
        "topics": [TOPIC],
        "data": HASH,
        "blockNumber": "0x5f",
        "blockHash": "0x" + "22" * 32,
        "transactionHash": "0x" + "33" * 32,
        "logIndex": "0x1",
        "removed": False,
    }
    return {name: value for name, value in (members | changes).items() if value is not ...}


def facts(logs: object) -> list[tuple[int, int]]:
    with chain_of(always(logs)) as chain:
        return [(fact.block.number, fact.log_index) for fact in chain.facts(90, 100)]


def test_logs_are_normalised_and_ordered():
    shuffled = [log(logIndex="0x2"), log(blockNumber="0x5a"), log(logIndex="0x1", removed=...)]
    assert facts(shuffled) == [(90, 1), (95, 1), (95, 2)]
    with chain_of(always([log(data=HASH.upper().replace("X", "x"))])) as chain:
        (fact,) = chain.facts(90, 100)
    assert (fact.app_contract, fact.value) == ("0xaAaAaAaaAaAaAaaAaAAAAAAAAaaaAaAaAaaAaaAa", HASH)


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": True},
        {"topics": [TOPIC, HASH]},
        {"data": "0x"},
        {"data": HASH + "00" * 32},
    ],
    ids=["removed", "indexed look-alike", "no data", "long data"],
)
def test_logs_that_are_no_allowlist_events_are_left_out(changes: dict[str, object]):
    assert facts([log(**changes), log(logIndex="0x9")]) == [(95, 9)]


@pytest.mark.parametrize(
    "changes",
    [
        {"topics": ["0x" + "44" * 32]},
        {"topics": []},
        {"topics": None},
        {"blockNumber": "0x59"},
        {"blockNumber": "0x65"},
        {"blockNumber": "95"},
        {"blockNumber": None},
        {"blockNumber": "0x" + "f" * 16},
        {"blockHash": None},
        {"blockHash": "0x22"},
        {"transactionHash": ...},
        {"logIndex": 1},
        {"address": "0x" + "aa" * 19},
        {"address": None},
        {"data": "9f" * 32},
        {"removed": "false"},
    ],
    ids=str,
)
def test_logs_that_were_not_asked_for_are_nonsense(changes: dict[str, object]):
    with pytest.raises(Nonsense):
        facts([log(), log(logIndex="0x2", **changes) if "logIndex" not in changes else log(**changes)])


@pytest.mark.parametrize("logs", [None, {}, "0x", [None], [[]], [log(), log()]], ids=str)
def test_an_answer_that_is_no_list_of_logs_is_nonsense(logs: object):
    with pytest.raises(Nonsense):
        facts(logs)
