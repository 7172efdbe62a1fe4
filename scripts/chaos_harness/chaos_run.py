"""`scripts/chaos`: a gateway under load and faults, judged all the time; ends with 1 where an invariant is broken."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from .chaos_report import Summary, as_json, as_markdown, summary
from .clients import CallingClient
from .cluster_acts import ClusterActs
from .cluster_under_test import NODES, ClusterUnderTest
from .fault_acts import FaultActs
from .fault_kinds import CLUSTER, EMBEDDED, NODE
from .followers import ChannelFollower, EventSourceFollower, Follower
from .gateway_under_test import PRODUCT, GatewayFailed, GatewayUnderTest
from .history import Following, History, Ran
from .history import as_json as record_as_json
from .http_clients import (
    EventStreamClient,
    MovingParkingClient,
    MovingSessionClient,
    MovingTaskClient,
    ParkingClient,
    SessionClient,
    StatelessClient,
    TaskClient,
)
from .invariants import Broken, check, excuses, unseen, what_was_taken_is_given_back
from .namespaces import machines
from .recorder import Recorder
from .report_folder import FolderUnusable, made_folder
from .scenario import Scenario, ScenarioInvalid, read_scenario
from .schedule import plan
from .servers import ServerFailed, Servers
from .socket_clients import PhoenixClient, WebSocketClient, keep_publishing
from .timeline import draw
from .tool_server import runs_path

CALLERS: Final[dict[str, type[CallingClient]]] = {
    "session": SessionClient,
    "stateless": StatelessClient,
    "parking": ParkingClient,
    "task": TaskClient,
    "sse": EventStreamClient,
    "websocket": WebSocketClient,
    "phoenix": PhoenixClient,
}
MOVING: Final[dict[str, type[CallingClient]]] = {
    "moving-session": MovingSessionClient,
    "parking": MovingParkingClient,
    "task": MovingTaskClient,
}
"""What clients of a cluster do as well, or instead: each request may reach another node."""
FOLLOWERS: Final[dict[str, type[Follower]]] = {"topic-stream": EventSourceFollower, "topic-channel": ChannelFollower}
WARM_UP_S: Final = 3.0
REST_S: Final = 6.0
"""Without new faults before the end: what clients read then counts."""
CHECK_S: Final = 5.0
SETTLE_S: Final = 25.0
"""For the last fault to be recovered from, for events that are on their way, and for what was taken to be given back."""
EXIT_BROKEN, EXIT_FAILED = 1, 2


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class RunsReader:
    """What the servers have written down, as far as it is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def new(self) -> Iterator[Ran]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read_bytes += len(line)
                yield Ran(**json.loads(line))


