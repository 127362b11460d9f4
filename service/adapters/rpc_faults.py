"""What a JSON-RPC error says about a read: it reverted, the node lacks the state, or it asks for too much.

No standard fixes the codes; the texts are those of geth, Erigon, Nethermind, reth, Besu and anvil. A fault that is
neither says nothing about the question.
"""

import re
from typing import Final

from service.adapters.jsonrpc import RpcFault

_REVERTED_CODE: Final = 3  # geth and those who follow it
_WITH_REVERT_DATA: Final = frozenset({_REVERTED_CODE, -32000, -32015})  # -32015: Nethermind, OpenEthereum
_REVERTED: Final = re.compile(
    r"(execution )?revert|evm error|vm execution error|vm exception|invalid opcode|invalid jump|bad jump"
    r"|bad instruction|stack (under|over)flow|out of gas",
    re.IGNORECASE,
)
_RESOURCE_NOT_FOUND: Final = -32001  # EIP-1474; EIP-1898 asks for it where the block is unknown
_LACKS_STATE: Final = re.compile(
    r"header (for hash )?not found|(block|resource|state|header|ancestor).*not (found|available)|unknown (block|header)"
    r"|missing trie node|state.*(unavailable|pruned)|pruned|not (currently )?canonical|out ?of ?range"
    r"|historical|proof window|beyond current head",
    re.IGNORECASE,
)


def reverted(fault: RpcFault) -> bool:
    """Whether the EVM ran the call and it failed; asked before anything else, as the text may quote the contract."""
    if fault.code == _REVERTED_CODE or (fault.code in _WITH_REVERT_DATA and fault.data is not None):
        return True
    return _REVERTED.match(fault.message) is not None


def lacks_state(fault: RpcFault) -> bool:
    """Whether the node does not know the block, does not hold it canonical, or has no state there."""
    return fault.code == _RESOURCE_NOT_FOUND or _LACKS_STATE.search(fault.message) is not None


_RANGE: Final = re.compile(r"ranges?\b|\bblock span|blocks distance|too many blocks", re.IGNORECASE)
_LIMITED: Final = re.compile(
    r"too (large|big|wide|high|many)|exceed|(larg|bigg|great|small)er than|limit|\bmax|up to an? |ranges? over|at most"
    r"|(reduc|narrow)e?\b|should work",
    re.IGNORECASE,
)
_TOO_MUCH: Final = re.compile(
    r"response (size )?(is )?(exceeded|too (large|big)|larger|should not)|\btoo many (logs|results)"
    r"|(more than|exceeds max|max(imum)?) (results|logs|[0-9,]+ (results|logs))|query (timeout|timed out)"
    r"|must be smaller than size|narrow your filter",
    re.IGNORECASE,
)
_TOO_OFTEN_OR_ELSEWHERE: Final = re.compile(
    r"rate.?limit|too many requests|per (second|minute|day)|quota|compute unit|credit"
    r"|beyond|invalid block range|current head|out ?of ?range",
    re.IGNORECASE,
)
_TOO_MUCH_CODES: Final = frozenset({413, -32614, -32008})
_PAIR: Final = re.compile(
    r"(0x[0-9a-f]{1,12}), ?(0x[0-9a-f]{1,12})|range (?P<first>[0-9]{1,15})-(?P<last>[0-9]{1,15})", re.IGNORECASE
)
_NUMBER: Final = re.compile(
    r"(?<![\w.])([0-9][0-9,]{0,12})(k)?\b(?! ?(?:results|logs|[kmg]?b\b|bytes|seconds|secs|ms\b|s\b))", re.IGNORECASE
)


def too_wide(fault: RpcFault) -> bool:
    """Whether ``eth_getLogs`` asks for more blocks, or logs, than the endpoint gives at once.

    Seen: "query returned more than 10000 results" and "range 1000000 exceeds limit of 10000" (Infura), "up to a 500
    block range" and "Log response size exceeded" (Alchemy), "eth_getLogs is limited to a 10,000 range" under HTTP 413
    with -32614 (QuickNode), "maximum [from, to] blocks distance: 10000" (Ankr), "exceed maximum block range: 5000"
    (BNB Chain, publicnode), "eth_getLogs range is too large, max is 1k blocks" (LlamaRPC, merkle.io), "ranges over
    10000 blocks are not supported on freetier" (dRPC), "Max range: 800" (Cloudflare), "range 9009594 is bigger than
    range limit 2000" in ``data`` (Tenderly), "query exceeds max block range 5000", "query exceeds max results 20000"
    (reth), "query block range exceeds server limit, narrow your filter: 1000" (Erigon), "block range too large, max
    range: 1000" (cdk-erigon), "requested too many blocks from 0 to 5000, maximum is set to 1024" (coreth), "Response is
    too big" with -32008 (jsonrpsee), "block range is too wide (maximum 1024)" (Frontier).
    """
    text = f"{fault.message} {fault.words}"
    if fault.code in _TOO_MUCH_CODES:
        return True
    if _TOO_OFTEN_OR_ELSEWHERE.search(text):
        return False
    return _TOO_MUCH.search(text) is not None or bool(_RANGE.search(text) and _LIMITED.search(text))


def range_named(fault: RpcFault, refused: int) -> int | None:
    """The number of blocks, fewer than the ``refused``, that the text says the endpoint takes; ``None`` without one.

    Some texts propose a pair of blocks, some name a number, last, after the one that was asked for. A wrong guess costs
    some small requests, until larger ones are tried again.
    """
    text = f"{fault.message} {fault.words}"
    pairs = [_blocks(match) for match in _PAIR.finditer(text)]
    numbers = [_number(match) for match in _NUMBER.finditer(_PAIR.sub(" ", text))]
    return next((named for named in (*pairs, *reversed(numbers)) if 0 < named < refused), None)


def _blocks(pair: re.Match[str]) -> int:
    if pair["first"] is not None:
        return int(pair["last"]) - int(pair["first"]) + 1
    return int(pair[2], 16) - int(pair[1], 16) + 1


def _number(match: re.Match[str]) -> int:
    return int(match[1].replace(",", "")) * (1000 if match[2] else 1)
