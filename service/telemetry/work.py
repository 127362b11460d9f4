"""Steps and calls, counted, timed and traced."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Final

from service.telemetry import metrics, traces
from service.telemetry.context import working_for

_WELL: Final = frozenset({"2xx", "3xx", "4xx"})
_OK: Final = range(100, 600)
_TOO_MANY: Final = 429


class Step:
    """A step under way.

    Attributes:
        outcome: how it ended, set by who knows; what ends by an exception is an ``error``.
    """

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome = "error"


@contextmanager
def step(verb: str, *, caused_by: str | None = None, **ids: str | int | None) -> Iterator[Step]:
    """Around a step.

    Args:
        verb: what is done.
        caused_by: ``traceparent`` of the API request that wanted it.
        **ids: what it is done for; log lines and spans within carry them.
    """
    taken = Step()
    began = perf_counter()
    with working_for(**ids), traces.span(f"step {verb}", traces.CONSUMER, {}, caused_by=caused_by) as told:
        try:
            yield taken
        finally:
            metrics.STEP_SECONDS.labels(verb).observe(perf_counter() - began)
            metrics.STEPS.labels(verb, taken.outcome).inc()
            told.ended(taken.outcome, well=taken.outcome not in {"error", "failed"})


class Call:
    """A call under way.

    Attributes:
        outcome: how it ended; what ends by an exception that nobody named is ``broken``.
    """

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome = "broken"

    def answered(self, status: int) -> None:
        """An answer with this status came."""
        self.outcome = "429" if status == _TOO_MANY else f"{status // 100}xx" if status in _OK else "broken"


@contextmanager
def call(service: str, *, method: str, chain_id: int | None = None, endpoint: int | None = None) -> Iterator[Call]:
    """Around a call to another service.

    Args:
        service: ``phala``, ``safe_service``, ``rpc`` or ``webhook``.
        method: of HTTP.
        chain_id: that it is about.
        endpoint: which of several, by number.
    """
    made = Call()
    labels = (service, "" if chain_id is None else str(chain_id), "" if endpoint is None else str(endpoint))
    began = perf_counter()
    with traces.span(f"{service} {method}", traces.CLIENT, {"http.request.method": method}) as told:
        try:
            yield made
        finally:
            metrics.CALL_SECONDS.labels(*labels).observe(perf_counter() - began)
            metrics.CALLS.labels(*labels, made.outcome).inc()
            told.note(upstream_service=service, upstream_chain=labels[1], upstream_endpoint=labels[2])
            told.ended(made.outcome, well=made.outcome in _WELL)
