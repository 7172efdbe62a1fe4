"""The fan-out benchmark: what its table says, which promises it holds the gateway to, and a short run of it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from mcp_gateway.scripts.benchmark.bench_fan_out import FanOut, broken_promises, percentile, table


def fan_out(**changes: Any) -> FanOut:
    fields = {
        "gateway": "gateway, embedded",
        "kind": "sse",
        "title": "SSE topic stream",
        "clients": 1_000,
        "idle_kb": 8.25,
        "delays_ms": [float(number) for number in range(1, 101)],
        "last_ms": [90.0, 100.0, 300.0],
    }
    return FanOut(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_table_has_one_row_for_each_kind_of_clients() -> None:
    assert table([fan_out(), fan_out(title="Phoenix channel", clients=7)]).splitlines()[2:] == [
        "| gateway, embedded | SSE topic stream | 1000 | 8.2 | 51.0 | 100.0 | 100.0 |",
        "| gateway, embedded | Phoenix channel | 7 | 8.2 | 51.0 | 100.0 | 100.0 |",
    ]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.99, 4.0), (1.0, 4.0)])
def test_percentiles_are_values_that_were_measured(share: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == value


def test_promises_are_judged_at_a_thousand_clients_and_by_the_median_of_events() -> None:
    slow = [249.0, 250.0, 900.0]
    assert broken_promises([fan_out(), fan_out(last_ms=[249.0]), fan_out(clients=999, last_ms=slow)]) == []
    assert broken_promises([fan_out(last_ms=slow)]) == [
        "gateway, embedded, SSE topic stream: one event was with all 1000 after 250 ms, under 250 promised"
    ]
    assert broken_promises([fan_out(idle_kb=25.0), fan_out(idle_kb=25.0, kind="phoenix")]) == [
        "gateway, embedded, SSE topic stream: 25.0 kB for an idle connection, under 25 promised"
    ]


def test_a_short_run_measures_every_kind_of_clients() -> None:
    options = ["--clients", "30", "--events", "3", "--only", "embedded"]
    command = [sys.executable, "-m", "mcp_gateway.scripts.benchmark.bench_fan_out", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| gateway, embedded |")]
    kinds = [["SSE topic stream", "30"], ["Phoenix channel", "30"], ["both at once", "60"]]
    assert [row.split(" | ")[1:3] for row in rows] == kinds
