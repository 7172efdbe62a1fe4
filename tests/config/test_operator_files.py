"""The dashboard for Grafana and the rules for Prometheus speak of metrics that exist, by labels that these have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from mcp_gateway.transports.telemetry import metrics

CONFIG = Path(__file__).parents[2] / "config"
CONTRACT = {
    "downstream_connections": {"transport"},
    "requests_total": {"transport", "method", "backend", "outcome"},
    "request_duration_seconds": {"method", "backend"},
    "gateway_latency_seconds": {"stage"},
    "pool_connections": {"backend", "replica", "state"},
    "pool_exhausted_total": {"backend"},
    "circuit_state": {"route", "replica"},
    "ring_members": {"route"},
    "health_status": {"component"},
    "restarts_total": {"child"},
    "events_published_total": {"topic"},
    "events_delivered_total": {"transport"},
    "events_lost_total": {"transport"},
    "algedonic_signals_total": {"kind", "source"},
    "rate_limited_total": {"key"},
    "sessions": {"revision"},
    "bridge_total": {"client_era", "server_era", "method"},
}
_LABEL_WORDS = re.compile(r"by \(([^)]*)\)")
_SELECTOR = re.compile(r"(mcp_gateway_\w+)(?:\{([^}]*)\})?")


def known() -> dict[str, set[str]]:
    """{name in an expression: labels}"""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            labels = set(metric._labelnames)
            if metric._type == "histogram":
                found |= {
                    f"{metric._name}_bucket": labels | {"le"},
                    f"{metric._name}_sum": labels,
                    f"{metric._name}_count": labels,
                }
            else:
                found[f"{metric._name}_total" if metric._type == "counter" else metric._name] = labels
    return found


def expressions() -> Iterator[tuple[str, str]]:
    dashboard = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for each in dashboard["annotations"]["list"]:
        yield each["name"], each["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CONFIG / "prometheus-alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("name", CONTRACT)
def test_every_metric_of_the_contract_exists_with_its_labels(name: str) -> None:
    shown = f"mcp_gateway_{name}"
    found = known().get(shown) or known()[f"{shown}_bucket"] - {"le"}
    assert CONTRACT[name] <= found


@pytest.mark.parametrize(("title", "expression"), list(expressions()), ids=lambda value: str(value)[:40])
def test_an_expression_names_metrics_and_labels_that_exist(title: str, expression: str) -> None:
    selectors = _SELECTOR.findall(expression)
    assert selectors, title
    labels: set[str] = set()
    for name, selector in selectors:
        assert name in known(), f"{title}: {name}"
        labels |= known()[name]
        assert set(re.findall(r"(\w+)\s*[!=]~?", selector)) <= known()[name], f"{title}: {selector}"
    for grouped in _LABEL_WORDS.findall(expression):
        assert {word.strip() for word in grouped.split(",")} <= labels, f"{title}: by ({grouped})"
    assert expression.count("(") == expression.count(")")


def test_what_a_rule_says_names_only_labels_that_it_keeps() -> None:
    for rule in rules():
        kept = {word.strip() for grouped in _LABEL_WORDS.findall(rule["expr"]) for word in grouped.split(",")}
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= kept, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_every_metric_has_its_place_on_the_dashboard() -> None:
    shown = " ".join(expression for _, expression in expressions())
    for name in CONTRACT:
        assert f"mcp_gateway_{name}" in shown, name


def test_panels_do_not_lie_on_each_other() -> None:
    panels = json.loads((CONFIG / "grafana-dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
