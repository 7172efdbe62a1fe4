"""The fan-out benchmark: many clients follow a topic of one cell; what an idle one costs, how soon an event is with them all."""

from __future__ import annotations

import argparse
import resource
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

import attrs

from .bench_candidates import Candidate, Running, candidates
from .bench_clients import CLIENT_KINDS, Follow, Publisher
from .bench_command import machine, measured, positive_int, some_of, tell, verdict
from .bench_sockets import NotServed

_SETTLE_S = 1.0
_DELIVERY_TIMEOUT_S = 30.0
_PAUSE_S = 0.1
_WARM_UP_CLIENTS = 5
_GATEWAYS = ("embedded", "node1")

# What the gateway promises; for SSE clients the memory too.
MAX_IDLE_KB = {"sse": 25.0}
MAX_LAST_MS = 250.0
PROMISED_CLIENTS = 1_000


@attrs.frozen(kw_only=True)
class FanOut:
    """What was measured of one kind of clients on one gateway.

    clients:      how many there were, of all ways to follow together.
    idle_kb:      memory (PSS of all processes) that one more idle client costs.
    delays_ms:    of every client and event: from the sending of the event to its arrival.
    last_ms:      of every event: until the last client had it.
    """

    gateway: str
    kind: str
    title: str
    clients: int
    idle_kb: float
    delays_ms: list[float]
    last_ms: list[float]


def measure(gateway: Running, kind: str, client_count: int, event_count: int) -> FanOut:
    """client_count: of each way to follow that the kind has.

    Raises: NotServed, TimeoutError, OSError
    """
    title, ways = CLIENT_KINDS[kind]
    with ExitStack() as stack:
        publisher = stack.enter_context(closing(Publisher(gateway.port)))
        warm_up_count = min(_WARM_UP_CLIENTS, client_count)
        first = _connect(stack, ways, gateway.port, warm_up_count)
        deliver(publisher, first)
        time.sleep(_SETTLE_S)
        before = gateway.pss_bytes()
        others = _connect(stack, ways, gateway.port, client_count - warm_up_count)
        time.sleep(_SETTLE_S)
        idle_kb = (gateway.pss_bytes() - before) / max(1, len(others)) / 1_000
        delays_ms: list[float] = []
        last_ms: list[float] = []
        for _ in range(event_count):
            arrived_ms = deliver(publisher, [*first, *others])
            delays_ms += arrived_ms
            last_ms.append(max(arrived_ms))
            time.sleep(_PAUSE_S)
    return FanOut(
        gateway=gateway.candidate.title,
        kind=kind,
        title=title,
        clients=client_count * len(ways),
        idle_kb=idle_kb,
        delays_ms=delays_ms,
        last_ms=last_ms,
    )


def _connect(stack: ExitStack, ways: Sequence[Follow], port: int, count: int) -> list[socket.socket]:
    return [stack.enter_context(follow(port)) for _ in range(count) for follow in ways]


def deliver(publisher: Publisher, clients: Sequence[socket.socket]) -> list[float]:
    """Publish one event; milliseconds until each client had it. Everything else that arrives is read and dropped."""
    arrived_ms: list[float] = []
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        marker, sent_s = publisher.publish()
        while len(arrived_ms) < len(clients):
            if time.monotonic() > sent_s + _DELIVERY_TIMEOUT_S:
                raise TimeoutError(f"{len(clients) - len(arrived_ms)} of {len(clients)} clients did not get the event")
            for key, _ in selector.select(_DELIVERY_TIMEOUT_S):
                assert isinstance(key.fileobj, socket.socket)
                content = key.fileobj.recv(65_536)
                if not content:
                    raise NotServed("the gateway closed a connection")
                if marker in content:
                    arrived_ms.append((time.monotonic() - sent_s) * 1_000)
                    selector.unregister(key.fileobj)
    publisher.take_reply()
    return arrived_ms


# ---- pure: tables and verdicts


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(measured: Sequence[FanOut]) -> str:
    lines = [
        "| gateway | clients | of them | idle kB each | p50 ms | p99 ms | last client ms |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for each in measured:
        cells = (
            each.gateway,
            each.title,
            str(each.clients),
            f"{each.idle_kb:.1f}",
            f"{percentile(each.delays_ms, 0.5):.1f}",
            f"{percentile(each.delays_ms, 0.99):.1f}",
            f"{median(each.last_ms):.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def broken_promises(measured: Sequence[FanOut]) -> list[str]:
    """One line for each; the promises are for a thousand clients, so fewer are not judged by time."""
    broken = []
    for each in measured:
        name = f"{each.gateway}, {each.title}"
        if each.idle_kb >= (allowed_kb := MAX_IDLE_KB.get(each.kind, float("inf"))):
            broken.append(f"{name}: {each.idle_kb:.1f} kB for an idle connection, under {allowed_kb:g} promised")
        if each.clients >= PROMISED_CLIENTS and (last_ms := median(each.last_ms)) >= MAX_LAST_MS:
            broken.append(f"{name}: one event was with all {each.clients} after {last_ms:.0f} ms, under {MAX_LAST_MS:g} promised")
    return broken


# ---- the command


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench --fan-out", description=__doc__)
    parser.add_argument("--clients", type=positive_int, default=1_000, help="clients of each kind, each way (default 1000)")
    parser.add_argument("--events", type=positive_int, default=20, help="events that are published (default 20)")
    parser.add_argument(
        "--kinds", type=some_of(CLIENT_KINDS), default=[*CLIENT_KINDS], help=f"comma-separated, of {', '.join(CLIENT_KINDS)}"
    )
    parser.add_argument(
        "--only", type=some_of(_GATEWAYS), default=[*_GATEWAYS], help=f"comma-separated, of {', '.join(_GATEWAYS)}"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where a promise is broken")
    return parser.parse_args(arguments)


def measure_all(options: argparse.Namespace, scratch: Path) -> list[FanOut]:
    """A gateway of its own for each row, so that no kind of clients pays for what another has left in memory."""
    by_name: dict[str, Candidate] = {candidate.name: candidate for candidate in candidates()}
    rows = []
    with ExitStack() as stack:
        backend = Running(by_name["direct"], 0, scratch / "backend")
        stack.callback(backend.stop)
        for name in options.only:
            for kind in options.kinds:
                gateway = Running(by_name[name], backend.port, scratch / f"{name}-{kind}")
                try:
                    rows.append(measure(gateway, kind, options.clients, options.events))
                finally:
                    gateway.stop()
                tell(table(rows[-1:]).splitlines()[-1])
    return rows


def main() -> int:
    options = parse()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = measured(lambda scratch: measure_all(options, scratch))
    print(f"Machine: {machine()}; the clients run on it too. {options.events} events, one after the other.\n\n{table(rows)}")
    return verdict(broken_promises(rows), is_checked=options.check)


if __name__ == "__main__":
    sys.exit(main())
