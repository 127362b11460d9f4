import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
from eth_utils.crypto import keccak

from service.adapters.chain_logs import read_logs, united
from service.adapters.chain_shapes import call_data, returned, returned_address
from service.adapters.endpoints import RpcEndpoints
from service.adapters.heads import Heads
from service.adapters.jsonrpc import Call, Result, RpcEndpoint, RpcFault
from service.adapters.revert_reasons import revert_reason
from service.adapters.rpc_faults import lacks_state, reverted
from service.domain.chain import Allowed, AppOwnership, Block, ChainFact, ChainView, SafeState
from service.domain.errors import Refused, StateUnavailable
from service.domain.finality import Finality
from service.domain.hexes import ZERO_ADDRESS
from service.domain.hexes import address as checksummed
from service.domain.reasons import Reason

_VERSION: Final = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}(\+[0-9A-Za-z.]{1,16})?\Z", re.ASCII)


def _selector(signature: str) -> str:
    return "0x" + keccak(text=signature)[:4].hex()


_ALLOWED_HASHES: Final = _selector("allowedComposeHashes(bytes32)")
_ALLOWED_DEVICES: Final = _selector("allowedDeviceIds(bytes32)")
_ALLOW_ANY_DEVICE: Final = _selector("allowAnyDevice()")
_OWNER: Final = _selector("owner()")
_PENDING_OWNER: Final = _selector("pendingOwner()")
_SAFE_READS: Final = tuple(map(_selector, ("VERSION()", "getOwners()", "getThreshold()", "nonce()")))
_SAFE_TYPES: Final = ("string", "address[]", "uint256", "uint256")


