"""The viability monitor between metrics that the test writes and a link that keeps what it tells."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from prometheus_client.samples import Sample

from mcp_gateway.actors.messages.events import EventPublished, Subscribe
from mcp_gateway.actors.messages.lifecycle import ActorCrashed
from mcp_gateway.actors.messages.status import StatusRequested, ViabilityRequested
from mcp_gateway.actors.messages.topology import GatewayWired, Topology
from mcp_gateway.actors.viability.viability_monitor import TIMELINE_LENGTH, ViabilityArguments, ViabilityMonitor
from mcp_gateway.transports.telemetry.metric_reader import MetricsUnreadable
from tests.doubles.actor_stage import Stage
from tests.doubles.running_cell import RecordingLink, cell_settings

ONE, TWO = "http://127.0.0.1:3001/mcp", "http://127.0.0.1:3002/mcp"


class Link(RecordingLink):
    """Keeps what is published and hands nothing back."""

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        self.events.append(self._log.append(topic, payload, timestamp_ms))


class Bench:
    """A monitor of a node with one backend of two replicas. values: {(metric, label values in order): value}."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, judges: bool = True) -> None:
        self.stage = Stage()
        self.stage.take_over_time(monkeypatch)
        self.link = Link()
        self.bus = self.stage.peer()
        self.samples: list[Sample] = []
        self.health = {ONE: 2.0, TWO: 2.0}
        self.ok = self.failed = self.reads = 0
        self.fails: Exception | None = None
        self.reading: Callable[[], object] = lambda: None  # what reading does besides
        settings = cell_settings([{"name": "files", "replicas": [ONE, TWO]}])
        arguments = ViabilityArguments(settings=settings, link=self.link, judges=judges, read=self._read)
        self.monitor = self.stage.start(ViabilityMonitor, {}, arguments, name="cell/0/viability-monitor")
        wired = GatewayWired(addresses={"event-bus": self.bus.address}, incarnations={"event-bus": 1})
        self.stage.tell(self.monitor, wired, Topology(backends=settings.backends, routes=()))

    def _read(self) -> list[Sample]:
        self.reads += 1
        self.reading()
        if self.fails is not None:
            raise self.fails

        def of(name: str, value: float, **labels: str) -> Sample:
            return Sample(f"mcp_gateway_{name}", labels, value)

        common = {"transport": "http_sse", "method": "tools/call", "backend": "files"}
        return [
            of("requests_total", self.ok, **common, outcome="ok"),
            of("requests_total", self.failed, **common, outcome="upstream_failed"),
            *(of("health_status", value, component=f"files/{replica}") for replica, value in self.health.items()),
        ]

    async def second(self) -> None:
        """One sample, taken in and judged."""
        self.stage.advance(1.0)
        await asyncio.wait([self.stage.instance(self.monitor)._reading])

    def told(self) -> list[tuple[str, str]]:
        """(kind, source) of the signals since the last look."""
        found = [(event.topic.removeprefix("vsm.algedonic."), event.payload["source"]) for event in self.link.events]
        self.link.events.clear()
        return found

    def event(self, topic: str, payload: Mapping[str, Any], timestamp_ms: int) -> None:
        self.stage.tell(self.monitor, EventPublished(event_id=1, topic=topic, payload=payload, timestamp_ms=timestamp_ms))

    @property
    def report(self) -> dict[str, Any]:
        return dict(self.stage.ask(self.monitor, ViabilityRequested("v")).report)


