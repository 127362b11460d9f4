"""Logs of a range of blocks: from one endpoint in pieces, or those of allowlists from several together."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from service.adapters.chain_shapes import facts_of
from service.adapters.jsonrpc import Call, RpcEndpoint, RpcFault
from service.adapters.rpc_faults import lacks_state, range_named, too_wide
from service.domain.chain import TOPICS, ChainFact
from service.domain.errors import StateUnavailable

_WANTED: Final[Mapping[str, object]] = {"topics": [sorted(TOPICS)]}


def read_logs(endpoint: RpcEndpoint, first: int, last: int) -> Sequence[ChainFact]:
    """What one endpoint has between two heights, both included, in the order of the chain.

    Raises:
        StateUnavailable: it does not know the blocks.
        Unreachable: it does not give even one block, or fails otherwise.
    """
    found: list[ChainFact] = []
    for piece in in_pieces(endpoint, first, last, _WANTED):
        found.extend(facts_between(endpoint, piece.logs, piece.first, piece.last))
    return found


def logs_between(first: int, last: int) -> Call:
    """The call for those logs, as one piece."""
    return _logs_call(first, last, _WANTED)


def facts_between(endpoint: RpcEndpoint, logs: object, first: int, last: int) -> Sequence[ChainFact]:
    """What an endpoint answered to it.

    Raises:
        Nonsense: something else.
    """
    with endpoint.shapes():
        return facts_of(logs, first, last)


def _logs_call(first: int, last: int, wanted: Mapping[str, object]) -> Call:
    return Call("eth_getLogs", [{"fromBlock": hex(first), "toBlock": hex(last), **wanted}])


@dataclass(frozen=True, slots=True)
class Piece:
    """What an endpoint answered for the blocks from ``first`` to ``last``, not looked at yet."""

    first: int
    last: int
    logs: object


def in_pieces(endpoint: RpcEndpoint, first: int, last: int, wanted: Mapping[str, object]) -> Iterator[Piece]:
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
        (result,) = endpoint.batch(_logs_call(start, end, wanted))
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
