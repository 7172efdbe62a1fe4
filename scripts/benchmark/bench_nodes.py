"""The benchmark of a cluster: calls and events with one node, two and three, joined by a NATS server; rounds are interleaved.

All of them share this machine's processors: what a call costs tells more than how many there are in a second. What nodes do by
themselves meanwhile is measured in each round, and taken off.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

import attrs

from .bench_candidates import CandidateFailed, Running, candidates, free_port, node_of_cluster
from .bench_clients import Publisher, follow_over_sse
from .bench_command import scaled_parser, tell, told
from .bench_fan_out import deliver, percentile
from .bench_load import Measurement, find_wrk, run_wrk

T = TypeVar("T")

COUNTS: Final = (1, 2, 3)
_CONNECTIONS: Final = 10
"""Of each node: what a turn of its loop finds to do at once is a part of what a call costs."""
_FOLLOWERS: Final = 300
"""Of all nodes together."""
_EVENTS: Final = 20
_SECONDS: Final = 5
_IDLE_S: Final = 5.0
_JOIN_TIMEOUT_S: Final = 60.0
_NATS: Final = Path(sys.executable).with_name("nats-server")
MAX_GROWTH: Final = 1.05
"""How many times what a call costs one node it may cost in a cluster of several."""


@attrs.frozen(kw_only=True)
class Cost:
    """Of one round. per_s: None where nothing was done as fast as it goes. latency_ms: p50 and p99, where one waits."""

    cpu_us: float
    per_s: float | None = None
    latency_ms: tuple[float, float] | None = None


@attrs.define(kw_only=True)
class Row:
    """One thing with so many nodes; costs: of each round."""

    work: str
    nodes: int
    costs: list[Cost] = attrs.field(factory=list)


class Cluster:
    """So many nodes of one cell, which know each other, and their NATS server. Raises: CandidateFailed.

    idle_share: of a processor, that all of them take when nobody asks for anything.
    """

    idle_share = 0.0

    def __init__(self, count: int, backend_port: int, folder: Path) -> None:
        folder.mkdir()
        key_file = folder / "cluster.key"
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        with ExitStack() as stack:
            nats_url = _start_nats(folder, stack)
            self.nodes: list[Running] = []
            for number in range(count):
                name = f"node-{number}"
                node = Running(node_of_cluster(name, nats_url, key_file), backend_port, folder / name)
                stack.callback(node.stop)
                self.nodes.append(node)
            deadline_s = time.monotonic() + _JOIN_TIMEOUT_S
            while not all(f"mcp_gateway_cluster_nodes {count}.0" in _metrics(node.port) for node in self.nodes):
                if time.monotonic() > deadline_s:
                    raise CandidateFailed(f"{count} nodes were no cluster after {_JOIN_TIMEOUT_S:g} s")
                time.sleep(0.1)
            self.stop = stack.pop_all().close

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self.nodes]

    def cpu_s(self) -> float:
        """Of its nodes; NATS is not the gateway's."""
        return sum(node.cpu_s() for node in self.nodes)

    def cpu_s_of(self, act: Callable[[], T]) -> tuple[T, float]:
        """What it gives, and what it takes beside what is done anyhow."""
        before_s, began_s = self.cpu_s(), time.monotonic()
        given = act()
        return given, max(0.0, self.cpu_s() - before_s - self.idle_share * (time.monotonic() - began_s))


def _start_nats(folder: Path, stack: ExitStack) -> str:
    """Its URL; it ends with the stack."""
    if not _NATS.exists():
        raise CandidateFailed(f"there is no {_NATS}; `./scripts/test` installs it")
    port = free_port()
    options = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "nats"), "-l", str(folder / "nats.log")]
    process = subprocess.Popen([str(_NATS), *options], start_new_session=True)
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline_s = time.monotonic() + _JOIN_TIMEOUT_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return f"nats://127.0.0.1:{port}"
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise CandidateFailed("nats-server does not listen") from None
            time.sleep(0.05)


def _metrics(port: int) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


# ---- what is done


def _nothing(cluster: Cluster, scale: float, scratch: Path) -> Cost:
    cluster.idle_share = 0.0
    _, cpu_s = cluster.cpu_s_of(lambda: time.sleep(_IDLE_S))
    cluster.idle_share = cpu_s / _IDLE_S
    return Cost(cpu_us=cluster.idle_share / len(cluster.nodes) * 1e6)


