"""Real Safe contracts at their canonical addresses: deploy a Safe, sign as its owners do, execute."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_typing import Hash32
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from sandbox.chain.accounts import DEPLOYER, OWNER_ADDRESSES, OWNERS
from sandbox.chain.artifacts import safe_artifact
from sandbox.chain.local import (
    DETERMINISTIC_DEPLOYER,
    SINGLETON_FACTORY,
    LocalChain,
    create2_address,
    encode_call,
)

ZERO_ADDRESS = "0x0000000000000000000000000000000000000000"
SafeVersion = Literal["1.3.0", "1.4.1", "1.5.0"]
_EXEC = "execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)"
_SETUP = "setup(address[],uint256,address,bytes,address,address,uint256,address)"
_DOMAIN_TYPE = keccak(text="EIP712Domain(uint256 chainId,address verifyingContract)")
_SAFE_TX_TYPE = keccak(
    text="SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,"
    "uint256 gasPrice,address gasToken,address refundReceiver,uint256 nonce)"
)


@dataclass(frozen=True)
class Deployment:
    """Canonical addresses of one Safe version (safe-deployments); the singleton is the L2 variant."""

    singleton: str
    factory: str
    fallback_handler: str
    multi_send_call_only: str
    names: tuple[str, str, str]
    deployer: str = SINGLETON_FACTORY


_MULTI_SEND_1_4_1 = "0x9641d764fc13c8B624c04430C7356C1C7C8102e2"
DEPLOYMENTS: Mapping[SafeVersion, Deployment] = {
    "1.3.0": Deployment(
        "0x3E5c63644E683549055b9Be8653de26E0B4CD36E",
        "0xa6B71E26C5e0845f74c812102Ca7114b6a896AB2",
        "0xf48f2B2d2a534e402487b3ee7C18c33Aec0Fe5e4",
        _MULTI_SEND_1_4_1,  # safe-eth-py carries none of 1.3.0; this one works with every version
        ("GnosisSafe_V1_3_0", "ProxyFactory_V1_3_0", "CompatibilityFallbackHandler_V1_3_0"),
        DETERMINISTIC_DEPLOYER,
    ),
    "1.4.1": Deployment(
        "0x29fcB43b46531BcA003ddC8FCB67FFE91900C762",
        "0x4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67",
        "0xfd0732Dc9E303f09fCEf3a7388Ad10A83459Ec99",
        _MULTI_SEND_1_4_1,
        ("Safe_V1_4_1", "ProxyFactory_V1_4_1", "CompatibilityFallbackHandler_V1_4_1"),
    ),
    "1.5.0": Deployment(
        "0xEdd160fEBBD92E350D4D398fb636302fccd67C7e",
        "0x14F2982D601c9458F93bd70B218933A6f8165e7b",
        "0x3EfCBb83A4A7AfcB4F68D501E2c2203a38be77f4",
        "0xA83c336B20401Af773B6219BA5027174338D1836",
        ("Safe_V1_5_0", "ProxyFactory_V1_5_0", "CompatibilityFallbackHandler_V1_5_0"),
    ),
}


@dataclass(frozen=True)
class SafeTx:
    """The ten fields owners sign (EIP-712 `SafeTx`)."""

    to: str
    data: bytes
    nonce: int
    value: int = 0
    operation: int = 0
    safe_tx_gas: int = 0
    base_gas: int = 0
    gas_price: int = 0
    gas_token: str = ZERO_ADDRESS
    refund_receiver: str = ZERO_ADDRESS


def deploy_safe_contracts(chain: LocalChain, *versions: SafeVersion) -> None:
    """Deploy singleton, proxy factory, fallback handler and MultiSendCallOnly; default: every version."""
    wanted = [DEPLOYMENTS[version] for version in versions or tuple(DEPLOYMENTS)]
    for deployer in dict.fromkeys(deployment.deployer for deployment in wanted):
        names = [name for deployment in wanted if deployment.deployer == deployer for name in deployment.names]
        chain.deploy_deterministic(*(safe_artifact(name).bytecode for name in names), factory=deployer)
    for version, name in (("1.4.1", "MultiSendCallOnly_V1_4_1"), ("1.5.0", "MultiSendCallOnly_V1_5_0")):
        if version == "1.4.1" or version in versions or not versions:
            chain.deploy_deterministic(safe_artifact(name).bytecode)


def deploy_safe(
    chain: LocalChain,
    version: SafeVersion = "1.4.1",
    owners: Sequence[str] = OWNER_ADDRESSES,
    threshold: int = 2,
    salt: int = 0,
) -> str:
    """Create a SafeL2 proxy through the canonical factory and return its checksummed address.

    The address follows from the arguments (CREATE2); a Safe that is there already is returned as it is.
    """
    deployment = DEPLOYMENTS[version]
    (address,) = safe_addresses(chain, version, owners, threshold, [salt])
    if not chain.has_code(address):
        create = "createProxyWithNonce(address,bytes,uint256)"
        data = encode_call(create, deployment.singleton, _initializer(deployment, owners, threshold), salt)
        chain.send(DEPLOYER.address, deployment.factory, data)
    return address


def safe_addresses(
    chain: LocalChain,
    version: SafeVersion = "1.4.1",
    owners: Sequence[str] = OWNER_ADDRESSES,
    threshold: int = 2,
    salts: Iterable[int] = (0,),
) -> list[str]:
    """Checksummed addresses that `deploy_safe` gives for these salts, whether there is a Safe yet or not."""
    deployment = DEPLOYMENTS[version]
    deploy_safe_contracts(chain, version)
    proxy_code = chain.call(deployment.factory, "proxyCreationCode()", returns="bytes")
    creation_code = proxy_code + encode(["address"], [deployment.singleton])
    initializer_hash = keccak(_initializer(deployment, owners, threshold))
    return [
        create2_address(deployment.factory, keccak(initializer_hash + salt.to_bytes(32, "big")), creation_code)
        for salt in salts
    ]


def _initializer(deployment: Deployment, owners: Sequence[str], threshold: int) -> bytes:
    no_one = ZERO_ADDRESS
    return encode_call(_SETUP, owners, threshold, no_one, b"", deployment.fallback_handler, no_one, 0, no_one)


def next_nonce(chain: LocalChain, safe: str) -> int:
    """Return the nonce the Safe executes next (queued proposals are not counted)."""
    return int(chain.call(safe, "nonce()", returns="uint256"))


def safe_tx_hash(chain_id: int, safe: str, tx: SafeTx) -> bytes:
    """Return the 32-byte hash owners sign (Safe 1.3.0 and later)."""
    return keccak(safe_tx_preimage(chain_id, safe, tx))


def safe_tx_preimage(chain_id: int, safe: str, tx: SafeTx) -> bytes:
    """Return the bytes that hash to the safeTxHash; Safes before 1.5.0 hand them to owners that are contracts."""
    domain = keccak(encode(["bytes32", "uint256", "address"], [_DOMAIN_TYPE, chain_id, safe]))
    types = [
        "bytes32",
        "address",
        "uint256",
        "bytes32",
        "uint8",
        *["uint256"] * 3,
        "address",
        "address",
        "uint256",
    ]
    gas = (tx.safe_tx_gas, tx.base_gas, tx.gas_price, tx.gas_token, tx.refund_receiver)
    fields = (tx.to, tx.value, keccak(tx.data), tx.operation, *gas, tx.nonce)
    return b"\x19\x01" + domain + keccak(encode(types, [_SAFE_TX_TYPE, *fields]))


def owner_sign(tx_hash: bytes, owner: LocalAccount) -> bytes:
    """Return the owner's 65-byte EIP-712 signature (r, s, v; v 27 or 28) of a safeTxHash."""
    return bytes(owner.unsafe_sign_hash(Hash32(tx_hash)).signature)


