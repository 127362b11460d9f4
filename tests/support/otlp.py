"""A receiver of traces by OTLP over HTTP, as a collector is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.hostile_http import Behaviour, Request, Say, serving


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hex."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: Sequence[tuple[str, str]]
    attributes: dict[str, Any]
    failed: bool


@dataclass
class Collector:
    """What came.

    Attributes:
        raw: every body.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)

    @property
    def raw(self) -> bytes:
        """All that was sent, heads included."""
        return b"\n".join(str(one.headers).encode() + one.body for one in list(self.requests))

    @property
    def spans(self) -> list[Span]:
        """In the order of their coming."""
        return [span for one in list(self.requests) for span in _spans(one.body)]


def _spans(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    {one.key: one.value.string_value or one.value.int_value for one in span.attributes},
                    span.status.code == 2,
                )


@contextmanager
def collecting() -> Iterator[Collector]:
    """Receive traces until the block ends."""

    def take(request: Request) -> Behaviour:
        assert request.target == "/v1/traces"
        return Say(200)

    with serving(take) as served:
        yield Collector(served.url, served.requests)