def _calls(cluster: Cluster, scale: float, scratch: Path, *, legacy: bool) -> Cost:
    """Each node has as many connections; sessions are used at another node than where they were opened."""
    count, seconds = len(cluster.nodes), max(1, int(_SECONDS * scale))
    folders = [scratch / f"{count}-{number}" for number in range(count)]
    for folder in folders:
        folder.mkdir(exist_ok=True)

    def load(number: int) -> Measurement:
        return run_wrk(
            cluster.ports[number],
            connections=_CONNECTIONS,
            seconds=seconds,
            legacy=legacy,
            scratch=folders[number],
            opened_at=cluster.ports[(number + 1) % count],
        )

    with ThreadPoolExecutor(count) as loads:
        runs, cpu_s = cluster.cpu_s_of(lambda: [*loads.map(load, range(count))])
    if failed := sum(run.failed for run in runs):
        raise CandidateFailed(f"{failed} calls failed with {count} nodes")
    requests = sum(run.requests for run in runs)
    p50_ms, p99_ms = (max(run.latency_ms[name] for run in runs) for name in ("p50", "p99"))
    per_s = sum(run.requests_per_second for run in runs)
    return Cost(cpu_us=cpu_s / requests * 1e6, per_s=per_s, latency_ms=(p50_ms, p99_ms))


def _events(cluster: Cluster, scale: float, scratch: Path) -> Cost:
    """Published at the first node, one after the other, and followed at all of them."""
    followers, events = max(3, int(_FOLLOWERS * scale)), max(2, int(_EVENTS * scale))
    with ExitStack() as stack:
        publisher = stack.enter_context(closing(Publisher(cluster.ports[0])))
        ports = [cluster.ports[number % len(cluster.ports)] for number in range(followers)]
        clients = [stack.enter_context(follow_over_sse(port)) for port in ports]
        deliver(publisher, clients)
        delays, cpu_s = cluster.cpu_s_of(lambda: [deliver(publisher, clients) for _ in range(events)])
    delays_ms = [*chain.from_iterable(delays)]
    latency_ms = percentile(delays_ms, 0.5), percentile(delays_ms, 0.99)
    return Cost(cpu_us=cpu_s / events / followers * 1e6, latency_ms=latency_ms)


@attrs.frozen(kw_only=True)
class Work:
    """act: does it with a cluster, scaled. most: how many times as much as one node it may cost several; 0: nobody says."""

    title: str
    act: Callable[[Cluster, float, Path], Cost]
    most: float = 0.0


WORKS: Final = {
    "nothing": Work(title="nothing, for a second, each node", act=_nothing),
    "stateless": Work(title="a stateless `tools/call`", act=lambda *given: _calls(*given, legacy=False), most=MAX_GROWTH),
    "session": Work(
        title="a `tools/call` in a session that another node has opened",
        act=lambda *given: _calls(*given, legacy=True),
        most=MAX_GROWTH,
    ),
    "event": Work(title="an event, for each follower", act=_events),
}


def measure(options: argparse.Namespace, scratch: Path) -> list[Row]:
    """Raises: CandidateFailed, WrongAnswer, NotServed, OSError, RuntimeError (of wrk)."""
    rows = {(work, count): Row(work=work, nodes=count) for work in WORKS for count in COUNTS}
    with ExitStack() as stack:
        backend = Running(candidates()[0], 0, scratch / "backend")
        stack.callback(backend.stop)
        clusters = {}
        for count in COUNTS:
            clusters[count] = Cluster(count, backend.port, scratch / f"cluster-{count}")
            stack.callback(clusters[count].stop)
        for round_number in range(options.rounds):
            for name, work in WORKS.items():
                # Whoever comes first differs from round to round, as in bench_run.
                for place in range(len(COUNTS)):
                    count = COUNTS[(place + round_number) % len(COUNTS)]
                    cost = work.act(clusters[count], options.scale, scratch)
                    rows[name, count].costs.append(cost)
                    tell(f"round {round_number + 1}/{options.rounds} {name:>9}, {count} nodes: {cost}")
    return [*rows.values()]


# ---- pure: table and verdicts


def growth_of(row: Row, rows: Sequence[Row]) -> float:
    """How many times as much it costs as with one node: the median of the rounds."""
    one = next(each for each in rows if (each.work, each.nodes) == (row.work, 1))
    return median(here.cpu_us / max(there.cpu_us, 1e-9) for here, there in zip(row.costs, one.costs, strict=True))


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| what | nodes | in a second | CPU us each | times one node | p50 ms | p99 ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = (
            WORKS[row.work].title,
            str(row.nodes),
            _median([cost.per_s for cost in row.costs], ",.0f"),
            f"{median(cost.cpu_us for cost in row.costs):.0f}",
            f"{growth_of(row, rows):.2f}",
            *(_median([cost.latency_ms and cost.latency_ms[place] for cost in row.costs], ".1f") for place in (0, 1)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _median(values: Iterable[float | None], shown_as: str) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):{shown_as}}".replace(",", " ") if known else "-"


def broken_promises(rows: Sequence[Row]) -> Iterable[str]:
    for row in rows:
        most, growth = WORKS[row.work].most, growth_of(row, rows)
        if most and growth > most:
            yield f"{WORKS[row.work].title}, {row.nodes} nodes: {growth:.2f} times as much as one, {most:g} promised"


# ---- the command


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    return scaled_parser("--nodes", __doc__, "the seconds of a load, of followers and events").parse_args(arguments)


def main() -> int:
    options = parse()
    find_wrk()
    return told(options, measure, table, broken_promises)


if __name__ == "__main__":
    sys.exit(main())
