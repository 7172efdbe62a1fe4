"""The benchmark of size: what one thing costs a small gateway and a large one, in processor time.

What a gateway does by itself meanwhile, such as its probes, is measured before and taken off. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import attrs

from .bench_candidates import Running, server, with_backends
from .bench_command import scaled_parser, some_of, tell, told
from .bench_load import CheckedClient

_MORE_TOOLS: Final = 47
"""Beside the three of the backend: fifty for each, as many as a large server has."""
_IDLE_S: Final = 3.0


@attrs.frozen(kw_only=True)
class Growth:
    """One thing, done to gateways of two sizes.

    backends, sessions: of the small one and of the large one; so many sessions are open when it is done.
    act:   does it a number of times on a port; gives how many units that were.
    times: how often in one round, scaled.
    most:  how many times what it costs the small one it may cost the large one.
    """

    title: str
    unit: str
    backends: tuple[int, int] = (1, 1)
    sessions: tuple[int, int] = (0, 0)
    act: Callable[[Running, int], int]
    times: int
    most: float


@attrs.define(kw_only=True)
class Row:
    """What one unit cost in each round, in microseconds: (small, large)."""

    growth: str
    cpu_us: list[tuple[float, float]] = attrs.field(factory=list)


def _first_pages(gateway: Running, times: int) -> int:
    with CheckedClient(gateway.port, legacy=False) as client:
        for _ in range(times):
            client.list_tools()
    return times


def _whole_lists(gateway: Running, times: int) -> int:
    tool_count = 0
    with CheckedClient(gateway.port, legacy=False) as client:
        for _ in range(times):
            cursor: str | None = ""
            while cursor is not None:
                count, cursor = client.list_tools(cursor or None)
                tool_count += count
    return tool_count


def _legacy_calls(gateway: Running, times: int) -> int:
    with CheckedClient(gateway.port, legacy=True, tool=gateway.candidate.tool) as client:
        client.open_session()
        for number in range(times):
            client.call_echo(str(number))
    return times


def _session_openings(gateway: Running, times: int) -> int:
    for _ in range(times):
        with CheckedClient(gateway.port, legacy=True) as client:
            client.open_session()
    return times


GROWTHS: Final = {
    "page": Growth(title="first page of `tools/list`", unit="page", backends=(100, 300), act=_first_pages, times=10, most=1.5),
    "list": Growth(title="all of `tools/list`", unit="tool", backends=(100, 300), act=_whole_lists, times=2, most=1.5),
    "call": Growth(title="a legacy `tools/call`", unit="call", backends=(1, 100), act=_legacy_calls, times=1_000, most=1.15),
    "open": Growth(title="opening a session", unit="session", sessions=(100, 10_000), act=_session_openings, times=200, most=1.2),
}


def measure(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """Raises: CandidateFailed, WrongAnswer, OSError, http.client.HTTPException."""
    rows = [Row(growth=name) for name in options.only]
    with ExitStack() as stack:
        backend = Running(server(_MORE_TOOLS), 0, scratch / "backend")
        stack.callback(backend.stop)
        pairs: dict[str, list[Running]] = {}
        for name in options.only:
            growth = GROWTHS[name]
            pairs[name] = []
            for size, (backends, sessions) in enumerate(zip(growth.backends, growth.sessions, strict=True)):
                gateway = Running(with_backends(backends), backend.port, scratch / f"{name}-{size}")
                stack.callback(gateway.stop)
                pairs[name].append(gateway)
                tell(f"{name}: {growth.title}, {backends} backends, {sessions} sessions")
                _session_openings(gateway, int(sessions * options.scale))
                growth.act(gateway, 1)
        for round_number in range(options.rounds):
            for row in rows:
                growth = GROWTHS[row.growth]
                times = max(1, int(growth.times * options.scale))
                small, large = (_cost_us(gateway, growth, times) for gateway in pairs[row.growth])
                row.cpu_us.append((small, large))
                tell(f"round {round_number + 1}/{options.rounds} {row.growth:>5}: {small:.0f} and {large:.0f} us a {growth.unit}")
    return rows


def _cost_us(gateway: Running, growth: Growth, times: int) -> float:
    before_s = gateway.cpu_s()
    time.sleep(_IDLE_S)
    idle_share = (gateway.cpu_s() - before_s) / _IDLE_S
    before_s, began_s = gateway.cpu_s(), time.monotonic()
    units = growth.act(gateway, times)
    own_s = gateway.cpu_s() - before_s - idle_share * (time.monotonic() - began_s)
    return max(0.0, own_s) / units * 1e6


# ---- pure: table and verdicts


def growth_of(row: Row) -> float:
    """How many times the cost in the small one that in the large one is: the median of the rounds."""
    return median(large / max(small, 1e-9) for small, large in row.cpu_us)


def table(rows: Sequence[Row]) -> str:
    lines = ["| what | sizes | CPU us each, small | large | quartiles | times | promised |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        growth = GROWTHS[row.growth]
        sizes, what = (growth.sessions, "sessions") if any(growth.sessions) else (growth.backends, "backends")
        shown = f"{sizes[0]:,} and {sizes[1]:,} {what}".replace(",", " ")
        small, large = zip(*row.cpu_us, strict=True)
        cells = (
            growth.title,
            shown,
            f"{median(small):.0f}",
            f"{median(large):.0f}",
            _quartiles(large),
            f"{growth_of(row):.2f}",
            f"{growth.most:g}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _quartiles(values: Sequence[float]) -> str:
    lower, _, upper = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return f"{lower:.0f} to {upper:.0f}"


def broken_promises(rows: Iterable[Row]) -> list[str]:
    return [
        f"{GROWTHS[row.growth].title}: {growth_of(row):.2f} times as much, {GROWTHS[row.growth].most:g} promised"
        for row in rows
        if growth_of(row) > GROWTHS[row.growth].most
    ]


# ---- the command


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = scaled_parser("--scale", __doc__, "what is done in a round, and of the sessions")
    parser.add_argument("--only", type=some_of(GROWTHS), default=[*GROWTHS], help=f"comma-separated, of {', '.join(GROWTHS)}")
    return parser.parse_args(arguments)


def main() -> int:
    return told(parse(), measure, table, broken_promises)


if __name__ == "__main__":
    sys.exit(main())
