"""The approval a change request needs, and the evidence for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.domain.chain import Allowed, Block, ChainFact, ChainView, FactKind
from service.domain.errors import Unreachable
from service.domain.outcomes import Facts
from service.domain.reasons import Reason
from service.domain.snapshots import ChangeRequest
from service.ports import Chain


@dataclass(frozen=True, slots=True)
class NeededApproval:
    """What must be allowed: one hash and one device on one app contract."""

    chain_id: int
    app_contract: str
    compose_hash: str
    device_id: str

    def read(self, chain: Chain, at: Block) -> Allowed:
        """Read both halves of *allowed* at one block."""
        return chain.allowed(self.app_contract, self.compose_hash, self.device_id, at)

    def read_at(self, chain: Chain, *blocks: Block) -> Sequence[Allowed]:
        """Read both halves of *allowed* at each of several blocks."""
        return chain.allowed_at(self.app_contract, self.compose_hash, self.device_id, blocks)


def needed_approval(request: ChangeRequest) -> NeededApproval:
    """What ``request`` needs, once it is prepared.

    Raises:
        ValueError: a column is missing, which the database forbids from ``prepared`` on.
    """
    parts = (request.chain_id, request.app_contract, request.compose_hash, request.device_id)
    chain_id, app_contract, compose_hash, device_id = parts
    if chain_id is None or app_contract is None or compose_hash is None or device_id is None:
        raise ValueError(f"change request {request.id} in state {request.state} lacks a part of its approval")
    return NeededApproval(chain_id, app_contract, compose_hash, device_id)


def chain_of(chains: Mapping[int, Chain], chain_id: int) -> Chain:
    """The chain of a request under way.

    Raises:
        Unreachable: it was taken out of the configuration; the request waits for its return.
    """
    chain = chains.get(chain_id)
    if chain is None:
        raise Unreachable(f"chain {chain_id} is not configured", reason=Reason.CHAIN_NOT_CONFIGURED)
    return chain


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where an approval was seen.

    Attributes:
        block: where the hash was added, or the state was read.
        transaction_hash: transaction that added the hash, ``None`` when only the state was seen.
    """

    block: Block
    transaction_hash: str | None

    def facts(self) -> Facts:
        """The columns that keep it."""
        return Facts(
            transaction_hash=self.transaction_hash,
            evidence_block_hash=self.block.hash,
            evidence_block_number=self.block.number,
        )


NO_EVIDENCE = Facts(transaction_hash=None, evidence_block_hash=None, evidence_block_number=None)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the chain says now: ``evidence`` is there exactly if both halves are allowed."""

    allowed: Allowed
    evidence: Evidence | None


def sight(request: ChangeRequest, needed: NeededApproval, chain: Chain, view: ChainView) -> Sighting:
    """Look for the approval in the known facts and in the newest state.

    A fact may be newer than ``view``, because nodes behind one URL disagree; then the state is read at its block.
    """
    known = canonical_evidence(request, needed, chain)
    at = known.block if known is not None and known.block.number > view.head.number else view.head
    allowed = needed.read(chain, at)
    return Sighting(allowed, (known or Evidence(at, None)) if allowed.both else None)


def canonical_evidence(request: ChangeRequest, needed: NeededApproval, chain: Chain) -> Evidence | None:
    """The newest registration of the hash among the known facts whose block is canonical, ``None`` without one."""
    added = sorted((fact for fact in request.facts if _adds(fact, needed)), key=_age, reverse=True)
    fact = next((fact for fact in added if is_canonical(chain, fact.block)), None)
    return None if fact is None else Evidence(fact.block, fact.transaction_hash)


def added_above(request: ChangeRequest, needed: NeededApproval, chain: Chain, final: Block) -> bool:
    """Whether something of the approval was added above a final block, as far as is known.

    A block that this node does not know has not vanished.
    """
    added = (fact.block for fact in request.facts if fact.block.number > final.number and _gives(fact, needed))
    return any(chain.block(block.number) in (None, block) for block in added)


def is_canonical(chain: Chain, block: Block) -> bool:
    """Whether the canonical block at that height is this one; ``False`` also above the head."""
    return chain.block(block.number) == block


def _age(fact: ChainFact) -> tuple[int, int]:
    return fact.block.number, fact.log_index


def _adds(fact: ChainFact, needed: NeededApproval) -> bool:
    what = (FactKind.HASH_ADDED, needed.app_contract, needed.compose_hash)
    return (fact.kind, fact.app_contract, fact.value) == what


def _gives(fact: ChainFact, needed: NeededApproval) -> bool:
    """Whether a fact gives the hash, the device or any device."""
    if fact.app_contract != needed.app_contract:
        return False
    match fact.kind:
        case FactKind.HASH_ADDED:
            return fact.value == needed.compose_hash
        case FactKind.DEVICE_ADDED:
            return fact.value == needed.device_id
        case FactKind.ANY_DEVICE_SET:
            return int(fact.value, 16) != 0
        case _:
            return False
