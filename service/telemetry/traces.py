"""Spans by OpenTelemetry, if traces are configured; otherwise nothing is made and its SDK is not loaded.

A span tells no message of an exception, no URL and no body: only its kind, ids, and how it ended.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.telemetry.context import ids

Attributes = Mapping[str, str | int]

SERVER: Final = SpanKind.SERVER
CLIENT: Final = SpanKind.CLIENT
CONSUMER: Final = SpanKind.CONSUMER
_HEADER: Final = "traceparent"
_W3C: Final = TraceContextTextMapPropagator()


class NotInstalled(Exception):
    """Traces are configured, and the libraries for them are not there."""


class _Tracing:
    """Whether this process traces, decided once when it starts."""

    tracer: Tracer | None = None


class Told:
    """What is said about a span while it is open; says nothing where there is none."""

    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def name(self, name: str) -> None:
        """Another name, where it is known late."""
        if self._span is not None:
            self._span.update_name(name)

    def note(self, **attributes: str | int) -> None:
        """More attributes, prefixed by ``countersign.``."""
        if self._span is not None:
            self._span.set_attributes({f"countersign.{name}": value for name, value in attributes.items()})

    def ended(self, outcome: str, *, well: bool) -> None:
        """How it ended."""
        if self._span is not None:
            self._span.set_attribute("countersign.outcome", outcome)
            if not well:
                self._span.set_status(StatusCode.ERROR)


_UNTOLD: Final = Told(None)


def start(endpoint: str, headers: Mapping[str, str], process: str) -> Callable[[], None]:
    """Trace from now on; what to call at the end, which sends what is left.

    Args:
        endpoint: base URL of a receiver of OTLP over HTTP, without ``/v1/traces``.
        headers: sent with every export.
        process: ``serve``, ``worker`` and so on.

    Raises:
        NotInstalled: the extra ``tracing`` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - 10 MB
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise NotInstalled("traces need `pip install countersign[tracing]`") from error
    told = {"service.name": "countersign", "service.version": version("countersign"), "countersign.process": process}
    provider = TracerProvider(resource=Resource.create(told))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", headers=dict(headers))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _Tracing.tracer = provider.get_tracer("countersign", version("countersign"))

    def stop() -> None:
        _Tracing.tracer = None
        provider.shutdown()

    return stop


@contextmanager
def span(
    name: str, kind: SpanKind, attributes: Attributes, *, within: str | None = None, caused_by: str | None = None
) -> Iterator[Told]:
    """A span while the block runs.

    Args:
        name: few values.
        kind: one of those above.
        attributes: in OpenTelemetry's names; the ids of ``context`` are added.
        within: ``traceparent`` of a span elsewhere that this is part of.
        caused_by: ``traceparent`` of a span long ago, to which this one links.
    """
    tracer = _Tracing.tracer
    if tracer is None:
        yield _UNTOLD
        return
    all_attributes = {**attributes, **{f"countersign.{one}": value for one, value in ids().items()}}
    parent = _W3C.extract({_HEADER: within}) if within else None
    cause = get_current_span(_W3C.extract({_HEADER: caused_by})).get_span_context() if caused_by else None
    with tracer.start_as_current_span(
        name,
        context=parent,
        kind=kind,
        attributes=all_attributes,
        links=[Link(cause)] if cause is not None and cause.is_valid else None,
        record_exception=False,  # the text of an exception, and where it was raised, are for the log
        set_status_on_exception=False,
    ) as opened:
        yield Told(opened)


def traceparent() -> str | None:
    """The open span in W3C's words, ``None`` without one."""
    if _Tracing.tracer is None:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get(_HEADER)
