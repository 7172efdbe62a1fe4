"""What a soak has shown: what a session costs, whether memory grows, whether all is given back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

MOST_SLOPE_MB: Final = 0.2
"""Megabytes a minute of one cell after the warm-up. Source: issue of this harness."""
SLOPE_COUNTS_S: Final = 300.0
"""Over less than that the slope is noise: of the allocator, of the kernel's accounts, of the machine."""
MORE_MB: Final = 12.0
MORE_SHARE: Final = 0.15
"""What may be left of memory when everything is given back, of a cell's own 12 MB or of all, whichever is more."""
MORE_SERIES: Final = 60
MORE_FILES: Final = 12


@attrs.frozen(kw_only=True)
class Sample:
    """at_s: on the monotonic clock. series: samples that /metrics shows. sessions: that are known, over all cells."""

    at_s: float
    memory_mb: float
    files: int
    series: int
    sessions: int


@attrs.frozen(kw_only=True)
class Soak:
    """One soak.

    churned:      samples while clients came and went, after the warm-up.
    rested:       before all idle sessions were opened, with them, and two idle timeouts later.
    idle_count:   how many were opened.
    abandoned:    {way: how often}. refused: how often the gateway did not let one begin.
    """

    title: str
    cells: int
    churned: tuple[Sample, ...]
    rested: tuple[Sample, Sample, Sample]
    idle_count: int
    abandoned: dict[str, int]
    refused: int

    @property
    def slope_mb(self) -> float:
        """Of all cells together, a minute."""
        return slope([(each.at_s / 60, each.memory_mb) for each in self.churned])

    @property
    def bytes_per_session(self) -> float:
        """0 where no idle session was opened. Sessions that were known before may have ended meanwhile: they are no measure."""
        before, full, _ = self.rested
        grown_mb = max(0.0, full.memory_mb - before.memory_mb)
        return grown_mb * 1e6 / self.idle_count if self.idle_count else 0.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line with the least squares through the points; 0 where there is none."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def broken_promises(soak: Soak) -> list[str]:
    """What does not hold, a line each."""
    before, _, after = soak.rested
    found = []
    took_s = soak.churned[-1].at_s - soak.churned[0].at_s if soak.churned else 0.0
    if took_s >= SLOPE_COUNTS_S and soak.slope_mb > MOST_SLOPE_MB * soak.cells:
        found.append(f"memory grows by {soak.slope_mb:.2f} MB a minute, not {MOST_SLOPE_MB * soak.cells:g}")
    if after.memory_mb > before.memory_mb + max(MORE_MB * soak.cells, before.memory_mb * MORE_SHARE):
        found.append(f"memory: {before.memory_mb:.1f} MB before, {after.memory_mb:.1f} MB when all had been given back")
    if after.sessions > 0:
        found.append(f"sessions: {after.sessions} are known after two idle timeouts")
    for name, more in (("series", MORE_SERIES), ("files", MORE_FILES)):
        first, last = getattr(before, name), getattr(after, name)
        if last > first + more:
            found.append(f"{name}: {first} before, {last} when all had been given back")
    if soak.refused:
        found.append(f"{soak.refused} clients were refused")
    return found


def as_json(soak: Soak) -> dict[str, Any]:
    derived = {"slope_mb": soak.slope_mb, "bytes_per_session": soak.bytes_per_session, "broken": broken_promises(soak)}
    return attrs.asdict(soak) | derived


def as_markdown(soak: Soak) -> str:
    before, full, after = soak.rested
    broken = broken_promises(soak)
    names = ("after clients came and went", f"with {soak.idle_count} idle sessions", "two idle timeouts later")
    rows = [
        f"| {name} | {each.memory_mb:.1f} MB | {each.sessions} | {each.files} | {each.series} |"
        for name, each in zip(names, (before, full, after), strict=True)
    ]
    ways = [f"| {name} | {count} |" for name, count in soak.abandoned.items()]
    return "\n".join(
        [
            f"# {soak.title}",
            "",
            f"{soak.bytes_per_session:.0f} bytes an idle session; {soak.slope_mb:+.2f} MB a minute while clients came and went.",
            "",
            "| | memory | sessions | files | series |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
            "| left behind | times |",
            "|---|---:|",
            *ways,
            "",
            f"Broken promises: {len(broken)}",
            *(["", *(f"* {line}" for line in broken)] if broken else []),
            "",
        ]
    )
