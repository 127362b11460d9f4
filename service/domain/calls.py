"""Calls a Safe makes on a DstackApp, and their EIP-712 hash. Pure.

Selectors are computed from the signatures of the DstackApp contract; the Safe's type hashes are those of Safe 1.3.0 to
1.5.0 (``SafeTx`` and a domain of chain id and verifying contract).
"""

from dataclasses import dataclass
from typing import Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from service.domain.hexes import ZERO_ADDRESS

CALL: Final = 0
DELEGATECALL: Final = 1
MULTI_SEND_CALL_ONLY: Final = "0x9641d764fc13c8B624c04430C7356C1C7C8102e2"
"""Canonical MultiSendCallOnly 1.4.1; works with every Safe version."""
MULTI_SEND_CODE_HASH: Final = "0xecd5bd14a08c5d2122379900b2f272bdf107a7e92423c10dd5fe3254386c9939"
"""keccak-256 of its code, by ``@safe-global/safe-deployments`` 1.37."""

_DOMAIN_TYPE: Final = keccak(text="EIP712Domain(uint256 chainId,address verifyingContract)")
_SAFE_TX_TYPE: Final = keccak(
    text="SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,"
    "uint256 gasPrice,address gasToken,address refundReceiver,uint256 nonce)"
)


def _selector(signature: str) -> bytes:
    return bytes(keccak(text=signature)[:4])


ADD_COMPOSE_HASH: Final = _selector("addComposeHash(bytes32)")
ADD_DEVICE: Final = _selector("addDevice(bytes32)")
MULTI_SEND: Final = _selector("multiSend(bytes)")


@dataclass(frozen=True, slots=True)
class SafeCall:
    """What the Safe executes: no value, no refund.

    Attributes:
        to: checksummed address.
        data: ``0x``-prefixed calldata.
        operation: 0 for CALL, 1 for DELEGATECALL (only the canonical MultiSendCallOnly).
    """

    to: str
    data: str
    operation: int


def add_compose_hash(compose_hash: str) -> bytes:
    """Calldata of ``addComposeHash``; the hash is ``0x``-prefixed bytes32."""
    return ADD_COMPOSE_HASH + bytes.fromhex(compose_hash[2:])


def add_device(device_id: str) -> bytes:
    """Calldata of ``addDevice``; the device id is ``0x``-prefixed bytes32."""
    return ADD_DEVICE + bytes.fromhex(device_id[2:])


def approval_call(app_contract: str, compose_hash: str, devices: tuple[str, ...]) -> SafeCall:
    """The one call that allows ``compose_hash`` and every device of ``devices`` on the app contract.

    Without devices it is a plain CALL of ``addComposeHash``; with them a batch through MultiSendCallOnly, in which all
    inner calls succeed or fail together.
    """
    hash_call = add_compose_hash(compose_hash)
    if not devices:
        return SafeCall(app_contract, "0x" + hash_call.hex(), CALL)
    inner = b"".join(_packed(app_contract, call) for call in (*map(add_device, devices), hash_call))
    data = MULTI_SEND + encode(["bytes"], [inner])
    return SafeCall(MULTI_SEND_CALL_ONLY, "0x" + data.hex(), DELEGATECALL)


def rejection_call(safe: str) -> SafeCall:
    """The empty call to itself by which a Safe uses up a nonce."""
    return SafeCall(safe, "0x", CALL)


def inner_calls(compose_hash: str, devices: tuple[str, ...]) -> tuple[str, ...]:
    """The ``0x``-prefixed calldatas that reach the app contract, in order; what a simulation must try."""
    calls = (*map(add_device, devices), add_compose_hash(compose_hash))
    return tuple("0x" + call.hex() for call in calls)


def _packed(to: str, data: bytes) -> bytes:
    return bytes([CALL]) + bytes.fromhex(to[2:]) + bytes(32) + len(data).to_bytes(32, "big") + data


def safe_tx_hash(chain_id: int, safe: str, call: SafeCall, nonce: int) -> str:
    """``0x``-prefixed safeTxHash with every gas and refund parameter zero."""
    domain = keccak(encode(["bytes32", "uint256", "address"], [_DOMAIN_TYPE, chain_id, safe]))
    members = [
        ("bytes32", _SAFE_TX_TYPE),
        ("address", call.to),
        ("uint256", 0),  # value
        ("bytes32", keccak(bytes.fromhex(call.data[2:]))),
        ("uint8", call.operation),
        ("uint256", 0),  # safeTxGas
        ("uint256", 0),  # baseGas
        ("uint256", 0),  # gasPrice
        ("address", ZERO_ADDRESS),  # gasToken
        ("address", ZERO_ADDRESS),  # refundReceiver
        ("uint256", nonce),
    ]
    struct = keccak(encode([kind for kind, _ in members], [value for _, value in members]))
    return "0x" + keccak(b"\x19\x01" + domain + struct).hex()
