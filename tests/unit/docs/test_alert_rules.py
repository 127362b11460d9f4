"""docs/alerts.yml can be loaded, and asks for metrics that there are."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.metrics_docs import alerts
from service.telemetry.catalogue import PREFIX, Metric
from service.telemetry.metrics import CATALOGUE

DOCS = Path(__file__).resolve().parents[3] / "docs"
RULES = alerts()
SERIES: dict[str, Metric] = {series: metric for metric in CATALOGUE.metrics.values() for series in metric.series}
EVERYWHERE = {"le", "instance", "job"}
"""Labels of histograms and of Prometheus itself."""


def _selectors(expression: str) -> list[tuple[str, str]]:
    """Names of series with what stands in their braces."""
    return re.findall(rf"({PREFIX}\w+)(?:\{{([^}}]*)\}})?", expression)


def test_the_file_is_one_of_rules():
    file = yaml.safe_load((DOCS / "alerts.yml").read_text())

    assert file.keys() == {"groups"}
    assert [group.keys() for group in file["groups"]] == [{"name", "rules"}]
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names)) >= 8


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_asks_for_series_and_labels_that_there_are(rule: dict[str, Any]):
    expression = rule["expr"]
    found = _selectors(expression)

    assert found
    for name, inner in found:
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inner))
        assert labels <= set(SERIES[name].labels), name
    known = {label for name, _ in found for label in SERIES[name].labels} | EVERYWHERE
    grouped = {label for inner in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression) for label in inner.split(", ")}
    assert grouped <= known
    assert all(expression.count(opened) == expression.count(closed) for opened, closed in ("()", "[]", "{}"))


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_says_how_bad_it_is_what_it_is_and_what_to_do(rule: dict[str, Any]):
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "action"}
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = {label for inner in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for label in inner.split(", ")}
    assert told <= kept, "what is said of a label is there after the aggregation"
    assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))


def test_a_rule_for_a_metric_that_is_none_is_found():
    assert [name for name, _ in _selectors("sum(countersign_nothing_total) > 0") if name not in SERIES]


def test_each_metric_says_what_it_is_and_who_shows_it():
    for metric in CATALOGUE.metrics.values():
        assert metric.what
        assert set(metric.by) <= {"serve", "worker", "beat", "watch"}
        assert metric.by
        assert not {"id", "url", "workspace", "change_request"} & set(metric.labels), "few values"
        assert re.fullmatch(rf"{PREFIX}[a-z_]+", metric.name)
