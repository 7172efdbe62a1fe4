"""The benchmark of streams: what one event of a call, and one large result, cost in processor time beside a bare proxy.

Rounds are interleaved, and each answer is read whole and looked at.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import attrs

from .bench_candidates import Running, candidates, with_backends
from .bench_command import scaled_parser, some_of, tell, told
from .bench_load import WrongAnswer, call_headers, echo_params

_CONNECTIONS: Final = 4
_TIMEOUT_S: Final = 60.0
_YARDSTICK: Final = "proxy"
_PREFIXED: Final = with_backends(2)
_CANDIDATES: Final = {each.name: each for each in (*candidates(), _PREFIXED) if each.name not in ("direct", "nginx", "node2")}

# CPU of the bare proxy by CPU of the gateway: what the gateway promises, and what it shall reach.
MIN_RATIO: Final = {"burst": 0.4, "1 MB": 0.75, "4 MB": 0.6}
AIMED_RATIO: Final = {"burst": 0.6, "1 MB": 0.8, "4 MB": 0.8}
AIMED_PREFIXED_RATIO: Final = {"burst": 0.6, "1 MB": 0.7, "4 MB": 0.7}


@attrs.frozen(kw_only=True)
class Work:
    """What one call asks for. unit: what is counted; units: how many of them a call brings; calls: in one round, scaled."""

    title: str
    unit: str
    tool: str
    arguments: dict[str, Any]
    units: int = 1
    calls: int

    def check(self, body: bytes) -> None:
        """Raises: WrongAnswer."""
        event_count, size = self.arguments.get("count", 0), self.arguments.get("bytes", 0)
        if body.count(b"notifications/progress") != event_count or len(body) < size or b'"isError":false' not in body[-200:]:
            raise WrongAnswer(f"{self.tool} {self.arguments}: {len(body)} bytes, {body[:200]!r}")


WORKS: Final = {
    "burst": Work(title="100 events at once", unit="event", tool="progress", arguments={"count": 100}, units=100, calls=80),
    "paced": Work(
        title="100 events, 4 ms apart",
        unit="event",
        tool="progress",
        arguments={"count": 100, "interval_ms": 4},
        units=100,
        calls=16,
    ),
    "100 KB": Work(title="a result of 100 KB", unit="result", tool="large", arguments={"bytes": 100_000}, calls=400),
    "1 MB": Work(title="a result of 1 MB", unit="result", tool="large", arguments={"bytes": 1_000_000}, calls=80),
    "4 MB": Work(title="a result of 4 MB", unit="result", tool="large", arguments={"bytes": 4_000_000}, calls=24),
}


@attrs.define(kw_only=True)
class Row:
    """One candidate at one kind of work. cpu_us: of one unit, for each round."""

    candidate: str
    title: str
    work: str
    cpu_us: list[float] = attrs.field(factory=list)


def run(port: int, work: Work, calls: int, tool_prefix: str = "") -> None:
    """So many calls over a few connections.

    Raises: WrongAnswer, OSError, http.client.HTTPException.
    """
    with ThreadPoolExecutor(_CONNECTIONS) as clients:
        for each in [clients.submit(_call, port, work, calls // _CONNECTIONS, tool_prefix) for _ in range(_CONNECTIONS)]:
            each.result()


def _call(port: int, work: Work, calls: int, tool_prefix: str) -> None:
    tool = tool_prefix + work.tool
    params = echo_params("", legacy=False) | {"name": tool, "arguments": work.arguments}
    params["_meta"] = params["_meta"] | {"progressToken": "bench"}
    headers = call_headers(legacy=False) | {"Mcp-Name": tool}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)) as connection:
        for _ in range(calls):
            connection.request("POST", "/mcp", body, headers)
            work.check(connection.getresponse().read())


def measure(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """Raises: CandidateFailed, WrongAnswer, OSError, http.client.HTTPException."""
    rows = [
        Row(candidate=name, title=_CANDIDATES[name].title, work=work_name) for work_name in options.works for name in options.only
    ]
    with ExitStack() as stack:
        backend = Running(candidates()[0], 0, scratch / "backend")
        stack.callback(backend.stop)
        running = {}
        for name in options.only:
            running[name] = Running(_CANDIDATES[name], backend.port, scratch / name)
            stack.callback(running[name].stop)
        for round_number in range(options.rounds):
            # Whoever comes first differs from round to round, as in bench_run.
            for row in rows if round_number % 2 == 0 else reversed(rows):
                work, started = WORKS[row.work], running[row.candidate]
                calls = max(_CONNECTIONS, int(work.calls * options.scale)) // _CONNECTIONS * _CONNECTIONS
                prefix = started.candidate.tool.removesuffix("echo")
                if not round_number:
                    run(started.port, work, _CONNECTIONS, prefix)
                cpu_s, began_s = started.cpu_s(), time.monotonic()
                run(started.port, work, calls, prefix)
                row.cpu_us.append((started.cpu_s() - cpu_s) / (calls * work.units) * 1e6)
                took_s = time.monotonic() - began_s
                text = f"round {round_number + 1}/{options.rounds} {row.candidate:>8} {row.work:>6}: {row.cpu_us[-1]:8.1f} us"
                tell(f"{text} a {work.unit}, {took_s:.1f} s")
    return rows


# ---- pure: table and verdicts


def ratio_to_proxy(row: Row, rows: Sequence[Row]) -> float | None:
    """The median of each round's ratio; None where there was no proxy."""
    proxy = next((each for each in rows if each.candidate == _YARDSTICK and each.work == row.work), None)
    if proxy is None:
        return None
    return median(bare / max(own, 1e-9) for own, bare in zip(row.cpu_us, proxy.cpu_us, strict=True))