class ChaosRun:
    """One run of one scenario. command: what starts the gateway."""

    def __init__(self, scenario: Scenario, folder: Path, command: Sequence[str] = PRODUCT) -> None:
        self._scenario = scenario
        self._folder = folder
        self.recorder = Recorder(History(scenario.patience, scenario.recovers_s))
        self._machines = machines(len(NODES)) if scenario.form == CLUSTER else None
        self._servers = Servers(folder, "" if self._machines is None else self._machines.host)
        self._gateway = self._under_test(command)
        self._runs = RunsReader(runs_path(folder))
        self._told: set[tuple[str, float]] = set()
        self._tasks: list[asyncio.Task[Any]] = []

    def _under_test(self, command: Sequence[str]) -> GatewayUnderTest | ClusterUnderTest:
        addresses = self._servers.addresses
        if self._scenario.form == CLUSTER:
            return ClusterUnderTest(self._folder, addresses, command, self._machines)
        return GatewayUnderTest(self._folder, self._scenario.form, self._scenario.cells, addresses, command)

    def _callers(self) -> dict[str, type[CallingClient]]:
        return CALLERS | MOVING if isinstance(self._gateway, ClusterUnderTest) else CALLERS

    def _followers(self) -> list[Follower]:
        """Where there are several nodes, one at each and one that goes from node to node."""
        url = self._gateway.url
        if isinstance(self._gateway, ClusterUnderTest):
            at_nodes = [EventSourceFollower(node.url, name, self.recorder) for name, node in self._gateway.nodes.items()]
            return [*at_nodes, ChannelFollower(url, "moving", self.recorder)]
        return [kind(url, name, self.recorder) for name, kind in FOLLOWERS.items()]

    def _publish_at(self) -> list[str]:
        """At each node: what one keeps while it is cut off comes after what the others have published meanwhile."""
        if isinstance(self._gateway, ClusterUnderTest):
            return [node.url for node in self._gateway.nodes.values()]
        return [self._gateway.url]

    def _acts(self) -> FaultActs | ClusterActs:
        if isinstance(self._gateway, ClusterUnderTest):
            return ClusterActs(self._gateway, self.recorder)
        return FaultActs(self._gateway, self._servers, self.recorder)

    async def run(self) -> Summary:
        """Raises: GatewayFailed, ServerFailed"""
        try:
            self._servers.start_all()
            await self._gateway.start()
            began_s = time.monotonic()
            await self._load_and_break()
            self.recorder.add(await self._gateway.stop())
            return self._judge(began_s)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._gateway.kill()
            self._servers.stop_all()
            if self._machines is not None:
                self._machines.remove()

    # ---- the run

    async def _load_and_break(self) -> None:
        stop = asyncio.Event()
        followers = self._followers()
        follow = [self._spawn(each.keep_following()) for each in followers]
        calls = [
            self._spawn(kind(self._gateway.url, f"{name}-{number}", self.recorder, self._scenario.pause_s).keep_calling(stop))
            for name, kind in self._callers().items()
            for number in range(self._scenario.clients)
        ]
        urls = self._publish_at()
        for place, url in enumerate(urls, start=1):
            numbers = itertools.count(place, len(urls))
            calls.append(self._spawn(keep_publishing(url, self.recorder, stop, self._scenario.pause_s, numbers)))
        await asyncio.sleep(WARM_UP_S)
        for task in (*calls, *follow):
            if task.done():
                task.result()
        if len(self.recorder.history.of(Following)) < len(followers):
            raise GatewayFailed("the followers have seen nothing of what was published during the warm-up")
        await self._weigh()
        checking = self._spawn(self._keep_checking())
        faults = await self._break()
        stop.set()
        await asyncio.gather(*calls)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S * self._scenario.patience):
                await asyncio.gather(*faults)
                await self._until_quiet()
        checking.cancel()
        for task in (*follow, *faults):
            task.cancel()

    async def _break(self) -> list[asyncio.Task[None]]:
        scenario = self._scenario
        acts = self._acts()
        kinds = scenario.kinds(is_root=os.geteuid() == 0, has_namespaces=self._servers.namespace is not None)
        faults = plan(
            random.Random(scenario.seed),
            scenario.seconds,
            kinds,
            self._gateway.cells,
            each_s=scenario.each_s,
            warm_up_s=WARM_UP_S,
            rest_s=REST_S,
        )
        began_s = time.monotonic() - WARM_UP_S
        running = []
        for planned in faults:
            await asyncio.sleep(max(0.0, began_s + planned.at_s - time.monotonic()))
            _tell(f"{planned.at_s:6.1f} s  {planned.kind.name}: {planned.target}, {planned.lasts_s:.1f} s")
            running.append(self._spawn(acts.carry_out(planned)))
        await asyncio.sleep(max(0.0, began_s + scenario.seconds - time.monotonic()))
        return running

    async def _weigh(self) -> None:
        """In a thread: the memory of many processes takes its time, and clients must not wait for it."""
        self.recorder.add(await asyncio.to_thread(self._gateway.weigh))

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.append(task)
        return task

    async def _until_quiet(self) -> None:
        """All that was acknowledged is read, and what was taken is given back."""
        while True:
            await asyncio.sleep(1)
            await self._weigh()
            history, now_s = self.recorder.history, time.monotonic()
            if not any(unseen(history, now_s)) and not any(what_was_taken_is_given_back(history, now_s)):
                return

    # ---- judgement

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self._weigh()
            for broken in self._broken(is_over=False):
                if (broken.invariant, broken.at_s) not in self._told:
                    self._told.add((broken.invariant, broken.at_s))
                    _tell(f"BROKEN  {broken.invariant}: {broken.text}")

    def _broken(self, *, is_over: bool) -> list[Broken]:
        for ran in self._runs.new():
            self.recorder.add(ran)
        return check(self.recorder.history, time.monotonic(), is_over=is_over)

    def _judge(self, began_s: float) -> Summary:
        broken = self._broken(is_over=True)
        history = self.recorder.history
        form = f"a node of {self._scenario.cells} cells" if self._scenario.form == NODE else self._scenario.form
        links = "" if self._machines is None else ", in network namespaces"
        title = f"Chaos: {form}{links}, seed {self._scenario.seed}"
        known = excuses(history, time.monotonic())
        (self._folder / "timeline.svg").write_text(draw(history, began_s, time.monotonic()))
        with (self._folder / "history.jsonl").open("w") as file:
            for record in history:
                file.write(json.dumps(record_as_json(record)) + "\n")
        return summary(title, history, time.monotonic() - began_s, known, broken)


def run_scenario(scenario: Scenario, folder: Path, command: Sequence[str] = PRODUCT) -> Summary:
    """Run it, and write `report.md`, `report.json`, `timeline.svg`, `history.jsonl` and `gateway.log` into the folder.

    Raises: GatewayFailed, ServerFailed
    """

    async def run() -> Summary:
        return await ChaosRun(scenario, folder, command).run()

    found = asyncio.run(run())
    (folder / "report.md").write_text(as_markdown(found) + "\n![timeline](timeline.svg)\n")
    (folder / "report.json").write_text(json.dumps(as_json(found), indent=1) + "\n")
    return found


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, help="of load and faults (default 60)")
    parser.add_argument("--seed", type=int, help="the same faults again (default 1)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--embedded", action="store_true", help="one cell in one process")
    form.add_argument("--cluster", action="store_true", help="three nodes, on three NATS servers, behind a TCP balancer")
    form.add_argument("--cells", type=int, help="a node of so many cells (default 2)")
    parser.add_argument("--patience", type=float, metavar="N", help="allow N times the time to recover: on a busy machine")
    parser.add_argument("--scenario", type=Path, metavar="F.toml", help=f"any of {', '.join(attrs.fields_dict(Scenario))}")
    parser.add_argument("--report", type=Path, metavar="DIR", help="for report, timeline and history (default: a new folder)")
    parser.add_argument("--gateway", metavar="COMMAND", help="another gateway than this one: what `serve` is put behind")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    given = {
        "seconds": options.seconds,
        "seed": options.seed,
        "cells": options.cells,
        "patience": options.patience,
        "form": EMBEDDED if options.embedded else CLUSTER if options.cluster else NODE if options.cells else None,
    }
    try:
        scenario = read_scenario(options.scenario, given)
        folder = made_folder(options.report, "mcp-gateway-chaos-")
        found = run_scenario(scenario, folder, shlex.split(options.gateway) if options.gateway else PRODUCT)
    except (ScenarioInvalid, FolderUnusable, GatewayFailed, ServerFailed) as error:
        _tell(f"chaos: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    print(as_markdown(found))
    print(f"timeline, history and log: {folder}")
    return EXIT_BROKEN if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
