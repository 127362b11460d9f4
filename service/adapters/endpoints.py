import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import httpx

from service.adapters.bulkhead import PATIENCE_SECONDS, Bulkhead
from service.adapters.endpoint_health import Standing
from service.adapters.jsonrpc import RpcEndpoint
from service.adapters.observed import Observed
from service.adapters.polls import Answers, Poll, Tally, agree, attempt
from service.adapters.rpc_http import RpcHttp, transport_to
from service.domain.errors import CountersignError, StateUnavailable, Unreachable
from service.domain.reasons import Reason

T = TypeVar("T")


class RpcEndpoints:
    """The RPC endpoints of one chain. How many are asked depends on what the answer is for.

    ``first`` asks one after the other: for what informs. ``each`` asks all that are well: for heads and logs.
    ``agreed`` asks until ``agreement`` endpoints say the same: for what decides. One that fails rests, see ``Health``.

    Args:
        chain_id: EIP-155 id they must serve.
        rpc_urls: best first; they may hold credentials and are never shown: errors call them by their number.
        timeout: seconds for one exchange with one endpoint.
        transport: replaces the network.
        agreement: how many must agree, from one to all.
        calls: threads of the process that may be inside calls at once.
        monotonic: the time.

    Raises:
        ValueError: no endpoint, or an agreement that they cannot reach.
    """

    def __init__(
        self,
        chain_id: int,
        rpc_urls: Sequence[str],
        timeout: float,
        transport: httpx.BaseTransport | None,
        *,
        agreement: int = 1,
        calls: int = 4,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= agreement <= len(rpc_urls):
            raise ValueError(f"chain {chain_id} needs at least one RPC endpoint, and as many as must agree")
        self.agreement = agreement
        self._chain_id = chain_id
        self._who = f"RPC endpoints of chain {chain_id}"
        self._transports = [
            Observed(transport or transport_to(url), "rpc", chain_id=chain_id, endpoint=number)
            for number, url in enumerate(rpc_urls, 1)
        ]
        self._changed = threading.Condition()
        self._endpoints = [
            RpcEndpoint(
                RpcHttp(url, reached_by, timeout),
                f"RPC endpoint {number} of chain {chain_id}",
                chain_id,
                self._changed,
                monotonic,
            )
            for number, (url, reached_by) in enumerate(zip(rpc_urls, self._transports, strict=True), 1)
        ]
        self._preferred = self._endpoints[0]
        self._bulkhead = Bulkhead(self._who, Reason.RPC_UNREACHABLE, calls)
        # At most one call per caller and endpoint, and none to one that was left behind: nothing ever queues.
        self._pool = ThreadPoolExecutor(calls * len(rpc_urls), thread_name_prefix=f"rpc-{chain_id}")

    def first(self, ask: Callable[[RpcEndpoint], T]) -> T:
        """The answer of the first endpoint that has one, beginning with the one that answered last.

        Raises:
            Unreachable: the last endpoint's fault.
            StateUnavailable: likewise.
        """
        with self._bulkhead:
            return self._first(ask, self._order(1))

    def each(self, ask: Callable[[RpcEndpoint], T]) -> Answers[T]:
        """What all endpoints say that are well, in the order of the configuration.

        Once as many answered as must agree the others are waited for a moment only.

        Raises:
            Unreachable: too many calls are under way.
        """
        with self._bulkhead:
            order = self._order(self.agreement)
            if len(order) == 1:  # needs no other thread: there is nobody to go on with
                return self._alone(ask, order)
            return self._poll(ask, order, self.agreement, None)

    def these(
        self, ask: Callable[[RpcEndpoint], T], among: Sequence[RpcEndpoint], *, enough: int, within: float
    ) -> Answers[T]:
        """What some of the endpoints say within so many seconds; once ``enough`` did, the others have a moment only.

        Raises:
            Unreachable: too many calls are under way.
        """
        with self._bulkhead:
            if len(self._endpoints) == 1:
                return self._alone(ask, among)
            return self._poll(ask, among, enough, within)

    def agreed(self, ask: Callable[[RpcEndpoint], T]) -> T:
        """The answer, hashable, that as many endpoints gave as must agree; with one that is the first answer.

        Raises:
            Refused: that many refused equally.
            Unreachable, StateUnavailable: fewer agree, so nothing is known.
        """
        if self.agreement == 1:
            return self.first(ask)
        tally: Tally[T] = Tally()
        with self._bulkhead:
            faults = agree(Poll(self._pool, ask), self._order(self.agreement), self.agreement, tally)
        if tally.most < self.agreement:
            raise self.undecided(faults)
        return tally.winner()

    def undecided(self, faults: Sequence[CountersignError]) -> CountersignError:
        """The error for fewer answers, or fewer equal ones, than must agree.

        Args:
            faults: of the endpoints that gave none, in the order of time.
        """
        if self.agreement == 1 and faults:
            return faults[-1]
        if not faults and len(self._usable(self.agreement)) < self.agreement:
            return self._closed()
        why = faults[-1].detail if faults else "they contradict each other"
        detail = f"{self._who}: {self.agreement} of {len(self._endpoints)} must agree and do not: {why}"
        if any(isinstance(fault, StateUnavailable) for fault in faults):
            return StateUnavailable(detail)
        waits = [fault.retry_after for fault in faults if fault.retry_after is not None]
        return Unreachable(detail, reason=Reason.RPC_UNREACHABLE, retry_after=min(waits, default=None))

    def served_chain_id(self) -> int:
        """The id the endpoints say they serve; with several, the first that is another than it should be.

        Raises:
            Unreachable: none of them answered, so nothing is known to be wrong.
        """
        futures = [self._pool.submit(endpoint.chain_id) for endpoint in self._endpoints]
        served: list[int] = []
        faults: list[Unreachable] = []
        for future in futures:
            try:
                served.append(future.result())
            except Unreachable as fault:
                faults.append(fault)
        if not served:
            raise faults[0]
        return next((one for one in served if one != self._chain_id), self._chain_id)

    def close(self) -> None:
        """Close the connections. Calls that were left behind end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for transport in self._transports:
            transport.close()

    def _first(self, ask: Callable[[RpcEndpoint], T], order: Sequence[RpcEndpoint]) -> T:
        fault: CountersignError | None = None
        for endpoint in order:
            if not endpoint.health.enter():
                continue
            try:
                answer = attempt(endpoint, ask)
            except (Unreachable, StateUnavailable) as error:
                fault = error
                continue
            self._preferred = endpoint
            return answer
        raise fault or self._closed()

    def _poll(
        self, ask: Callable[[RpcEndpoint], T], order: Sequence[RpcEndpoint], enough: int, within: float | None
    ) -> Answers[T]:
        poll = Poll(self._pool, ask)
        for endpoint in order:
            poll.put(endpoint)
        answers = poll.gather(enough, within)
        answers.given.sort(key=lambda given: self._endpoints.index(given[0]))
        return answers

    def _alone(self, ask: Callable[[RpcEndpoint], T], order: Sequence[RpcEndpoint]) -> Answers[T]:
        try:
            return Answers([(order[0], self._first(ask, order))])
        except CountersignError as fault:
            return Answers(faults=[fault])

    def _order(self, needed: int) -> list[RpcEndpoint]:
        """Those to ask, best first. When there are too few, a call under way that began just now is waited for."""
        usable = self._usable(needed)
        if len(usable) < needed:
            left = PATIENCE_SECONDS - min(one.health.waited() for one in self._endpoints if one not in usable)
            if left > 0 and not any(endpoint.health.pause() for endpoint in self._endpoints):
                with self._changed:
                    self._changed.wait_for(lambda: len(self._usable(needed)) >= needed, left)
                usable = self._usable(needed)
        return usable

    def _usable(self, needed: int) -> list[RpcEndpoint]:
        if all(endpoint.health.ready for endpoint in self._endpoints):  # nearly always
            return [self._preferred, *(one for one in self._endpoints if one is not self._preferred)]
        found = [(one.health.standing(), one is not self._preferred, one) for one in self._endpoints]
        found.sort(key=lambda one: one[:2])
        usable = [endpoint for (standing, _), _, endpoint in found if standing <= Standing.DUE]
        resting = [endpoint for (standing, _), _, endpoint in found if standing is Standing.RESTING]
        return usable + resting[: max(0, needed - len(usable))]

    def _closed(self) -> Unreachable:
        """The error when nobody may be asked now."""
        pauses = [pause for endpoint in self._endpoints if (pause := endpoint.health.pause())]
        if pauses:
            detail = f"{self._who}: asked to be left alone for {min(pauses):.0f} s more"
        else:
            detail = f"{self._who}: no answer yet to the call that finds out whether they are back"
        return Unreachable(detail, reason=Reason.RPC_UNREACHABLE, retry_after=min(pauses, default=1.0))
