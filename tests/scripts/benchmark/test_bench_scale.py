"""The benchmark of size: what its table says, which promises it holds the gateway to, and a short run of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcp_gateway.scripts.benchmark.bench_scale import GROWTHS, Row, broken_promises, growth_of, table


def test_the_table_tells_the_sizes_and_pairs_the_costs_of_each_round() -> None:
    rows = [Row(growth="page", cpu_us=[(100, 110), (200, 240), (100, 900)]), Row(growth="open", cpu_us=[(50, 50)])]
    assert growth_of(rows[0]) == pytest.approx(1.2)
    assert table(rows).splitlines()[2:] == [
        "| first page of `tools/list` | 100 and 300 backends | 100 | 240 | 110 to 900 | 1.20 | 1.5 |",
        f"| opening a session | 100 and 10 000 sessions | 50 | 50 | 50 to 50 | 1.00 | {GROWTHS['open'].most:g} |",
    ]


@pytest.mark.parametrize("name", GROWTHS)
def test_a_promise_is_kept_at_its_bound_and_broken_past_it(name: str) -> None:
    most = GROWTHS[name].most
    assert broken_promises([Row(growth=name, cpu_us=[(100, 100 * most)])]) == []
    (line,) = broken_promises([Row(growth=name, cpu_us=[(100, 100 * most + 1)])])
    assert line.startswith(GROWTHS[name].title)
    assert line.endswith(f"{most:g} promised")


def test_a_short_run_tells_what_it_has_measured() -> None:
    bench = [sys.executable, "-m", "mcp_gateway.scripts.benchmark.bench_scale", "--rounds", "1", "--scale", "0.01"]
    done = subprocess.run([*bench, "--only", "call,open"], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()][-2:] == ["| a legacy `tools/call`", "| opening a session"]
