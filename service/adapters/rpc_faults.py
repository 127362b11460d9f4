"""What a JSON-RPC error says about a read: the contract reverted, or the node lacks the state.

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
    r"|historical|proof window",
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
