"""An app contract as it tells itself: what to read, and what the answers mean.

Sources: ``DstackApp.sol`` and ``IAppAuth.sol`` of dstack, OpenZeppelin's ``Ownable2Step``. Functions that an older
implementation lacks revert with empty data.
"""

from collections.abc import Sequence
from typing import Final

from eth_utils.crypto import keccak

from service.adapters.chain_shapes import WrongShape, returned, returned_address
from service.adapters.jsonrpc import Call, RpcFault
from service.domain.chain import AppOwnership
from service.domain.hexes import ZERO_ADDRESS

_APP_AUTH: Final = "1e079198"
"""ERC-165 id of ``IAppAuth``, which DstackApp of every version says it has."""
_NOTHING: Final = "0" * 64


def _selector(signature: str) -> str:
    return "0x" + keccak(text=signature)[:4].hex()


_CALLS: Final = (
    _selector("owner()"),
    _selector("pendingOwner()"),
    _selector("supportsInterface(bytes4)") + _APP_AUTH.ljust(64, "0"),
    _selector("allowedComposeHashes(bytes32)") + _NOTHING,
    _selector("allowedDeviceIds(bytes32)") + _NOTHING,
    _selector("allowAnyDevice()"),
    _selector("requireTcbUpToDate()"),
)


def app_reads(address: str) -> list[Call]:
    """The reads of ``app_ownership``, without the block."""
    return [
        Call("eth_getCode", [address]),
        *(Call("eth_call", [{"to": address, "data": data}]) for data in _CALLS),
    ]


def app_ownership(answers: Sequence[bytes | RpcFault]) -> AppOwnership:
    """The contract out of the answers to ``app_reads``.

    Raises:
        WrongShape: the code is none.
    """
    code, owner, pending, interface, hashes, devices, any_device, tcb = answers
    if isinstance(code, RpcFault):
        raise WrongShape("code that reverts")
    pending_owner = _address(pending)
    lists = (_flag(hashes), _flag(devices), _flag(any_device))
    return AppOwnership(
        has_code=bool(code),
        owner=_address(owner),
        pending_owner=None if pending_owner == ZERO_ADDRESS else pending_owner,
        is_app=_flag(interface) is True and None not in lists,
        allows_any_device=_flag(any_device) is True,
        requires_tcb_up_to_date=_flag(tcb) is True,
    )


def _address(answer: bytes | RpcFault) -> str | None:
    return None if isinstance(answer, RpcFault) else returned_address(answer)


def _flag(answer: bytes | RpcFault) -> bool | None:
    """What a function answered, ``None`` where there is no such function."""
    values = None if isinstance(answer, RpcFault) else returned(["bool"], answer)
    return None if values is None else bool(values[0])
