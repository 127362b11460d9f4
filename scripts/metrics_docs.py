"""The table of metrics, from ``service.telemetry.metrics``; that of alerts, from ``docs/alerts.yml``."""

from pathlib import Path
from typing import Any, Final

import yaml

from scripts.markdown import code, table
from service.telemetry.metrics import CATALOGUE

ALERTS: Final = Path(__file__).resolve().parents[1] / "docs" / "alerts.yml"


def metrics_table() -> str:
    """Markdown: every metric with its type, its labels, the processes that show it, and what it means."""
    rows = [
        (code(one.name), one.kind, ", ".join(map(code, one.labels)), ", ".join(map(code, one.by)), one.what)
        for one in CATALOGUE.metrics.values()
    ]
    return table(("Metric", "Type", "Labels", "Shown by", "Meaning"), rows)


def alerts() -> list[dict[str, Any]]:
    """The rules of ``docs/alerts.yml``."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def alerts_table() -> str:
    """Markdown: every alert with its severity, what it says, and what to do."""
    rows = [
        (code(one["alert"]), one["labels"]["severity"], one["annotations"]["summary"], one["annotations"]["action"])
        for one in alerts()
    ]
    return table(("Alert", "Severity", "Says", "What to do"), rows)
