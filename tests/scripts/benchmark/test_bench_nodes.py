"""The benchmark of a cluster: what its table says, which promise it holds the gateway to, and a short run of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcp_gateway.scripts.benchmark.bench_nodes import MAX_GROWTH, WORKS, Cost, Row, broken_promises, growth_of, table


def rows(work: str, *cpu_us: float) -> list[Row]:
    """What it costs with one node, with two, and so on."""
    return [Row(work=work, nodes=number, costs=[Cost(cpu_us=each)]) for number, each in enumerate(cpu_us, start=1)]


def test_the_table_pairs_the_costs_of_each_round() -> None:
    one = Row(work="stateless", nodes=1, costs=[Cost(cpu_us=each, per_s=1_000, latency_ms=(1, 9)) for each in (100, 200, 100)])
    three = Row(work="stateless", nodes=3, costs=[Cost(cpu_us=each, per_s=3_000, latency_ms=(2, 8)) for each in (110, 240, 900)])
    assert growth_of(three, [one, three]) == pytest.approx(1.2)
    assert table([one, three]).splitlines()[2:] == [
        "| a stateless `tools/call` | 1 | 1 000 | 100 | 1.00 | 1.0 | 9.0 |",
        "| a stateless `tools/call` | 3 | 3 000 | 240 | 1.20 | 2.0 | 8.0 |",
    ]


def test_what_is_not_as_fast_as_it_goes_has_no_rate() -> None:
    assert table(rows("nothing", 2_000)).splitlines()[2:] == [f"| {WORKS['nothing'].title} | 1 | - | 2000 | 1.00 | - | - |"]


@pytest.mark.parametrize("work", ["stateless", "session"])
def test_a_promise_is_kept_at_its_bound_and_broken_past_it(work: str) -> None:
    assert [*broken_promises(rows(work, 100, 100 * MAX_GROWTH))] == []
    (line,) = broken_promises(rows(work, 100, 100, 100 * MAX_GROWTH + 1))
    assert line.startswith(f"{WORKS[work].title}, 3 nodes: ")
    assert line.endswith(f"{MAX_GROWTH:g} promised")


def test_nothing_is_promised_of_what_several_nodes_must_do_several_times() -> None:
    assert [*broken_promises([*rows("event", 100, 900), *rows("nothing", 100, 900)])] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_run_tells_what_it_has_measured() -> None:
    bench = [sys.executable, "-m", "mcp_gateway.scripts.benchmark.bench_nodes", "--rounds", "1", "--scale", "0.1"]
    done = subprocess.run(bench, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("| ")]) == 1 + 3 * len(WORKS)
