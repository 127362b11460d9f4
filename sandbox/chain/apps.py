"""DstackApp contracts of both ownership generations, and how a Safe or a timelock comes to own one."""

from collections.abc import Sequence
from typing import Literal

from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount

from sandbox.chain.accounts import DEPLOYER, OWNERS
from sandbox.chain.artifacts import artifact
from sandbox.chain.local import LocalChain, encode_call
from sandbox.chain.safes import ZERO_ADDRESS, approve_and_execute

Generation = Literal["one-step", "two-step"]
NONE = bytes(32)
_INITIALIZE_ONE_STEP = "initialize(address,bool,bool,bytes32,bytes32)"
_INITIALIZE_TWO_STEP = "initialize(address,bool,bool,bool,bytes32,bytes32)"


def deploy_dstack_app(
    chain: LocalChain,
    generation: Generation = "two-step",
    owner: str = DEPLOYER.address,
    *,
    allow_any_device: bool = False,
    device: bytes = NONE,
    compose_hash: bytes = NONE,
) -> str:
    """Deploy an app contract (implementation behind an ERC1967Proxy).

    Args:
        chain: where.
        generation: `one-step` (OwnableUpgradeable) or `two-step` (Ownable2StepUpgradeable; newer).
        owner: its first owner.
        allow_any_device: whether every device may run it.
        device: first allowed device id, 32 bytes; zero bytes for none.
        compose_hash: first allowed compose hash, 32 bytes; zero bytes for none.

    Returns:
        The proxy's checksummed address, which is the app id.
    """
    if generation == "one-step":
        implementation = artifact("DstackAppV1").bytecode
        start = encode_call(_INITIALIZE_ONE_STEP, owner, False, allow_any_device, device, compose_hash)
    else:
        implementation = artifact("DstackApp").bytecode
        start = encode_call(_INITIALIZE_TWO_STEP, owner, False, False, allow_any_device, device, compose_hash)
    (address,) = chain.deploy_deterministic(implementation)
    return chain.deploy(artifact("ERC1967Proxy").bytecode + encode(["address", "bytes"], [address, start]))


def transfer_to_safe(chain: LocalChain, app: str, safe: str, signers: Sequence[LocalAccount] = OWNERS) -> None:
    """Make the Safe the app's owner; a two-step app's Safe also executes acceptOwnership.

    The present owner must be an account the node has unlocked.
    """
    owner = chain.call(app, "owner()", returns="address")
    chain.send(owner, app, encode_call("transferOwnership(address)", safe))
    if chain.call(app, "owner()", returns="address") != safe:
        approve_and_execute(chain, safe, app, encode_call("acceptOwnership()"), signers=signers)


def deploy_timelock(
    chain: LocalChain, proposers: Sequence[str], executors: Sequence[str], *, minimum_delay: int
) -> str:
    """Deploy OpenZeppelin's TimelockController without an admin; `minimum_delay` is in seconds."""
    types = ["uint256", "address[]", "address[]", "address"]
    arguments = encode(types, [minimum_delay, proposers, executors, ZERO_ADDRESS])
    return chain.deploy(artifact("TimelockController").bytecode + arguments)
