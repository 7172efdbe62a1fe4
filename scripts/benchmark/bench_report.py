"""Pure: from measurements to the tables and verdicts of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from statistics import median

import attrs

from .bench_load import MODERN, Measurement

YARDSTICK = "proxy"
_MEGABYTE = 1e6

# What the gateway promises on its own yardstick.
MIN_RATIO_TO_PROXY = 0.75
AIMED_CPU_RATIO_TO_PROXY = {"embedded": 2.0, "node1": 1.8}
"""What it shall reach: told where it does not."""
RATIO_CONNECTIONS = (32, 128)
MAX_ADDED_P50_MS = 0.4
MAX_IDLE_PSS_MB = {"embedded": 60.0, "node1": 110.0}
MAX_STARTUP_S = {"embedded": 1.5, "node1": 3.0, "node2": 3.0}
_JUDGED = ("embedded", "node1")


@attrs.define(kw_only=True)
class Record:
    """Everything measured of one candidate in one era. runs: {connections: one measurement for each round}; bytes and seconds as
    named, where the era is the first that was measured.
    """

    name: str
    title: str
    era: str = MODERN
    runs: dict[int, list[Measurement]] = attrs.field(factory=dict)
    startups_s: list[float] = attrs.field(factory=list)
    idle_pss_bytes: int = 0
    loaded_pss_bytes: int = 0
    process_count: int = 0

    def rate(self, connections: int) -> float:
        return median(run.requests_per_second for run in self.runs[connections])

    def cpu_us(self, connections: int) -> float:
        return median(run.cpu_us for run in self.runs[connections])

    def latency_ms(self, connections: int, key: str) -> float:
        return median(run.latency_ms[key] for run in self.runs[connections])

    def failed(self, connections: int) -> int:
        return sum(run.failed for run in self.runs[connections])


def proxy_of(record: Record, records: Sequence[Record]) -> Record | None:
    """The yardstick in the same era, if it was measured."""
    return next((each for each in records if each.name == YARDSTICK and each.era == record.era), None)


def ratio_to_proxy(record: Record, proxy: Record, connections: int) -> float:
    """The median of the ratios of each round, so that what slows a whole round down slows both sides of a ratio."""
    pairs = zip(record.runs[connections], proxy.runs[connections], strict=True)
    return median(run.requests_per_second / bare.requests_per_second for run, bare in pairs)


def cpu_ratio_to_proxy(record: Record, proxy: Record, connections: int) -> float:
    """How many requests it serves with the processor time in which the proxy serves one, as the median of the rounds."""
    pairs = zip(record.runs[connections], proxy.runs[connections], strict=True)
    return median(bare.cpu_us / run.cpu_us if run.cpu_us else inf for run, bare in pairs)


def added_p50_ms(record: Record, proxy: Record, connections: int) -> float:
    pairs = zip(record.runs[connections], proxy.runs[connections], strict=True)
    return median(run.latency_ms["p50"] - bare.latency_ms["p50"] for run, bare in pairs)


def load_table(records: Sequence[Record], connections: Sequence[int]) -> str:
    lines = [
        "| path | connections | requests/s | of the bare proxy | CPU us each | of the bare proxy | p50 ms | p99 ms | failed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for connection_count in connections:
        for record in records:
            proxy = proxy_of(record, records)
            ratio = f"{ratio_to_proxy(record, proxy, connection_count):.2f}" if proxy else "-"
            cells = (
                record.title,
                str(connection_count),
                f"{record.rate(connection_count):,.0f}".replace(",", " "),
                ratio,
                f"{record.cpu_us(connection_count):.0f}",
                f"{cpu_ratio_to_proxy(record, proxy, connection_count):.2f}" if proxy else "-",
                f"{record.latency_ms(connection_count, 'p50'):.2f}",
                f"{record.latency_ms(connection_count, 'p99'):.2f}",
                str(record.failed(connection_count)),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def resource_table(records: Sequence[Record]) -> str:
    lines = [
        "| path | first answer after s | memory idle MB | after the load MB | processes |",
        "|---|---:|---:|---:|---:|",
    ]
    for record in records:
        if not record.startups_s:
            continue
        cells = (
            record.title,
            f"{median(record.startups_s):.2f}",
            f"{record.idle_pss_bytes / _MEGABYTE:.0f}",
            f"{record.loaded_pss_bytes / _MEGABYTE:.0f}",
            str(record.process_count),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def broken_promises(records: Sequence[Record]) -> list[str]:
    """One line for each promise that these measurements do not bear out; what was not measured is not judged."""
    broken = []
    for record in records:
        proxy = proxy_of(record, records)
        found = [
            f"{record.failed(connections)} failed requests at {connections} connections"
            for connections in record.runs
            if record.failed(connections)
        ]
        if proxy is not None and record.name in _JUDGED:
            found += [
                f"{ratio:.2f} of the proxy at {connections} connections, {MIN_RATIO_TO_PROXY} promised"
                for connections in RATIO_CONNECTIONS
                if connections in record.runs and (ratio := ratio_to_proxy(record, proxy, connections)) < MIN_RATIO_TO_PROXY
            ]
            if 1 in record.runs and (added := added_p50_ms(record, proxy, 1)) > MAX_ADDED_P50_MS:
                found.append(f"p50 {added:.2f} ms above the proxy at one connection, {MAX_ADDED_P50_MS} promised")
        idle_mb, allowed_mb = record.idle_pss_bytes / _MEGABYTE, MAX_IDLE_PSS_MB.get(record.name, inf)
        if idle_mb >= allowed_mb:
            found.append(f"{idle_mb:.0f} MB idle, under {allowed_mb:g} promised")
        if record.startups_s and (startup_s := median(record.startups_s)) > (allowed_s := MAX_STARTUP_S.get(record.name, inf)):
            found.append(f"first answer after {startup_s:.2f} s, {allowed_s:g} promised")
        broken += [f"{record.title}: {line}" for line in found]
    return broken


def not_held(records: Sequence[Record]) -> list[str]:
    """What the gateway shall reach and does not."""
    found = []
    for record in records:
        proxy, aim = proxy_of(record, records), AIMED_CPU_RATIO_TO_PROXY.get(record.name, 0.0)
        if proxy is not None:
            found += [
                f"{record.title}: {ratio:.2f} of the proxy's calls by processor time at {connections} connections, {aim} aimed at"
                for connections, ratio in _cpu_ratios(record, proxy).items()
                if ratio < aim
            ]
    return found


def _cpu_ratios(record: Record, proxy: Record) -> dict[int, float]:
    return {each: cpu_ratio_to_proxy(record, proxy, each) for each in RATIO_CONNECTIONS if each in record.runs}
