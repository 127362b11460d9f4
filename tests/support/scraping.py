"""Metrics as Prometheus reads them."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.catalogue import PREFIX
from service.telemetry.exposition import Listener, Read

Series = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """What one scrape showed; names without prefix."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[Series, float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one series, 0 if it is not there yet."""
        return self.samples.get((PREFIX + name, frozenset(labels.items())), 0.0)

    def total(self, name: str) -> float:
        """All series of a metric together."""
        return sum(value for (series, _), value in self.samples.items() if series == PREFIX + name)

    def shows(self, name: str) -> bool:
        """Whether any series of a metric is there."""
        return any(series == PREFIX + name for series, _ in self.samples)


class Scraped:
    """A listener and its only client."""

    def __init__(self, listener: Listener) -> None:
        self._url = f"http://127.0.0.1:{listener.port}/metrics"

    def scrape(self) -> Scrape:
        answer = httpx.get(self._url, trust_env=False, timeout=70)
        assert answer.status_code == 200, answer.text
        return Scrape(answer.text)


@contextmanager
def scraping(*reads: Read, process: str = "worker") -> Iterator[Scraped]:
    """Show the metrics of this process, and figures that are read anew at each scrape."""
    listener = Listener("127.0.0.1", 0, process, [(read, 0.0) for read in reads])
    try:
        yield Scraped(listener)
    finally:
        listener.close()