def on_bench(body: Callable[[Bench], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    async def run() -> None:
        bench = Bench(monkeypatch, **options)
        gc.disable()  # a collection in the reading thread would count as what the reading costs
        try:
            await body(bench)
        finally:
            gc.enable()
            bench.stage.instance(bench.monitor).on_exit()

    asyncio.run(run())


def test_what_hurts_is_told_past_the_event_bus_and_relief_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        for _ in range(3):
            bench.ok += 10
            await bench.second()
        assert bench.told() == []
        bench.failed += 20
        await bench.second()
        assert bench.told() == [("pain", "errors/files")]
        for _ in range(15):
            bench.ok += 10
            await bench.second()
        assert bench.told() == [("pleasure", "errors/files")]

    on_bench(body, monkeypatch)


def test_a_signal_says_how_much_why_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        await bench.second()
        bench.health[ONE] = 0.0
        monkeypatch.setattr("mcp_gateway.actors.viability.viability_monitor.time.time", lambda: 1_800_000_000.0)
        await bench.second()
        (event,) = bench.link.events
        assert event.topic == "vsm.algedonic.pain"
        assert event.payload == {
            "source": "connections/files",
            "intensity": 0.5,
            "reason": "1 of 2 replicas down",
            "since": 1_800_000_000_000,
        }

    on_bench(body, monkeypatch)


def test_a_node_that_serves_nothing_is_an_emergency(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.health = {ONE: 0.0, TWO: 0.0}
        await bench.second()
        assert bench.told()[0] == ("emergency", "viability")
        status = bench.stage.ask(bench.monitor, StatusRequested("s")).status
        assert status["status"] == "failing"
        assert {system["key"]: system["status"] for system in status["systems"]}["S5"] == "failing"

    on_bench(body, monkeypatch)


def test_restarts_are_counted_from_events_of_the_last_minute_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log hands a cell that starts the events of before, those of yesterday included."""

    async def body(bench: Bench) -> None:
        now_s = 1_800_000_000.0
        monkeypatch.setattr("mcp_gateway.actors.viability.viability_monitor.time.time", lambda: now_s)
        bench.event("mcp.supervisor.restarted", {"child": "cell/0"}, int((now_s - 86_400) * 1000))
        await bench.second()
        assert bench.told() == []
        bench.event("mcp.supervisor.restarted", {"child": "cell/0"}, int(now_s * 1000))
        await bench.second()
        assert bench.told() == [("pain", "restarts")]

    on_bench(body, monkeypatch)


def test_the_timeline_is_what_the_log_says_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        await bench.second()
        for number in range(TIMELINE_LENGTH + 50):
            bench.event("vsm.algedonic.pain", {"source": f"x{number}", "intensity": 0.5, "reason": "r", "since": 1}, number)
        timeline = bench.report["timeline"]
        assert len(timeline) == TIMELINE_LENGTH
        assert timeline[-1] == {
            "id": 1, "at": TIMELINE_LENGTH + 49, "kind": "pain", "source": f"x{TIMELINE_LENGTH + 49}",
            "intensity": 0.5, "reason": "r", "since": 1,
        }  # fmt: skip

    on_bench(body, monkeypatch)


def test_metrics_that_cannot_be_read_cost_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        await bench.second()
        bench.fails = MetricsUnreadable("no")
        await bench.second()
        bench.fails = None
        bench.health[ONE] = 0.0
        await bench.second()
        assert bench.told() == [("pain", "connections/files")]

    on_bench(body, monkeypatch)


def test_a_reading_that_waits_for_its_turn_is_not_one_that_costs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.reading = lambda: time.sleep(0.06)  # three seconds of pause, were it work
        for expected in (1, 2, 3):
            await bench.second()
            assert bench.reads == expected

    on_bench(body, monkeypatch)


def test_a_reading_that_costs_much_is_made_less_often_but_not_too_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        until_s = time.thread_time() + 0.3  # 15 seconds of pause, were there no end to it
        while time.thread_time() < until_s:
            pass

    async def body(bench: Bench) -> None:
        bench.reading = work
        await bench.second()
        bench.stage.advance(4.9)
        assert bench.reads == 1
        bench.stage.advance(0.2)
        await bench.stage.instance(bench.monitor)._reading
        assert bench.reads == 2

    on_bench(body, monkeypatch)


def test_a_defect_in_reading_ends_the_actor_for_its_supervisor_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        bench.fails = KeyError("defect")
        await bench.second()
        assert not bench.stage.is_alive(bench.monitor)
        (crashed,) = bench.stage.supervisor.of(ActorCrashed)
        assert crashed.error_text == "KeyError: 'defect'"

    asyncio.run(body())


def test_only_one_cell_of_a_node_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.stage.advance(60.0)
        assert bench.bus.of(Subscribe) == []
        assert bench.report == {}
        assert bench.stage.ask(bench.monitor, StatusRequested("s")).status == {}

    on_bench(body, monkeypatch, judges=False)


def test_the_report_has_a_series_for_each_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        for _ in range(5):
            bench.ok += 7
            await bench.second()
        files = bench.report["backends"]["files"]
        assert files["series"]["requests_per_s"][1:] == pytest.approx([7.0] * 4)
        assert {len(values) for values in files["series"].values()} == {5}
        assert [system["key"] for system in bench.report["systems"]] == ["S1", "S2", "S3", "S3*", "S4", "S5"]

    on_bench(body, monkeypatch)
