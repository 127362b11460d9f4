"""What a node answers that is some blocks behind another one: every answer is that one's, seen from an older head."""

from collections.abc import Callable
from typing import Any, Final

Json = dict[str, Any]
Ask = Callable[[str, list[Any]], Json]

_STATE_READS: Final = {
    "eth_call": 1,
    "eth_estimateGas": 1,
    "eth_getCode": 1,
    "eth_getBalance": 1,
    "eth_getTransactionCount": 1,
    "eth_getStorageAt": 2,
}
"""Where each method takes its block."""

_BLOCK_OF: Final = {
    "eth_getBlockByHash": "number",
    "eth_getTransactionReceipt": "blockNumber",
    "eth_getTransactionByHash": "blockNumber",
}
"""Where each answer names its block."""

_NO_HEADER: Final = {"error": {"code": -32000, "message": "header not found"}}  # geth's words
_HEAD_TAGS: Final = frozenset({"latest", "pending"})


def seen_from(blocks_behind: int, method: str, params: list[Any], ask: Ask) -> Json:
    """Answer one call as a node does whose head is ``blocks_behind`` older.

    It knows no newer block, no log, transaction or state of one; tags mean its own blocks.
    """
    head = max(0, _quantity(ask("eth_blockNumber", [])) - blocks_behind)
    if method == "eth_blockNumber":
        return {"result": hex(head)}
    if method == "eth_getBlockByNumber":
        number = _height(params[0], head, blocks_behind, ask)
        return {"result": None} if number > head else ask(method, [hex(number), *params[1:]])
    if method in _BLOCK_OF:
        return _unless_newer(ask(method, params), _BLOCK_OF[method], head)
    if method == "eth_getLogs":
        return _logs(params[0], head, blocks_behind, ask)
    if method in _STATE_READS:
        return _state(method, params, head, blocks_behind, ask)
    return ask(method, params)


def blocks_of_logs(query: Json, ask: Ask) -> tuple[int, int]:
    """First and last block that a query for logs asks for."""
    head = _quantity(ask("eth_blockNumber", []))
    return tuple(_height(query.get(name, "latest"), head, 0, ask) for name in ("fromBlock", "toBlock"))  # type: ignore[return-value]  # two of them


def _logs(query: Json, head: int, behind: int, ask: Ask) -> Json:
    if "blockHash" in query:
        known = _unless_newer(ask("eth_getBlockByHash", [query["blockHash"], False]), "number", head)
        return _NO_HEADER if known.get("result") is None else ask("eth_getLogs", [query])
    first, last = (_height(query.get(name, "latest"), head, behind, ask) for name in ("fromBlock", "toBlock"))
    if first > head:
        return {"result": []}
    return ask("eth_getLogs", [{**query, "fromBlock": hex(first), "toBlock": hex(min(last, head))}])


def _state(method: str, params: list[Any], head: int, behind: int, ask: Ask) -> Json:
    at = _STATE_READS[method]
    block: object = params[at] if len(params) > at else "latest"
    if isinstance(block, dict) and "blockHash" in block:
        known = _unless_newer(ask("eth_getBlockByHash", [block["blockHash"], False]), "number", head)
        return _NO_HEADER if known.get("result") is None else ask(method, params)
    number = _height(block.get("blockNumber") if isinstance(block, dict) else block, head, behind, ask)
    return _NO_HEADER if number > head else ask(method, [*params[:at], hex(number), *params[at + 1 :]])


def _height(block: object, head: int, behind: int, ask: Ask) -> int:
    """Number of a block by number or tag."""
    if block in _HEAD_TAGS:
        return head
    if block == "earliest":
        return 0
    if block in ("safe", "finalized"):
        told = ask("eth_getBlockByNumber", [block, False]).get("result")
        return max(0, int(told["number"], 16) - behind) if told else head + 1
    return int(str(block), 16)


def _unless_newer(told: Json, member: str, head: int) -> Json:
    found = told.get("result")
    newer = isinstance(found, dict) and int(found.get(member) or "0x0", 16) > head
    return {"result": None} if newer else told


def _quantity(told: Json) -> int:
    return int(told["result"], 16)
