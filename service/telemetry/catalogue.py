"""Every metric by name: the documentation and the alerts are held to this list."""

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

PREFIX: Final = "countersign_"
Kind = Literal["counter", "gauge", "histogram"]
Instrument = TypeVar("Instrument", bound=MetricWrapperBase)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as operators meet it.

    Attributes:
        name: with the prefix; of a counter with ``_total``, of a histogram without its suffixes.
        labels: few values each.
        what: for people, with the unit.
        by: the processes that show it.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    what: str
    by: tuple[str, ...]

    @property
    def series(self) -> frozenset[str]:
        """Names of its series, as expressions use them."""
        suffixes = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("",)
        return frozenset(self.name + suffix for suffix in suffixes)


class Catalogue:
    """The metrics of a process: those that it counts itself, and those that are asked for when it is scraped."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self.registry = CollectorRegistry(auto_describe=False)

    def counter(self, name: str, labels: tuple[str, ...], what: str, *by: str) -> Counter:
        """A counter; ``name`` without prefix and ``_total``."""
        self._add(Metric(f"{PREFIX}{name}_total", "counter", labels, what, by))
        return Counter(PREFIX + name, what, labels, registry=self.registry)

    def gauge(self, name: str, labels: tuple[str, ...], what: str, *by: str) -> Gauge:
        """A gauge that the process sets."""
        self._add(Metric(PREFIX + name, "gauge", labels, what, by))
        return Gauge(PREFIX + name, what, labels, registry=self.registry)

    def histogram(
        self, name: str, labels: tuple[str, ...], what: str, *by: str, buckets: tuple[float, ...]
    ) -> Histogram:
        """A histogram of seconds."""
        self._add(Metric(PREFIX + name, "histogram", labels, what, by))
        return Histogram(PREFIX + name, what, labels, buckets=buckets, registry=self.registry)

    def figure(self, name: str, labels: tuple[str, ...], what: str, *by: str) -> Metric:
        """A gauge whose values are asked for at each scrape."""
        return self._add(Metric(PREFIX + name, "gauge", labels, what, by))

    def _add(self, metric: Metric) -> Metric:
        self.metrics[metric.name] = metric
        return metric
