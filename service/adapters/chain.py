import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import httpx
from eth_utils.crypto import keccak

from service.adapters.app_contract import app_ownership, app_reads
from service.adapters.chain_logs import read_logs, united
from service.adapters.chain_shapes import call_data, returned
from service.adapters.endpoints import RpcEndpoints
from service.adapters.heads import Heads
from service.adapters.jsonrpc import Call, Result, RpcEndpoint, RpcFault
from service.adapters.revert_reasons import revert_reason
from service.adapters.rpc_faults import lacks_state, reverted
from service.adapters.safe_contract import safe_reads, safe_state
from service.adapters.safe_logs import approved_hash_reads, approvers, executions_of
from service.domain.chain import Allowed, AppOwnership, Block, ChainFact, ChainView, SafeExecution, SafeState
from service.domain.errors import Refused, StateUnavailable
from service.domain.finality import Finality
from service.domain.reasons import Reason


def _selector(signature: str) -> str:
    return "0x" + keccak(text=signature)[:4].hex()


_ALLOWED_HASHES: Final = _selector("allowedComposeHashes(bytes32)")
_ALLOWED_DEVICES: Final = _selector("allowedDeviceIds(bytes32)")
_ALLOW_ANY_DEVICE: Final = _selector("allowAnyDevice()")


class JsonRpcChain:
    """The ``Chain`` port over JSON-RPC.

    Reads of state are pinned to a block hash that must be canonical (EIP-1898), so an endpoint that is behind, or on
    another branch, answers with an error and never with the state of another block. An endpoint must prove to serve
    this chain before its answers count. Usable from several threads.

    Args:
        chain_id: EIP-155 chain id.
        rpc_urls: endpoints, best first; they may hold credentials and are never shown.
        finality: which block is final.
        agreement: how many endpoints must agree on what decides: heads, blocks, allowlist, owner, Safe, simulation.
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

    def view(self, also: int | None = None, logs_above: int | None = None) -> ChainView:
        """Head and final block, in one HTTP request per endpoint where the head moved as far as it did the last time.

        With several endpoints they are the highest that as many as must agree have in their chain.

        Args:
            also: one more height to tell the block of, unless it lies above the head.
            logs_above: a height from above which to tell the allowlist logs, if the head is where it is guessed to be.
        """
        return self._heads.view(also, logs_above)

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
        return self.allowed_at(app_contract, compose_hash, device_id, (at,))[0]

    def allowed_at(
        self, app_contract: str, compose_hash: str, device_id: str, blocks: Sequence[Block]
    ) -> Sequence[Allowed]:
        """Read the allowlist at each of several blocks, in one HTTP request.

        Raises:
            StateUnavailable, Refused: see ``allowed``.
        """
        reads = [
            _contract_call(app_contract, data)
            for data in (_ALLOWED_HASHES + compose_hash[2:], _ALLOW_ANY_DEVICE, _ALLOWED_DEVICES + device_id[2:])
        ]

        def ask(endpoint: RpcEndpoint) -> tuple[Allowed, ...]:
            answers = iter(_read_at(endpoint, *((at, read) for at in blocks for read in reads)))
            return tuple(_allowed(endpoint, app_contract, at, list(islice(answers, len(reads)))) for at in blocks)

        return self._endpoints.agreed(ask)

    def ownership(self, app_contract: str, at: Block) -> AppOwnership:
        """An app contract and who owns it, in one HTTP request."""

        def ask(endpoint: RpcEndpoint) -> AppOwnership:
            answers = _read(endpoint, at, *app_reads(app_contract))
            with endpoint.shapes():
                return app_ownership(answers)

        return self._endpoints.agreed(ask)

    def code_hash(self, address: str, at: Block) -> str | None:
        """keccak-256 of the code at an address, ``None`` where there is none."""

        def ask(endpoint: RpcEndpoint) -> str | None:
            (code,) = _read(endpoint, at, Call("eth_getCode", [address]))
            if isinstance(code, RpcFault):
                raise endpoint.unreachable(code)
            return "0x" + keccak(code).hex() if code else None

        return self._endpoints.agreed(ask)

    def safe(self, address: str, at: Block) -> SafeState | None:
        """A Safe as its contract tells it, in one HTTP request; ``None`` where there is no Safe."""

        def ask(endpoint: RpcEndpoint) -> SafeState | None:
            answers = _read(endpoint, at, *safe_reads(address))
            with endpoint.shapes():
                return safe_state(address, answers)

        return self._endpoints.agreed(ask)

    def executions(self, safe: str, first: int, last: int) -> Sequence[SafeExecution]:
        """What a Safe executed between two heights, both included, in the order of the chain.

        An empty answer proves nothing: nodes behind one URL disagree.
        """
        return self._endpoints.agreed(lambda endpoint: executions_of(endpoint, safe, first, last))

    def approved_hashes(self, safe: str, safe_tx_hash: str, owners: Sequence[str], at: Block) -> frozenset[str]:
        """Those of ``owners`` who approved a safeTxHash on chain, in one HTTP request."""
        reads = approved_hash_reads(safe, safe_tx_hash, owners)
        return self._endpoints.first(lambda endpoint: approvers(endpoint, owners, _read(endpoint, at, *reads)))

    def simulate(self, sender: str, to: str, data: str, at: Block) -> str | None:
        """Try a call without value; the revert reason in words, or ``None`` when it would succeed."""
        call = Call("eth_call", [{"from": sender, "to": to, "data": data}])

        def ask(endpoint: RpcEndpoint) -> _Tried:
            (answer,) = _read(endpoint, at, call)
            if not isinstance(answer, RpcFault):
                return _Tried(reverts=False, words=None)
            return _Tried(reverts=True, words=revert_reason(answer.data, answer.message))

        return self._endpoints.agreed(ask).words


@dataclass(frozen=True, slots=True)
class _Tried:
    """A simulated call. Endpoints agree on whether it reverts; not all give the reason in the same words."""

    reverts: bool
    words: str | None = field(compare=False)


def _contract_call(to: str, data: str) -> Call:
    return Call("eth_call", [{"to": to, "data": data}])


def _read(endpoint: RpcEndpoint, at: Block, *reads: Call) -> list[bytes | RpcFault]:
    """Pin reads to a block; each one's bytes, or the fault by which the contract reverted."""
    return _read_at(endpoint, *((at, read) for read in reads))


