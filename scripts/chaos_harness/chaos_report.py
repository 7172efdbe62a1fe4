"""What a run has shown, as Markdown and as JSON. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from .history import OK, Acknowledged, Asked, Ended, FaultBegan, FaultEnded, History, Recovered, Weighed
from .invariants import Broken, Excuse


@attrs.frozen(kw_only=True)
class FaultRow:
    """One kind of fault. Recovery is from the end of its cause until all was well; None where it never was."""

    fault: str
    count: int
    recovered: int
    p50_s: float | None
    p99_s: float | None
    max_s: float | None


@attrs.frozen(kw_only=True)
class Summary:
    """A run in numbers.

    first_try: of calls that read, the share that succeeded. first_try_where_well: of those that no fault accounts for.
    refusals:  {reason: how often}, also of those that a fault accounts for.
    memory_mb: after the warm-up, and at the end.
    """

    title: str
    seconds: float
    faults: tuple[FaultRow, ...]
    calls: int
    safe_calls: int
    first_try: float
    first_try_where_well: float
    latency_p50_s: float
    latency_p99_s: float
    refusals: dict[str, int]
    acknowledged: int
    memory_mb: tuple[float, float]
    broken: tuple[Broken, ...]


def quantile(values: Iterable[float], share: float) -> float | None:
    """The nearest rank; None of no values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def fault_rows(history: History) -> tuple[FaultRow, ...]:
    ended = {each.fault_id: each.at_s for each in history.of(FaultEnded)}
    recovered = {each.fault_id: each.at_s for each in history.of(Recovered)}
    took: dict[str, list[float]] = defaultdict(list)
    counts = Counter(each.fault for each in history.of(FaultBegan))
    for fault in history.of(FaultBegan):
        if fault.fault_id in recovered:
            took[fault.fault].append(recovered[fault.fault_id] - ended[fault.fault_id])
    return tuple(
        FaultRow(
            fault=name,
            count=count,
            recovered=len(took[name]),
            p50_s=quantile(took[name], 0.5),
            p99_s=quantile(took[name], 0.99),
            max_s=max(took[name], default=None),
        )
        for name, count in sorted(counts.items())
    )


def summary(title: str, history: History, seconds: float, known: Sequence[Excuse], broken: Sequence[Broken]) -> Summary:
    asked = {each.call_id: each for each in history.of(Asked)}
    ends = [(asked[each.call_id], each) for each in history.of(Ended)]
    safe = [(call, end) for call, end in ends if call.is_safe]
    well = [
        (call, end)
        for call, end in safe
        if not any(each.backend == call.backend and each.from_s <= end.at_s and call.at_s <= each.to_s for each in known)
    ]
    latencies = [end.at_s - call.at_s for call, end in safe if end.outcome == OK]
    weights = history.of(Weighed)
    return Summary(
        title=title,
        seconds=seconds,
        faults=fault_rows(history),
        calls=len(ends),
        safe_calls=len(safe),
        first_try=_share_ok(safe),
        first_try_where_well=_share_ok(well),
        latency_p50_s=quantile(latencies, 0.5) or 0.0,
        latency_p99_s=quantile(latencies, 0.99) or 0.0,
        refusals=dict(Counter(end.outcome.partition(":")[0] for _, end in ends if end.outcome != OK).most_common()),
        acknowledged=len(history.of(Acknowledged)),
        memory_mb=(weights[0].memory_bytes / 1e6, weights[-1].memory_bytes / 1e6) if weights else (0.0, 0.0),
        broken=tuple(broken),
    )


def as_json(found: Summary) -> dict[str, Any]:
    return attrs.asdict(found)


def as_markdown(found: Summary, most_broken: int = 20) -> str:
    refusals = ", ".join(f"`{reason}` {count}" for reason, count in found.refusals.items()) or "none"
    lines = [
        f"# {found.title}",
        "",
        f"{found.seconds:.0f} s, {found.calls} calls, {found.acknowledged} events. Of {found.safe_calls} calls that read "
        f"{found.first_try:.2%} succeeded on the first try, {found.first_try_where_well:.2%} where no fault accounts for it; "
        f"p50 {found.latency_p50_s * 1000:.0f} ms, p99 {found.latency_p99_s * 1000:.0f} ms. "
        f"Memory {found.memory_mb[0]:.0f} MB after the warm-up, {found.memory_mb[1]:.0f} MB at the end.",
        "",
        "| fault | count | recovery p50 | p99 | max |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {row.fault} | {row.count} | {_seconds(row.p50_s)} | {_seconds(row.p99_s)} | {_seconds(row.max_s)} |"
            for row in found.faults
        ),
        "",
        f"Refusals, those that faults account for as well: {refusals}.",
        "",
        f"Broken invariants: {len(found.broken)}",
        "",
        *(f"* {each.invariant}: {each.text}" for each in found.broken[:most_broken]),
    ]
    if len(found.broken) > most_broken:
        lines.append(f"* and {len(found.broken) - most_broken} more, in report.json")
    return "\n".join(lines).rstrip() + "\n"


def _share_ok(calls: Sequence[tuple[Asked, Ended]]) -> float:
    return sum(end.outcome == OK for _, end in calls) / len(calls) if calls else 1.0


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
