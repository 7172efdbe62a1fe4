"""The tables and verdicts of the benchmark follow from its measurements alone."""

from __future__ import annotations

import attrs
import pytest

from mcp_gateway.scripts.benchmark.bench_load import Measurement
from mcp_gateway.scripts.benchmark.bench_report import (
    Record,
    broken_promises,
    load_table,
    not_held,
    ratio_to_proxy,
    resource_table,
)


def run(rate: float, *, p50_ms: float = 1.0, failed: int = 0) -> Measurement:
    latency_ms = {"p50": p50_ms, "p99": 5, "max": 9}
    return Measurement(requests=int(rate * 10), duration_s=10, failed=failed, latency_ms=latency_ms, cpu_s=5.0)


def record(name: str, runs: dict[int, list[Measurement]], **rest: float) -> Record:
    startups_s, idle_pss_bytes = [rest.get("startup_s", 0.5)], int(rest.get("idle_mb", 10) * 1e6)
    return Record(name=name, title=f"the {name}", runs=runs, startups_s=startups_s, idle_pss_bytes=idle_pss_bytes)


def test_a_slow_round_hurts_no_ratio_because_rounds_are_paired() -> None:
    proxy = record("proxy", {32: [run(1000), run(400), run(1000)]})
    embedded = record("embedded", {32: [run(800), run(320), run(100)]})
    assert ratio_to_proxy(embedded, proxy, 32) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("runs", "rest", "expected"),
    [
        ({32: [run(750)], 128: [run(750)], 1: [run(500, p50_ms=1.3)]}, {}, []),
        ({32: [run(740)]}, {}, ["0.74 of the proxy at 32 connections, 0.75 promised"]),
        ({128: [run(500)]}, {}, ["0.50 of the proxy at 128 connections, 0.75 promised"]),
        ({1: [run(500, p50_ms=1.5)]}, {}, ["p50 0.50 ms above the proxy at one connection, 0.4 promised"]),
        ({32: [run(900, failed=2), run(900, failed=1)]}, {}, ["3 failed requests at 32 connections"]),
        ({}, {"idle_mb": 60}, ["60 MB idle, under 60 promised"]),
        ({}, {"startup_s": 1.6}, ["first answer after 1.60 s, 1.5 promised"]),
    ],
)
def test_each_promise_is_judged(runs: dict[int, list[Measurement]], rest: dict[str, float], expected: list[str]) -> None:
    proxy = record("proxy", {connections: [run(1000)] * len(measured) for connections, measured in runs.items()})
    assert broken_promises([proxy, record("embedded", runs, **rest)]) == [f"the embedded: {line}" for line in expected]


def test_what_was_not_measured_is_not_judged() -> None:
    assert broken_promises([record("embedded", {32: [run(1)]})]) == []
    assert broken_promises([record("proxy", {}), record("node2", {})]) == []


def test_tables_are_markdown_with_one_row_for_each_measurement() -> None:
    records = [record("proxy", {1: [run(1234)], 32: [run(2000)]}), record("embedded", {1: [run(617)], 32: [run(1900)]})]
    lines = load_table(records, [1, 32]).splitlines()
    assert lines[2] == "| the proxy | 1 | 1 234 | 1.00 | 405 | 1.00 | 1.00 | 5.00 | 0 |"
    assert lines[5] == "| the embedded | 32 | 1 900 | 0.95 | 263 | 0.95 | 1.00 | 5.00 | 0 |"
    assert len(resource_table(records).splitlines()) == 4
    assert load_table(records[1:], [1]).splitlines()[2].split("|")[4] == " - "


def test_each_era_is_compared_with_the_proxy_in_the_same_one() -> None:
    records = [record("proxy", {32: [run(1000)]}), record("embedded", {32: [run(1000)]})]
    for name, rate in (("proxy", 400), ("embedded", 300)):
        records.append(Record(name=name, title=f"the {name}, sessions", era="2025-11-25", runs={32: [run(rate)]}))
    assert broken_promises(records[:3]) == []
    assert [line.split("|")[4] for line in load_table(records, [32]).splitlines()[2:]] == [" 1.00 ", " 1.00 ", " 1.00 ", " 0.75 "]
    assert len(resource_table(records).splitlines()) == 4, "started once"


@pytest.mark.parametrize(("cpu_s", "is_told"), [(2.5, False), (2.6, True)])
def test_an_aim_that_is_missed_is_told(cpu_s: float, is_told: bool) -> None:
    measured = run(1000)
    records = [record("proxy", {32: [measured]}), record("embedded", {32: [attrs.evolve(measured, cpu_s=cpu_s)]})]
    told = "the embedded: 1.92 of the proxy's calls by processor time at 32 connections, 2.0 aimed at"
    assert not_held(records) == [told] * is_told
    assert not_held(records[1:]) == []
