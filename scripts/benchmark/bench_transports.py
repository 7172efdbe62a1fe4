"""The benchmark of transports: what one call costs, and how long one client waits for it, over each way to the gateway.

One embedded gateway for all clients, another one with a server of standard input and output; rounds are interleaved.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import attrs

from .bench_callers import Caller, HttpCaller, PhoenixCaller, SseCaller, WebSocketCaller
from .bench_candidates import Candidate, Running, candidates, over_stdio
from .bench_command import scaled_parser, some_of, tell, told

_CLIENTS: Final = 4
_CALLS: Final = 400
_ALONE: Final = 100
MAX_LATER_MS: Final = 1.0
"""By so much at most a call over Phoenix takes longer than one over our WebSocket."""


@attrs.frozen
class Way:
    """candidate: what the calls go to, by name. open: connects a client to the port."""

    title: str
    candidate: str
    open: Callable[[int], Caller]


_stateless = functools.partial(HttpCaller, is_legacy=False)
WAYS: Final = {
    "http": Way("Streamable HTTP, stateless", "embedded", _stateless),
    "sessions": Way("Streamable HTTP, with a session", "embedded", functools.partial(HttpCaller, is_legacy=True)),
    "sse": Way("HTTP+SSE", "embedded", SseCaller),
    "websocket": Way("WebSocket", "embedded", WebSocketCaller),
    "phoenix": Way("Phoenix channel", "embedded", PhoenixCaller),
    "stdio": Way("Streamable HTTP to a stdio server, with that server", "stdio", _stateless),
}
_CANDIDATES: Final[dict[str, Candidate]] = {each.name: each for each in (*candidates(), over_stdio())}


@attrs.define
class Row:
    """One way, a value for each round. alone_ms: the median of one client's calls, while nobody else calls."""

    way: str
    cpu_us: list[float] = attrs.field(factory=list)
    alone_ms: list[float] = attrs.field(factory=list)


def measure(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """Raises: CandidateFailed, NotServed, WrongAnswer, OSError, http.client.HTTPException."""
    rows = [Row(name) for name in options.only]
    with ExitStack() as stack:
        backend = Running(_CANDIDATES["direct"], 0, scratch / "backend")
        stack.callback(backend.stop)
        running = {}
        for name in dict.fromkeys(WAYS[row.way].candidate for row in rows):
            running[name] = Running(_CANDIDATES[name], backend.port, scratch / name)
            stack.callback(running[name].stop)
        for round_number in range(options.rounds):
            for row in rows if round_number % 2 == 0 else reversed(rows):
                way = WAYS[row.way]
                _measure_once(row, way, running[way.candidate], options.scale)
                text = f"{row.cpu_us[-1]:.0f} us a call, {row.alone_ms[-1]:.2f} ms alone"
                tell(f"round {round_number + 1}/{options.rounds} {row.way:>9}: {text}")
    return rows


def _measure_once(row: Row, way: Way, gateway: Running, scale: float) -> None:
    calls = max(1, int(_CALLS * scale))
    with _connected(way, gateway.port) as clients, ThreadPoolExecutor(_CLIENTS) as pool:
        for client in clients:
            client.call()
        cpu_s = gateway.cpu_s()
        for each in [pool.submit(_call_each, client, calls) for client in clients]:
            each.result()
        row.cpu_us.append((gateway.cpu_s() - cpu_s) / (calls * _CLIENTS) * 1e6)
        row.alone_ms.append(median(_call_each(clients[0], max(1, int(_ALONE * scale)))) * 1e3)


@contextmanager
def _connected(way: Way, port: int) -> Iterator[list[Caller]]:
    with ExitStack() as stack:
        clients = []
        for _ in range(_CLIENTS):
            clients.append(way.open(port))
            stack.callback(clients[-1].close)
        yield clients


def _call_each(client: Caller, times: int) -> list[float]:
    """How long each call took, in seconds."""
    took_s = []
    for _ in range(times):
        began_s = time.monotonic()
        client.call()
        took_s.append(time.monotonic() - began_s)
    return took_s


# ---- pure: table and verdict


def table(rows: Sequence[Row]) -> str:
    lines = ["| clients over | CPU us a call | quartiles | one client waits ms |", "|---|---:|---:|---:|"]
    for row in rows:
        lower, _, upper = quantiles(row.cpu_us, n=4) if len(row.cpu_us) > 1 else row.cpu_us * 3
        cells = (WAYS[row.way].title, f"{median(row.cpu_us):.0f}", f"{lower:.0f} to {upper:.0f}", f"{median(row.alone_ms):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def broken_promises(rows: Sequence[Row]) -> list[str]:
    alone_ms = {row.way: median(row.alone_ms) for row in rows}
    if not {"phoenix", "websocket"} <= alone_ms.keys():
        return []
    later_ms = alone_ms["phoenix"] - alone_ms["websocket"]
    return [f"Phoenix: {later_ms:.1f} ms later than WebSocket, {MAX_LATER_MS:g} promised"] if later_ms > MAX_LATER_MS else []


# ---- the command


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = scaled_parser("--transports", __doc__, "the calls of a round")
    parser.add_argument("--only", type=some_of(WAYS), default=[*WAYS], help=f"comma-separated, of {', '.join(WAYS)}")
    return parser.parse_args(arguments)


def main() -> int:
    return told(parse(), measure, table, broken_promises)


if __name__ == "__main__":
    sys.exit(main())
