"""Metrics for Prometheus, on a port of their own: never on the API's, which strangers reach."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from service.telemetry import metrics
from service.telemetry.catalogue import PREFIX, Metric

KEPT_SECONDS: Final = 5.0
"""How long figures are kept: a second scraper costs the database nothing."""


Figure = tuple[str, tuple[str, ...], float]
"""A value of a gauge: the metric's name without prefix, the values of its labels, the value."""
Read = Callable[[], Iterable[Figure]]


class Figures(Collector):
    """Gauges whose values are read when somebody asks, at most every so often."""

    def __init__(self, read: Read, *, kept_seconds: float = KEPT_SECONDS) -> None:
        """Take who reads them; it must not raise."""
        self._read = read
        self._kept_seconds = kept_seconds
        self._lock = threading.Lock()
        self._figures: tuple[Figure, ...] = ()
        self._fresh_until = 0.0

    def collect(self) -> Iterator[Family]:
        """The gauges that have values."""
        families: dict[str, GaugeMetricFamily] = {}
        for name, labels, value in self._newest():
            if name not in families:
                families[name] = _family(metrics.CATALOGUE.metrics[PREFIX + name])
            families[name].add_metric(labels, value)
        yield from families.values()

    def _newest(self) -> tuple[Figure, ...]:
        with self._lock:
            if time.monotonic() >= self._fresh_until:
                self._figures = tuple(self._read())
                self._fresh_until = time.monotonic() + self._kept_seconds
            return self._figures


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.what, labels=metric.labels)


class Listener:
    """Serves the metrics of this process until it is closed.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        process: which process this is.
        reads: who reads figures, and for how many seconds these are kept.

    Raises:
        OSError: the port is taken, or the address is not ours.
    """

    def __init__(self, host: str, port: int, process: str, reads: Iterable[tuple[Read, float]]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Registered(metrics.CATALOGUE.registry))
        ProcessCollector(registry=registry)
        told: Figure = ("process", (process, version("countersign")), 1.0)
        for read, kept_seconds in ((lambda: (told,), KEPT_SECONDS), *reads):
            registry.register(Figures(read, kept_seconds=kept_seconds))
        self._server, self._thread = start_http_server(port, host, registry)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Registered(Collector):
    """What another registry holds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Family]:
        return self._registry.collect()