def _read_at(endpoint: RpcEndpoint, *reads: tuple[Block, Call]) -> list[bytes | RpcFault]:
    """Pin each read to its block; its bytes, or the fault by which the contract reverted."""
    calls = [
        Call(method, [*params, {"blockHash": at.hash, "requireCanonical": True}]) for at, (method, params) in reads
    ]
    results = endpoint.batch(*calls, proven=True)
    return [_bytes_or_revert(endpoint, at, result) for (at, _), result in zip(reads, results, strict=True)]


def _bytes_or_revert(endpoint: RpcEndpoint, at: Block, result: Result) -> bytes | RpcFault:
    if not isinstance(result, RpcFault):
        with endpoint.shapes():
            return call_data(result)
    if reverted(result):
        return result
    if lacks_state(result):
        raise StateUnavailable(f"{endpoint.name} has no state at block {at.number}: {result}")
    raise endpoint.unreachable(result)


def _allowed(endpoint: RpcEndpoint, app_contract: str, at: Block, answers: Sequence[bytes | RpcFault]) -> Allowed:
    if any(isinstance(answer, RpcFault) or not answer for answer in answers):
        raise _no_app(endpoint, app_contract, at)
    hash_allowed, any_device, device_allowed = (_flag(endpoint, answer) for answer in answers)
    return Allowed(compose_hash=hash_allowed, device=any_device or device_allowed)


def _no_app(endpoint: RpcEndpoint, app_contract: str, at: Block) -> Refused | StateUnavailable:
    """Why the allowlist could not be read: never a silent no."""
    (then,) = _read(endpoint, at, Call("eth_getCode", [app_contract]))
    (result,) = endpoint.batch(Call("eth_getCode", [app_contract, "latest"]), proven=True)
    now = _bytes_or_revert(endpoint, at, result)
    if now and not then:
        return StateUnavailable(f"the app contract {app_contract} is younger than block {at.number}")
    if now:
        return Refused(f"the contract {app_contract} is no DstackApp", reason=Reason.APP_CONTRACT_FOREIGN)
    return Refused(f"the app contract {app_contract} does not exist on this chain", reason=Reason.APP_CONTRACT_MISSING)


def _flag(endpoint: RpcEndpoint, answer: bytes | RpcFault) -> bool:
    values = None if isinstance(answer, RpcFault) else returned(["bool"], answer)
    if values is None:
        raise endpoint.nonsense("an allowlist flag that is no bool")
    return bool(values[0])