class JsonRpcChain:
    """The ``Chain`` port over JSON-RPC.

    Reads of state are pinned to a block hash that must be canonical (EIP-1898), so an endpoint that is behind, or on
    another branch, answers with an error and never with the state of another block. An endpoint must prove to serve
    this chain before its answers count. Usable from several threads.

    Args:
        chain_id: EIP-155 chain id.
        rpc_urls: endpoints, best first; they may hold credentials and are never shown.
        finality: which block is final.
        agreement: how many endpoints must agree on what decides: heads, blocks, the allowlist.
        calls: threads that may be inside calls at once.
        timeout: seconds for one exchange with one endpoint.
        transport: replaces the network.
        monotonic: the time, for rests and pauses of endpoints.
    """

    def __init__(
        self,
        chain_id: int,
        rpc_urls: Sequence[str],
        finality: Finality,
        *,
        agreement: int = 1,
        calls: int = 4,
        timeout: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain_id = chain_id
        self._endpoints = RpcEndpoints(
            chain_id, rpc_urls, timeout, transport, agreement=agreement, calls=calls, monotonic=monotonic
        )
        self._heads = Heads(finality, self._endpoints)

    @property
    def chain_id(self) -> int:
        """EIP-155 chain id."""
        return self._chain_id

    def close(self) -> None:
        """Close the connections."""
        self._endpoints.close()

    def check_chain_id(self) -> int:
        """The id the endpoints say they serve; with several, the first that is not ``chain_id``.

        Raises:
            Unreachable: none of them answered, so nothing is known to be wrong.
        """
        return self._endpoints.served_chain_id()

    def view(self) -> ChainView:
        """Head and final block, in one HTTP request per endpoint where the head moved as far as it did the last time.

        With several endpoints they are the highest that as many as must agree have in their chain.
        """
        return self._heads.view()

    def block(self, number: int) -> Block | None:
        """The canonical block at a height, ``None`` above the head."""
        return self._heads.block(number)

    def facts(self, first: int, last: int) -> Sequence[ChainFact]:
        """Every allowlist log between two heights, both included, of any contract, in the order of the chain.

        What any endpoint has is there. An empty answer proves nothing: nodes behind one URL disagree.
        """
        if last < first:
            return ()
        answers = self._endpoints.each(lambda endpoint: read_logs(endpoint, first, last))
        if len(answers.given) < self._endpoints.agreement:
            raise self._endpoints.undecided(answers.faults)
        if len(answers.given) == 1:
            return answers.given[0][1]
        return united(facts for _, facts in answers.given)

    def allowed(self, app_contract: str, compose_hash: str, device_id: str, at: Block) -> Allowed:
        """Read the allowlist at one block, in one HTTP request.

        Raises:
            StateUnavailable: the contract is there now but was not at that block, or no endpoint has that state.
            Refused: there is no DstackApp at the address.
        """
        reads = [
            _contract_call(app_contract, data)
            for data in (_ALLOWED_HASHES + compose_hash[2:], _ALLOW_ANY_DEVICE, _ALLOWED_DEVICES + device_id[2:])
        ]

        def ask(endpoint: RpcEndpoint) -> Allowed:
            answers = _read(endpoint, at, *reads)
            if any(isinstance(answer, RpcFault) or not answer for answer in answers):
                raise _no_app(endpoint, app_contract, at)
            hash_allowed, any_device, device_allowed = (_flag(endpoint, answer) for answer in answers)
            return Allowed(compose_hash=hash_allowed, device=any_device or device_allowed)

        return self._endpoints.agreed(ask)

    def ownership(self, app_contract: str, at: Block) -> AppOwnership:
        """Owner and pending owner of an app contract; ``pending_owner`` is ``None`` when nobody is pending."""
        reads = [
            Call("eth_getCode", [app_contract]),
            _contract_call(app_contract, _OWNER),
            _contract_call(app_contract, _PENDING_OWNER),
        ]

        def ask(endpoint: RpcEndpoint) -> AppOwnership:
            code, *owners = _read(endpoint, at, *reads)
            owner, pending = (None if isinstance(raw, RpcFault) else returned_address(raw) for raw in owners)
            return AppOwnership(bool(code), owner, None if pending == ZERO_ADDRESS else pending)

        return self._endpoints.first(ask)

    def safe(self, address: str, at: Block) -> SafeState | None:
        """Version, owners, threshold and nonce, ``None`` where there is no Safe."""
        reads = [_contract_call(address, selector) for selector in _SAFE_READS]
        return self._endpoints.first(lambda endpoint: _safe_state(address, _read(endpoint, at, *reads)))

    def simulate(self, sender: str, to: str, data: str, at: Block) -> str | None:
        """Try a call without value; the revert reason in words, or ``None`` when it would succeed."""
        call = Call("eth_call", [{"from": sender, "to": to, "data": data}])

        def ask(endpoint: RpcEndpoint) -> str | None:
            (answer,) = _read(endpoint, at, call)
            return revert_reason(answer.data, answer.message) if isinstance(answer, RpcFault) else None

        return self._endpoints.first(ask)


def _contract_call(to: str, data: str) -> Call:
    return Call("eth_call", [{"to": to, "data": data}])


def _read(endpoint: RpcEndpoint, at: Block, *reads: Call) -> list[bytes | RpcFault]:
    """Pin reads to a block; each one's bytes, or the fault by which the contract reverted."""
    pin = {"blockHash": at.hash, "requireCanonical": True}
    results = endpoint.batch(*(Call(method, [*params, pin]) for method, params in reads), proven=True)
    return [_bytes_or_revert(endpoint, at, result) for result in results]


def _bytes_or_revert(endpoint: RpcEndpoint, at: Block, result: Result) -> bytes | RpcFault:
    if not isinstance(result, RpcFault):
        with endpoint.shapes():
            return call_data(result)
    if reverted(result):
        return result
    if lacks_state(result):
        raise StateUnavailable(f"{endpoint.name} has no state at block {at.number}: {result}")
    raise endpoint.unreachable(result)


def _no_app(endpoint: RpcEndpoint, app_contract: str, at: Block) -> Refused | StateUnavailable:
    """Why the allowlist could not be read: never a silent no."""
    (then,) = _read(endpoint, at, Call("eth_getCode", [app_contract]))
    (result,) = endpoint.batch(Call("eth_getCode", [app_contract, "latest"]), proven=True)
    now = _bytes_or_revert(endpoint, at, result)
    if now and not then:
        return StateUnavailable(f"the app contract {app_contract} is younger than block {at.number}")
    missing = "is no DstackApp" if now else "does not exist on this chain"
    return Refused(f"the app contract {app_contract} {missing}", reason=Reason.APP_CONTRACT_MISSING)


def _flag(endpoint: RpcEndpoint, answer: bytes | RpcFault) -> bool:
    values = None if isinstance(answer, RpcFault) else returned(["bool"], answer)
    if values is None:
        raise endpoint.nonsense("an allowlist flag that is no bool")
    return bool(values[0])


def _safe_state(where: str, answers: list[bytes | RpcFault]) -> SafeState | None:
    values: list[Any] = []
    for kind, raw in zip(_SAFE_TYPES, answers, strict=True):
        decoded = None if isinstance(raw, RpcFault) else returned([kind], raw)
        if decoded is None:
            return None
        values.append(decoded[0])
    version, owners, threshold, nonce = values
    if _VERSION.match(version) is None or not 1 <= threshold <= len(owners):
        return None
    return SafeState(checksummed(where), version, tuple(map(checksummed, owners)), threshold, nonce)
