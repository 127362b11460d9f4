"""Logs of a range of blocks: from one endpoint in pieces, or those of allowlists from several together."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.adapters.chain_shapes import facts_of
from service.adapters.jsonrpc import Call, RpcEndpoint, RpcFault
from service.adapters.rpc_faults import lacks_state, range_named, too_wide
from service.domain.chain import TOPICS, ChainFact
from service.domain.errors import StateUnavailable

_TOPICS: Final = sorted(TOPICS)


def read_logs(endpoint: RpcEndpoint, first: int, last: int) -> Sequence[ChainFact]:
    """What one endpoint has between two heights, both included, in the order of the chain.

    Raises:
        StateUnavailable: it does not know the blocks.
        Unreachable: it does not give even one block, or fails otherwise.
    """
    found: list[ChainFact] = []
    for piece in in_pieces(endpoint, first, last, {"topics": [_TOPICS]}):
        with endpoint.shapes():
            found.extend(facts_of(piece.logs, piece.first, piece.last))
    return found


@dataclass(frozen=True, slots=True)
class Piece:
    """What an endpoint answered for the blocks from ``first`` to ``last``, not looked at yet."""

    first: int
    last: int
    logs: object


def in_pieces(endpoint: RpcEndpoint, first: int, last: int, wanted: dict[str, object]) -> Iterator[Piece]:
    """Ask for the logs between two heights, both included, in ranges that the endpoint takes.

    Args:
        endpoint: who is asked.
        first: lowest block.
        last: highest block.
        wanted: ``address`` and ``topics`` of ``eth_getLogs``.

    Raises:
        StateUnavailable: it does not know the blocks.
        Unreachable: it does not give even one block, or fails otherwise.
    """
    start = first
    while start <= last:
        size = endpoint.ranges.size(last - start + 1)
        end = start + size - 1
        query = {"fromBlock": hex(start), "toBlock": hex(end), **wanted}
        (result,) = endpoint.batch(Call("eth_getLogs", [query]))
        if not isinstance(result, RpcFault):
            yield Piece(start, end, result)
            endpoint.ranges.took(size)
            start = end + 1
        elif size > 1 and too_wide(result):
            endpoint.ranges.refused(size, range_named(result, size))
        elif lacks_state(result):  # it is behind the others, which is no fault
            raise StateUnavailable(f"{endpoint.name} has no logs up to block {end}: {result}")
        else:
            raise endpoint.unreachable(result)


def united(answers: Iterable[Sequence[ChainFact]]) -> Sequence[ChainFact]:
    """Whatever any endpoint has, in the order of the chain; of what contradicts each other the more frequent first."""
    counts = Counter(fact for facts in answers for fact in facts)
    return sorted(counts, key=lambda fact: (fact.block.number, fact.log_index, -counts[fact]))
