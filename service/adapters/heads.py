"""Head and final block of a chain, and its newest logs, in one HTTP request per endpoint on most ticks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.adapters.chain_shapes import block_of
from service.adapters.early_logs import EarlyLogs
from service.adapters.endpoints import RpcEndpoints
from service.adapters.jsonrpc import Call, Result, RpcEndpoint, RpcFault
from service.adapters.polls import Answers
from service.domain.chain import Block, ChainView
from service.domain.errors import CountersignError, Unreachable
from service.domain.finality import Confirmations, Finality
from service.domain.reasons import Reason

_MOST_SECONDS = 1.0
"""For questions that only some are asked, or twice as long as the one before took."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """What one endpoint says.

    Attributes:
        top: its head, or its final block, whichever is asked about.
        known: blocks of its chain, by height; more are added as they are asked for.
    """

    endpoint: RpcEndpoint
    top: Block
    known: dict[int, Block]


class _Doubts:
    """What one view has to remember of its questions.

    Attributes:
        answered: the endpoints that told their heads.
        faults: of those that did not answer.
        seconds: how long the slowest question took.
    """

    def __init__(self) -> None:
        self.answered: list[RpcEndpoint] = []
        self.faults: list[CountersignError] = []
        self.seconds = _MOST_SECONDS

    def note(self, answers: Answers[Any]) -> None:
        self.faults += answers.faults
        self.seconds = max(self.seconds, 2 * answers.seconds)


class Heads:
    """Reads blocks; remembers the last view to guess which block becomes final next.

    Usable from several threads: a guess that another thread made stale costs one more request, nothing else.
    """

    def __init__(self, finality: Finality, endpoints: RpcEndpoints) -> None:
        self._finality = finality
        self._endpoints = endpoints
        self._seen: ChainView | None = None
        self._stride = 1

    def view(self, also: int | None = None, logs_above: int | None = None) -> ChainView:
        """Head and final block: the highest that as many endpoints as must agree have in their chain.

        So neither one that lags nor one that boasts decides.

        Args:
            also: one more height to tell the block of, unless it lies above the head, and as many agree.
            logs_above: a height from above which to tell the allowlist logs, if the head moved as far as the last time.
        """
        seen = self._seen
        doubts = _Doubts()
        early = EarlyLogs(logs_above, None if seen is None else seen.head.number + self._stride)
        if isinstance(self._finality, Confirmations):
            view = self._view_by_depth(self._finality.blocks, also, seen, doubts, early)
        else:
            view = self._view_by_tag(str(self._finality), also, doubts, early)
        view = replace(view, facts=early.up_to(view.head, doubts.answered))
        if seen is not None and view.head.number > seen.head.number:
            self._stride = view.head.number - seen.head.number
        self._seen = view
        return view

    def block(self, number: int) -> Block | None:
        """The canonical block at a height, ``None`` above the head."""

        def ask(endpoint: RpcEndpoint) -> Block | None:
            (result,) = endpoint.batch(_by(hex(number)), proven=True)
            return _block_at(endpoint, result, number)

        return self._endpoints.agreed(ask)

    def _view_by_tag(self, tag: str, also: int | None, doubts: _Doubts, early: EarlyLogs) -> ChainView:
        lower = () if also is None else (also,)

        def ask(endpoint: RpcEndpoint) -> ChainView:
            blocks = (_by("latest"), _by(tag), *(_by(hex(number)) for number in lower))
            head, final, *told = _with_logs(endpoint, blocks, early)
            view = ChainView(_some_block(endpoint, head), _some_block(endpoint, final))
            if view.final.number > view.head.number:
                raise endpoint.nonsense("a final block above its head")
            return replace(view, also=_told_below(endpoint, view.head, lower, told).get(also or 0))

        answers = self._endpoints.each(ask)
        doubts.answered = [endpoint for endpoint, _ in answers.given]
        views = [view for _, view in answers.given]
        if len(views) >= self._endpoints.agreement and views.count(views[0]) == len(views):
            return views[0]
        doubts.note(answers)
        known = {
            endpoint: {b.number: b for b in (view.head, view.final, view.also) if b} for endpoint, view in answers.given
        }
        sights = [_Sight(endpoint, view.head, known[endpoint]) for endpoint, view in answers.given]
        head = self._top(sights, doubts)
        final = self._top([_Sight(endpoint, view.final, known[endpoint]) for endpoint, view in answers.given], doubts)
        if final.number > head.number:  # where the endpoints that have it do not agree on what came after
            raise self._endpoints.undecided(doubts.faults)
        return ChainView(head, final, self._known(also, head, sights))

    def _view_by_depth(
        self, depth: int, also: int | None, seen: ChainView | None, doubts: _Doubts, early: EarlyLogs
    ) -> ChainView:
        """Ask for the head together with the block that is final if the head moved as far as the last time."""
        guess = None if seen is None else max(0, seen.head.number + self._stride - depth)
        lower = [number for number in (guess, also) if number is not None]

        def ask(endpoint: RpcEndpoint) -> _Sight:
            head, *told = _with_logs(endpoint, (_by("latest"), *(_by(hex(number)) for number in lower)), early)
            top = _some_block(endpoint, head)
            return _Sight(endpoint, top, {top.number: top} | _told_below(endpoint, top, lower, told))

        answers = self._endpoints.each(ask)
        doubts.answered = [endpoint for endpoint, _ in answers.given]
        doubts.note(answers)
        sights = [sight for _, sight in answers.given]
        for head in self._tops(sights, doubts):
            number = max(0, head.number - depth)
            if number == head.number:
                return ChainView(head, head, self._known(also, head, sights))
            if seen is not None and head == seen.head:  # a block's hash fixes every block below it
                return ChainView(head, seen.final, self._known(also, head, sights))
            final = self._below(head, number, sights, doubts)
            if final is not None:
                return ChainView(head, final, self._known(also, head, sights))
        raise self._endpoints.undecided(doubts.faults)

    def _known(self, number: int | None, head: Block, sights: Sequence[_Sight]) -> Block | None:
        """The block at a height, if as many as must agree told it already and have the head in their chains."""
        if number is None:
            return None
        having = [sight for sight in sights if sight.known.get(head.number) == head]
        block, votes = _most_frequent(number, having)
        return block if votes >= self._endpoints.agreement else None

    def _below(self, head: Block, height: int, sights: Sequence[_Sight], doubts: _Doubts) -> Block | None:
        """The block at a height of the endpoints whose chains hold the head.

        As many as must agree on the head were asked for it. Where one of them has no good answer for the lower block,
        the others that are high enough are asked for both.
        """
        final = self._at(height, [sight for sight in sights if sight.known.get(head.number) == head], doubts)
        if final is not None:
            return final
        unasked = [s for s in sights if s.top.number > head.number and head.number not in s.known]
        self._ask(head.number, unasked, len(unasked), doubts)
        return self._at(height, [sight for sight in sights if sight.known.get(head.number) == head], doubts)

    def _top(self, sights: Sequence[_Sight], doubts: _Doubts) -> Block:
        """The highest block that as many as must agree have, in their chains up to their tops.

        Raises:
            Unreachable, StateUnavailable: there is none.
        """
        for block in self._tops(sights, doubts):
            return block
        raise self._endpoints.undecided(doubts.faults)

    def _tops(self, sights: Sequence[_Sight], doubts: _Doubts) -> Iterator[Block]:
        """Blocks at the heights of tops that as many as must agree have, from the highest down."""
        heights = sorted((sight.top.number for sight in sights), reverse=True)
        for height in dict.fromkeys(heights[self._endpoints.agreement - 1 :]):
            block = self._at(height, [sight for sight in sights if sight.top.number >= height], doubts)
            if block is not None:
                yield block

    def _at(self, height: int, sights: Sequence[_Sight], doubts: _Doubts) -> Block | None:
        """The block that as many of them as must agree have at a height; those who did not say yet are asked."""
        block, votes = _most_frequent(height, sights)
        enough = self._endpoints.agreement
        silent = [sight for sight in sights if height not in sight.known]
        while votes < enough and self._ask(height, silent, enough - votes, doubts):
            block, votes = _most_frequent(height, sights)
            silent = [sight for sight in silent if height not in sight.known]
        return block if votes >= enough else None

    def _ask(self, height: int, sights: Sequence[_Sight], enough: int, doubts: _Doubts) -> int:
        """Ask for the block at a height, until enough answered; how many did."""
        if not sights:
            return 0
        asked = {sight.endpoint: sight for sight in sights}
        answers = self._endpoints.these(
            lambda endpoint: _block_below(endpoint, height), list(asked), enough=enough, within=doubts.seconds
        )
        doubts.note(answers)
        for endpoint, found in answers.given:
            asked[endpoint].known[height] = found
        return len(answers.given)


def _most_frequent(height: int, sights: Sequence[_Sight]) -> tuple[Block | None, int]:
    said = [sight.known[height] for sight in sights if height in sight.known]
    best = max(said, key=said.count, default=None)
    return best, 0 if best is None else said.count(best)


def _by(which: str) -> Call:
    return Call("eth_getBlockByNumber", [which, False])


def _with_logs(endpoint: RpcEndpoint, blocks: tuple[Call, ...], early: EarlyLogs) -> list[Result]:
    """Ask for blocks, and in the same request for the logs; the answers about the blocks."""
    logs = early.calls(endpoint)
    results = endpoint.batch(*blocks, *logs)
    early.take(endpoint, results[len(blocks) :])
    if logs and all(isinstance(result, RpcFault) for result in results):  # the logs may have been too much for it
        return endpoint.batch(*blocks)
    return results[: len(blocks)]


def _told_below(endpoint: RpcEndpoint, top: Block, numbers: Sequence[int], told: Sequence[Result]) -> dict[int, Block]:
    """The blocks below its top that an endpoint told when it was asked for these heights."""
    below = {
        number: _block_at(endpoint, result, number)
        for number, result in zip(numbers, told, strict=True)
        if number < top.number and not isinstance(result, RpcFault)
    }
    return {number: block for number, block in below.items() if block is not None}


def _block_below(endpoint: RpcEndpoint, number: int) -> Block:
    (result,) = endpoint.batch(_by(hex(number)))
    block = _block_at(endpoint, result, number)
    if block is None:
        raise endpoint.nonsense("no block below its head")
    return block


def _block_at(endpoint: RpcEndpoint, result: Result, number: int) -> Block | None:
    if result is None:
        return None
    block = _some_block(endpoint, result)
    if block.number != number:
        raise endpoint.nonsense("another block than the one asked for")
    return block


def _some_block(endpoint: RpcEndpoint, result: Result) -> Block:
    if isinstance(result, RpcFault):
        raise endpoint.unreachable(result)
    if result is None:
        raise Unreachable(f"{endpoint.name} knows no such block yet", reason=Reason.RPC_UNREACHABLE)
    with endpoint.shapes():
        return block_of(result)
