"""A Safe as its contract tells it: what to read, and what the answers mean.

Sources: the storage layout and the slots of the Safe contracts 1.3.0, 1.4.1 and 1.5.0 (``SafeProxy``, ``GuardManager``,
``ModuleManager``), and the singletons of ``@safe-global/safe-deployments`` 1.37.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from service.adapters.chain_shapes import WrongShape, returned
from service.adapters.jsonrpc import Call, RpcFault
from service.domain.chain import SafeState
from service.domain.hexes import ZERO_ADDRESS
from service.domain.hexes import address as checksummed

_VERSION: Final = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(\+[0-9A-Za-z.]{1,16})?\Z", re.ASCII)
_SENTINEL: Final = "0x" + "1".zfill(40)
"""Where the Safe's linked lists begin and end."""
_MODULES_READ: Final = 10
"""More are not listed, only told."""
_BYTES_32: Final = 32

_SINGLETON_SLOT: Final = "0x" + "0" * 64
"""``SafeProxy`` keeps its singleton in the first slot, before anything a singleton declares."""
_GUARD_SLOT: Final = "0x" + keccak(text="guard_manager.guard.address").hex()
_MODULE_GUARD_SLOT: Final = "0x" + keccak(text="module_manager.module_guard.address").hex()
"""Since 1.5.0; nothing is there in older Safes."""
_SLOTS: Final = (_SINGLETON_SLOT, _GUARD_SLOT, _MODULE_GUARD_SLOT)

_L2: Final[dict[str, bool]] = {
    # 1.3.0: canonical, then eip155 (chains that refuse the transaction of the canonical deployment)
    "0x3E5c63644E683549055b9Be8653de26E0B4CD36E": True,
    "0xfb1bffC9d739B8D520DaF37dF666da4C687191EA": True,
    "0xd9Db270c1B5E3Bd161E8c8503c55cEABeE709552": False,
    "0x69f4D1788e39c87893C980c06EdF4b7f686e2938": False,
    # 1.4.1
    "0x29fcB43b46531BcA003ddC8FCB67FFE91900C762": True,
    "0x41675C099F32341bf84BFc5382aF534df5C7461a": False,
    # 1.5.0
    "0xEdd160fEBBD92E350D4D398fb636302fccd67C7e": True,
    "0xFf51A5898e281Db6DfC7855790607438dF2ca44b": False,
}


def _selector(signature: str) -> str:
    return "0x" + keccak(text=signature)[:4].hex()


_GETTERS: Final = (
    (_selector("VERSION()"), ("string",)),
    (_selector("getOwners()"), ("address[]",)),
    (_selector("getThreshold()"), ("uint256",)),
    (_selector("nonce()"), ("uint256",)),
)
_MODULES: Final = (
    _selector("getModulesPaginated(address,uint256)") + encode(["address", "uint256"], [_SENTINEL, _MODULES_READ]).hex()
)


def safe_reads(address: str) -> list[Call]:
    """The reads of ``safe_state``, without the block."""
    calls = [*(data for data, _ in _GETTERS), _MODULES]
    getters = [Call("eth_call", [{"to": address, "data": data}]) for data in calls]
    return [*getters, *(Call("eth_getStorageAt", [address, slot]) for slot in _SLOTS)]


def safe_state(address: str, answers: Sequence[bytes | RpcFault]) -> SafeState | None:
    """The Safe out of the answers to ``safe_reads``, ``None`` where there is no Safe.

    Raises:
        WrongShape: what the node says of a storage slot is none.
    """
    values: list[Any] = []
    for (_, kinds), raw in zip(_GETTERS, answers, strict=False):
        decoded = None if isinstance(raw, RpcFault) else returned(kinds, raw)
        if decoded is None:
            return None
        values.extend(decoded)
    version, owners, threshold, nonce = values
    if _VERSION.match(version) is None or not 1 <= threshold <= len(owners):
        return None
    page, *slots = answers[len(_GETTERS) :]
    modules, more_modules = _modules(page)
    singleton, guard, module_guard = map(_address_in, slots)
    return SafeState(
        address=checksummed(address),
        version=version,
        owners=tuple(map(checksummed, owners)),
        threshold=threshold,
        nonce=nonce,
        singleton=singleton,
        l2=None if singleton is None else _L2.get(singleton),
        guard=guard,
        modules=modules,
        more_modules=more_modules,
        module_guard=module_guard,
    )


def _modules(page: bytes | RpcFault) -> tuple[tuple[str, ...], bool]:
    """The modules of a page, and whether there are others; a Safe too old to tell them may have any."""
    decoded = None if isinstance(page, RpcFault) else returned(["address[]", "address"], page)
    if decoded is None:
        return (), True
    modules, following = decoded
    return tuple(map(checksummed, modules)), following not in (_SENTINEL, ZERO_ADDRESS)


def _address_in(slot: bytes | RpcFault) -> str | None:
    """The address a storage slot holds, as Solidity reads it: the low 20 bytes; ``None`` for zero."""
    if isinstance(slot, RpcFault) or len(slot) != _BYTES_32:
        raise WrongShape("a storage slot that is not 32 bytes")
    low = slot[-20:]
    return checksummed(low.hex()) if any(low) else None