def execute(
    chain: LocalChain,
    safe: str,
    tx: SafeTx,
    signatures: Mapping[str, bytes],
    *,
    sender: str = DEPLOYER.address,
    gas: int | None = None,
) -> dict[str, Any]:
    """Run execTransaction with the signatures given, put in the order of their owners as the Safe demands.

    Args:
        chain: where.
        safe: the Safe.
        tx: what.
        signatures: owner address -> signature, none longer than 65 bytes.
        sender: who pays.
        gas: None estimates, and so raises `RpcError` (GS013, GS026..) for what would revert; a number mines
            it anyway.

    Returns:
        The raw receipt.
    """
    return chain.send(sender, safe, execution_data(tx, signatures), gas=gas)


def execution_data(tx: SafeTx, signatures: Mapping[str, bytes]) -> bytes:
    """Return the calldata of execTransaction; the signatures as for `execute`."""
    ordered = b"".join(signatures[owner] for owner in sorted(signatures, key=lambda address: int(address, 16)))
    gas_fields = (tx.safe_tx_gas, tx.base_gas, tx.gas_price, tx.gas_token, tx.refund_receiver)
    return encode_call(_EXEC, tx.to, tx.value, tx.data, tx.operation, *gas_fields, ordered)


def approve_and_execute(
    chain: LocalChain,
    safe: str,
    to: str,
    data: bytes,
    *,
    operation: int = 0,
    signers: Sequence[LocalAccount] = OWNERS,
) -> dict[str, Any]:
    """Execute a call at the Safe's next nonce, signed by its first owners among `signers`; raw receipt."""
    tx = SafeTx(to=to, data=data, nonce=next_nonce(chain, safe), operation=operation)
    tx_hash = safe_tx_hash(chain.chain_id, safe, tx)
    threshold = chain.call(safe, "getThreshold()", returns="uint256")
    owners = chain.call(safe, "getOwners()", returns="address[]")
    able = [signer for signer in signers if signer.address in owners]
    signatures = {str(signer.address): owner_sign(tx_hash, signer) for signer in able[:threshold]}
    return execute(chain, safe, tx, signatures)


def multi_send(calls: Sequence[tuple[str, bytes]]) -> bytes:
    """Return calldata for MultiSendCallOnly, to be called with operation 1: plain calls of zero value."""
    packed = b"".join(
        b"\x00" + bytes.fromhex(to_checksum_address(to)[2:]) + bytes(32) + len(data).to_bytes(32, "big") + data
        for to, data in calls
    )
    return encode_call("multiSend(bytes)", packed)
