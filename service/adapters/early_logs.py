"""Logs asked for together with the head, on the guess that it moves as far as it did the last time."""

from collections.abc import Iterable, Sequence

from service.adapters.chain_logs import facts_between, logs_between, united
from service.adapters.jsonrpc import Call, Result, RpcEndpoint, RpcFault
from service.adapters.rpc_faults import range_named, too_wide
from service.domain.chain import Block, ChainFact
from service.domain.errors import Nonsense


class EarlyLogs:
    """The logs of one view. A wrong guess is no fault: the logs are asked for again then, by themselves.

    Args:
        above: the height above which they are wanted, ``None`` where they are not.
        guess: the height of the head, ``None`` where there is no guess.
    """

    def __init__(self, above: int | None, guess: int | None) -> None:
        self._first = 0 if above is None else above + 1
        self._last = guess if above is not None and guess is not None and guess > above else None
        self._found: dict[RpcEndpoint, Sequence[ChainFact]] = {}

    def calls(self, endpoint: RpcEndpoint) -> tuple[Call, ...]:
        """What to ask an endpoint besides: one call, or none where it does not take as many blocks at once."""
        if self._last is None:
            return ()
        size = self._last - self._first + 1
        return (logs_between(self._first, self._last),) if endpoint.ranges.size(size) == size else ()

    def take(self, endpoint: RpcEndpoint, results: Sequence[Result]) -> None:
        """What an endpoint answered to those calls. Of no use is whatever is no list of such logs."""
        if not results or self._last is None:
            return
        (result,), size = results, self._last - self._first + 1
        if not isinstance(result, RpcFault):
            try:
                self._found[endpoint] = facts_between(endpoint, result, self._first, self._last)
            except Nonsense:
                return  # its health learns of it when it is asked again
            endpoint.ranges.took(size)
        elif size > 1 and too_wide(result):
            endpoint.ranges.refused(size, range_named(result, size))

    def up_to(self, head: Block, endpoints: Iterable[RpcEndpoint]) -> Sequence[ChainFact] | None:
        """The logs up to the head that the endpoints agreed on; ``None`` where it was not guessed, or one gave none."""
        if head.number != self._last:
            return None
        found = [self._found.get(endpoint) for endpoint in endpoints]
        given = [facts for facts in found if facts is not None]
        if len(given) < len(found):
            return None
        return given[0] if len(given) == 1 else united(given)
