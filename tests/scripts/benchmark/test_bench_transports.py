"""The benchmark of transports: its table, its promise, and a short run over each of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcp_gateway.scripts.benchmark.bench_transports import MAX_LATER_MS, WAYS, Row, broken_promises, table


def test_the_table_has_a_row_for_each_way_with_medians() -> None:
    rows = [Row("websocket", [100.0, 200.0, 600.0], [1.0, 2.0, 9.0]), Row("phoenix", [5.0], [0.5])]
    assert table(rows).splitlines()[2:] == ["| WebSocket | 200 | 100 to 600 | 2.00 |", "| Phoenix channel | 5 | 5 to 5 | 0.50 |"]


@pytest.mark.parametrize(("later_ms", "is_broken"), [(0.0, False), (MAX_LATER_MS, False), (MAX_LATER_MS + 0.1, True)])
def test_a_call_over_phoenix_may_be_a_little_later_than_one_over_websocket(later_ms: float, is_broken: bool) -> None:
    rows = [Row("websocket", [1.0], [0.5]), Row("phoenix", [1.0], [0.5 + later_ms])]
    assert bool(broken_promises(rows)) is is_broken
    assert broken_promises(rows[:1]) == []


def test_a_short_run_calls_over_every_way_and_looks_at_each_answer() -> None:
    command = [sys.executable, "-m", "mcp_gateway.scripts.benchmark.bench_transports", "--rounds", "1", "--scale", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    shown = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    assert shown[1:] == [way.title for way in WAYS.values()]