def table(rows: Sequence[Row]) -> str:
    lines = ["| what | path | CPU us each | quartiles | of the bare proxy |", "|---|---|---:|---:|---:|"]
    for row in rows:
        lower, _, upper = quantiles(row.cpu_us, n=4) if len(row.cpu_us) > 1 else row.cpu_us * 3
        ratio = ratio_to_proxy(row, rows)
        shown = "-" if ratio is None else f"{ratio:.2f}"
        cells = (WORKS[row.work].title, row.title, f"{median(row.cpu_us):.1f}", f"{lower:.1f} to {upper:.1f}", shown)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def broken_promises(rows: Sequence[Row]) -> list[str]:
    return _below(rows, lambda row: MIN_RATIO.get(row.work, 0.0), "promised")


def not_held(rows: Sequence[Row]) -> list[str]:
    """What the gateway shall reach and does not."""

    def aim(row: Row) -> float:
        return (AIMED_PREFIXED_RATIO if row.candidate == _PREFIXED.name else AIMED_RATIO).get(row.work, 0.0)

    return _below(rows, aim, "aimed at")


def _below(rows: Sequence[Row], bound: Callable[[Row], float], what: str) -> list[str]:
    found = []
    for row in rows:
        ratio = ratio_to_proxy(row, rows)
        if ratio is not None and row.candidate != _YARDSTICK and ratio < bound(row):
            found.append(f"{row.title}, {WORKS[row.work].title}: {ratio:.2f} of the proxy, {bound(row)} {what}")
    return found


# ---- the command


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = scaled_parser("--streams", __doc__, "the calls of a round")
    parser.add_argument("--works", type=some_of(WORKS), default=[*WORKS], help=f"comma-separated, of {', '.join(WORKS)}")
    parser.add_argument(
        "--only", type=some_of(_CANDIDATES), default=[*_CANDIDATES], help=f"comma-separated, of {', '.join(_CANDIDATES)}"
    )
    return parser.parse_args(arguments)


def main() -> int:
    return told(parse(), measure, table, broken_promises, not_held)


if __name__ == "__main__":
    sys.exit(main())
