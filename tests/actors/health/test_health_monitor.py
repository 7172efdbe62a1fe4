"""The health monitor between components and an upstream that the test plays: verdicts, ejections, reports, rounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.health.health_monitor import HealthMonitor, HealthMonitorArguments
from mcp_gateway.actors.health.resource_meter import ResourceMeter
from mcp_gateway.actors.health.resource_rules import ResourceUse
from mcp_gateway.actors.messages.events import EventPublished, PublishEvent, Subscribe
from mcp_gateway.actors.messages.health import (
    ComponentProbed,
    HealthReported,
    HealthRequested,
    ProbeComponent,
    ProbeReplicas,
    ReplicaEjected,
    ReplicaProbed,
    ReplicaRestored,
)
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.config.backend_settings import LeftOutServer
from mcp_gateway.transports.ports.replica_id import ReplicaId
from tests.doubles.actor_stage import Peer, Stage
from tests.doubles.running_cell import cell_settings

ONE, TWO = "http://127.0.0.1:3001/mcp", "http://127.0.0.1:3002/mcp"
COMPONENTS = ("event-bus", "transport-registry", "connection-pool", "router")
INTERVAL_S = 5.0


class Bench:
    """A monitor whose components answer when `round` says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, probes_replicas: bool = True, cells: int = 1) -> None:
        self.stage = Stage()
        self.stage.take_over_time(monkeypatch)
        gateway = {"health_check_interval": INTERVAL_S, "cells": cells}
        self.settings = cell_settings([{"name": "files", "replicas": [ONE, TWO]}], gateway=gateway)
        self.peers: dict[str, Peer] = {name: self.stage.peer() for name in COMPONENTS}
        arguments = HealthMonitorArguments(settings=self.settings, probes_replicas=probes_replicas)
        self.monitor = self.stage.start(HealthMonitor, self.peers, arguments, name="cell/0/health-monitor")
        self.first_mail = {name: list(peer.received) for name, peer in self.peers.items()}
        self._forget()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.verdicts: list[object] = []

    def _forget(self) -> None:
        for peer in self.peers.values():
            peer.received.clear()

    def round(self, *, silent: tuple[str, ...] = (), problems: dict[str, str] | None = None, **replicas: str) -> None:
        """The next round: components answer, but for the silent ones; one="broken" is the problem of replica ONE."""
        self._forget()
        self.stage.advance(INTERVAL_S)
        for name, peer in self.peers.items():
            (probe,) = peer.of(ProbeComponent)
            if name not in silent:
                peer.say(self.monitor, ComponentProbed(probe.request_id, name, (problems or {}).get(name, "")))
        for name, problem in replicas.items():
            self.probed({"one": ONE, "two": TWO}[name], problem)
        self.note()

    def probed(
        self,
        replica: str,
        problem: str,
        backend: str = "files",
        retry_after_s: float | None = None,
        *,
        is_starting: bool = False,
        is_certain: bool = False,
    ) -> None:
        message = ReplicaProbed(
            request_id="p",
            replica=ReplicaId(backend, replica),
            problem=problem,
            is_starting=is_starting,
            is_certain=is_certain,
            elapsed_s=0.1,
            retry_after_s=retry_after_s,
        )
        self.stage.tell(self.monitor, message)

    def note(self) -> None:
        """Take down what was published and what the router was told."""
        self.events += [(event.topic, dict(event.payload)) for event in self.peers["event-bus"].of(PublishEvent)]
        router = self.peers["router"].received
        self.verdicts += [each for each in router if isinstance(each, (ReplicaEjected, ReplicaRestored))]
        self._forget()

    def topics(self) -> list[str]:
        """What was published since the last look."""
        topics = [topic for topic, _ in self.events]
        self.events.clear()
        return topics

    def take_verdicts(self) -> list[object]:
        verdicts, self.verdicts = self.verdicts, []
        return verdicts

    @property
    def health(self) -> HealthReported:
        reported: HealthReported = self.stage.ask(self.monitor, HealthRequested("h"))
        return reported

    @property
    def components(self) -> dict[str, dict[str, str]]:
        """{component: {"status", "reason"?}}, less the resources of the machine that the test happens to run on."""
        return {
            name: {key: value for key, value in health.items() if key != "since"}
            for name, health in self.health.components.items()
            if name not in ("memory", "cpu", "event-loop")
        }


def on_loop(test: Callable[[], None]) -> None:
    async def body() -> None:
        test()

    asyncio.run(body())


def test_each_round_asks_every_component_and_every_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.stage.advance(0.1)  # the first round does not wait for the interval
        for name, peer in bench.peers.items():
            assert len(peer.of(ProbeComponent)) == 1, name
        probe = bench.peers["connection-pool"].of(ProbeReplicas)[0]
        assert (probe.timeout_s, probe.asker) == (5.0, bench.monitor)
        bench._forget()
        bench.stage.advance(INTERVAL_S * 3)
        assert [len(peer.of(ProbeComponent)) for peer in bench.peers.values()] == [3, 3, 3, 3]
        rounds = [probe.request_id for probe in bench.peers["connection-pool"].of(ProbeReplicas)]
        assert len(set(rounds)) == 3

    on_loop(test)


def test_all_is_healthy_when_all_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.round(one="", two="")
        bench.round(one="", two="")
        report = bench.health
        assert (report.request_id, report.status) == ("h", "healthy")
        assert bench.components == {
            name: {"status": "healthy"} for name in (*COMPONENTS, "backends", f"files/{ONE}", f"files/{TWO}")
        }
        assert bench.topics() == []
        assert bench.stage.ask(bench.monitor, StatusRequested("s")).status == {"status": "healthy"}

    on_loop(test)


def test_a_component_that_does_not_answer_is_degraded_then_unhealthy_and_recovers_by_rise_and_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Source: HAProxy manual, `rise 2 fall 3`."""

    def test() -> None:
        bench = Bench(monkeypatch)
        bench.round(one="", two="", silent=("router",))
        assert bench.health.status == "healthy"  # it has the whole interval to answer
        for _ in range(2):
            bench.round(one="", two="", silent=("router",))
            assert bench.components["router"] == {"status": "degraded", "reason": "does not answer"}
        bench.round(one="", two="", silent=("router",))
        assert bench.components["router"] == {"status": "unhealthy", "reason": "does not answer"}
        assert bench.health.status == "unhealthy"
        bench.topics()
        bench.round(one="", two="")  # the round before this one was not answered either
        assert bench.components["router"]["status"] == "unhealthy"
        bench.round(one="", two="")
        assert bench.components["router"] == {"status": "healthy"}
        assert bench.topics() == ["mcp.health.recovered", "mcp.health.recovered"]

    on_loop(test)


def test_each_status_says_since_when_and_the_history_keeps_the_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        monkeypatch.setattr("mcp_gateway.actors.health.health_monitor.time.time", lambda: 1_800_000_000.0 + bench.stage.now_s)
        bench.round(one="", two="")
        began = bench.health.components["router"]["since"]
        bench.round(one="", two="", problems={"router": "no backend"})
        bench.round(one="", two="", problems={"router": "no backend"})
        router = bench.health.components["router"]
        assert router["since"] > began
        changes = [(each["component"], each["was"], each["status"], each["reason"]) for each in bench.health.history]
        assert changes == [
            ("router", "healthy", "degraded", "no backend"),
            ("overall", "healthy", "degraded", "router: no backend"),
        ]
        assert bench.health.history[0]["at"] == router["since"]

    on_loop(test)


def test_a_resource_that_is_short_degrades_after_three_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        def usage(self: ResourceMeter, lag_s: float) -> ResourceUse:
            return ResourceUse(memory_bytes=90, limit_bytes=100, available_bytes=10, total_bytes=100, cpu_share=0.1, lag_s=lag_s)

        monkeypatch.setattr(ResourceMeter, "read", usage)
        bench = Bench(monkeypatch)
        for _ in range(2):
            bench.round(one="", two="")
        assert bench.health.status == "healthy"
        bench.round(one="", two="")
        assert bench.health.components["memory"]["status"] == "degraded"
        assert bench.health.components["event-loop"]["status"] == "healthy"
        assert bench.health.status == "degraded"

    on_loop(test)


def test_a_component_with_a_problem_degrades_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.round(one="", two="", problems={"connection-pool": "calls wait"})
        assert bench.health.status == "degraded"
        assert bench.components["connection-pool"] == {"status": "degraded", "reason": "calls wait"}
        payload = {"component": "connection-pool", "status": "degraded", "was": "healthy", "reason": "calls wait"}
        assert bench.events[0] == ("mcp.health.degraded", payload)
        assert bench.events[1][1]["component"] == "overall"
        bench.round(one="", two="")
        assert bench.health.status == "healthy"

    on_loop(test)


def test_a_replica_is_ejected_at_the_third_failure_and_restored_at_the_second_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source: HAProxy manual, `rise 2 fall 3`."""

    def test() -> None:
        bench = Bench(monkeypatch)
        bench.round(one="", two="")
        bench.take_verdicts()
        about = {"backend": "files", "replica": ONE}
        for _ in range(2):
            bench.round(one="refused", two="")
            assert bench.take_verdicts() == []
            assert bench.components[f"files/{ONE}"] == {"status": "degraded", "reason": "refused"}
        bench.events.clear()
        bench.round(one="refused", two="")
        assert bench.take_verdicts() == [ReplicaEjected(ReplicaId("files", ONE), "refused")]
        assert ("mcp.replica.ejected", {**about, "reason": "refused"}) in bench.events
        assert bench.components[f"files/{ONE}"]["status"] == "unhealthy"
        assert bench.health.status == "degraded"  # one of two still serves
        bench.events.clear()
        bench.round(one="", two="")
        assert bench.take_verdicts() == []
        bench.round(one="", two="")
        assert bench.take_verdicts() == [ReplicaRestored(ReplicaId("files", ONE))]
        assert ("mcp.replica.restored", {**about, "reason": ""}) in bench.events
        assert bench.health.status == "healthy"

    on_loop(test)


def test_a_replica_that_is_starting_is_degraded_however_long_and_keeps_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.round(one="", two="gone")
        # 1. Of neither does it turn the verdict, nor end the failures before it.
        for seconds in range(10):
            bench.probed(ONE, f"starting since {seconds} s", is_starting=True)
            bench.probed(TWO, f"starting since {seconds} s", is_starting=True)
        for replica in (ONE, TWO):
            assert bench.components[f"files/{replica}"] == {"status": "degraded", "reason": "starting since 9 s"}
        assert bench.components["backends"] == {"status": "healthy"}
        bench.note()
        assert not [each for each in bench.take_verdicts() if isinstance(each, ReplicaEjected)]
        # 2. What it says or does afterwards does.
        for _ in range(2):
            bench.probed(TWO, "gone")
        bench.probed(ONE, "")
        assert [bench.components[f"files/{replica}"]["status"] for replica in (ONE, TWO)] == ["healthy", "unhealthy"]
        # 3. One that was ejected is not taken back because it is started again.
        bench.probed(TWO, "starting since 0 s", is_starting=True)
        assert bench.components[f"files/{TWO}"] == {"status": "unhealthy", "reason": "starting since 0 s"}

    on_loop(test)


def test_a_server_that_cannot_be_there_is_out_at_once_and_comes_back_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.probed(ONE, "'x' cannot be started", is_certain=True)
        bench.note()
        assert bench.components[f"files/{ONE}"] == {"status": "unhealthy", "reason": "'x' cannot be started"}
        assert [each.reason for each in bench.take_verdicts() if isinstance(each, ReplicaEjected)] == ["'x' cannot be started"]
        bench.probed(ONE, "")
        assert bench.components[f"files/{ONE}"]["status"] == "unhealthy"
        bench.probed(ONE, "")
        assert bench.components[f"files/{ONE}"]["status"] == "healthy"

    on_loop(test)


def test_when_a_server_is_tried_again_the_router_is_told_each_time_and_the_other_cells_for_each_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        told: list[list[object]] = []
        waits_s = [None, 9.0, 4.0, None, 18.04, 13.0]
        for wait_s in waits_s:
            bench.events.clear()
            bench.probed(ONE, f"next try in {wait_s}", retry_after_s=wait_s)
            bench.note()
            verdict = [each.retry_after_s for each in bench.take_verdicts() if isinstance(each, ReplicaEjected)]
            published = [payload.get("retry_after_s") for topic, payload in bench.events if topic == "mcp.replica.ejected"]
            told.append([verdict, published])
            assert bench.components[f"files/{ONE}"]["reason"] == f"next try in {wait_s}"
        assert told == [[[], []], [[], []], [[4.0], [4.0]], [[], []], [[18.04], [18.0]], [[13.0], []]]

    on_loop(test)


def test_without_any_replica_the_whole_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3):
            bench.round(one="refused", two="refused")
        assert bench.health.status == "unhealthy"
        assert bench.components["backends"]["reason"] == "no replica of any backend answers"
        assert "mcp.health.failed" in bench.topics()
        for _ in range(2):
            bench.round(one="", two="refused")
        assert bench.health.status == "degraded"
        assert "mcp.health.improving" in bench.topics()

    on_loop(test)


def test_a_new_monitor_takes_back_ejections_of_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not know who was ejected: the first good answer of a replica tells the router, and other cells, that it is up."""

    def test() -> None:
        for cells, events in ((1, []), (2, ["mcp.replica.restored"])):
            bench = Bench(monkeypatch, cells=cells)
            bench.round(one="", two="refused")
            assert bench.take_verdicts() == [ReplicaRestored(ReplicaId("files", ONE))]
            assert [topic for topic, _ in bench.events if topic.startswith("mcp.replica")] == events
            bench.events.clear()
            bench.round(one="", two="refused")
            assert bench.take_verdicts() == []
            bench.round(one="", two="refused")
            bench.take_verdicts()
            # One that was down from the start comes up by the usual rule.
            bench.round(one="", two="")
            assert bench.take_verdicts() == []
            bench.round(one="", two="")
            assert bench.take_verdicts() == [ReplicaRestored(ReplicaId("files", TWO))]

    on_loop(test)


def test_a_cell_that_does_not_probe_follows_the_events_of_the_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, probes_replicas=False)
        assert [each.pattern for each in bench.first_mail["event-bus"] if isinstance(each, Subscribe)] == ["mcp.replica.*"]
        bench.stage.advance(0.1)
        assert bench.peers["connection-pool"].of(ProbeReplicas) == []
        assert bench.components[f"files/{ONE}"] == {"status": "healthy"}
        payload = {"backend": "files", "replica": ONE, "reason": "refused"}
        bench.stage.tell(bench.monitor, EventPublished(event_id=1, topic="mcp.replica.ejected", payload=payload, timestamp_ms=0))
        assert bench.components[f"files/{ONE}"] == {"status": "unhealthy", "reason": "refused"}
        assert bench.health.status == "degraded"
        bench.stage.tell(bench.monitor, EventPublished(event_id=2, topic="mcp.replica.restored", payload=payload, timestamp_ms=0))
        assert bench.health.status == "healthy"
        assert bench.peers["router"].of(ReplicaEjected) == []  # the router follows the same events

    on_loop(test)


def test_a_cell_that_does_not_probe_shows_what_the_one_that_does_has_found_and_announces_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, probes_replicas=False, cells=2)
        shown = f"files/{ONE}"
        for seconds in range(3):
            bench.probed(ONE, f"starting since {seconds} s", is_starting=True)
            assert bench.components[shown] == {"status": "degraded", "reason": f"starting since {seconds} s"}
        for _ in range(9):
            bench.probed(ONE, "refused")
        bench.probed("stdio:nobody#0", "refused")
        assert bench.components[shown] == {"status": "degraded", "reason": "refused"}, "the event of an ejection ejects"
        bench.note()
        assert bench.events == []
        payload = {"backend": "files", "replica": ONE, "reason": "refused"}
        bench.stage.tell(bench.monitor, EventPublished(event_id=1, topic="mcp.replica.ejected", payload=payload, timestamp_ms=0))
        bench.probed(ONE, "crash loop, next try in 4 s", retry_after_s=4.0)
        assert bench.components[shown] == {"status": "unhealthy", "reason": "crash loop, next try in 4 s"}
        bench.probed(ONE, "")
        assert bench.components[shown]["status"] == "unhealthy"
        bench.stage.tell(bench.monitor, EventPublished(event_id=2, topic="mcp.replica.restored", payload=payload, timestamp_ms=0))
        assert bench.components[shown] == {"status": "healthy"}
        assert bench.peers["router"].of(ReplicaEjected) == []  # the router follows the same events

    on_loop(test)


def test_who_starts_anew_in_another_cell_is_told_again_who_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, cells=2)
        patterns = [each.pattern for each in bench.first_mail["event-bus"] if isinstance(each, Subscribe)]
        assert patterns == ["mcp.supervisor.restarted"]
        for _ in range(3):
            bench.round(one="refused", two="")
        bench.note()
        bench.events.clear()
        restarted = EventPublished(event_id=1, topic="mcp.supervisor.restarted", payload={"child": "cell/1"}, timestamp_ms=0)
        bench.stage.tell(bench.monitor, restarted)
        bench.note()
        assert bench.events == [("mcp.replica.ejected", {"backend": "files", "replica": ONE, "reason": "refused"})]

    on_loop(test)


def test_with_the_last_replica_that_is_down_the_whole_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3):
            bench.round(one="refused", two="refused")
        assert bench.health.status == "unhealthy"
        bench.stage.tell(bench.monitor, Topology(backends=(), routes=()))
        assert bench.health.status == "healthy"

    on_loop(test)


def test_a_server_that_was_left_out_degrades_the_whole_until_its_file_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.round(one="", two="")
        backends = bench.settings.backends
        left_out = LeftOutServer(name="bad", title="Bad one", reason="m.json: mcpServers.'Bad one': found 3; allowed: a table")
        bench.stage.tell(bench.monitor, Topology(backends=backends, routes=(), left_out=(left_out,)))
        assert bench.components["bad/left-out"] == {"status": "degraded", "reason": f"left out: {left_out.reason}"}
        assert bench.health.status == "degraded"
        bench.round(one="", two="")
        assert bench.health.status == "degraded"
        bench.stage.tell(bench.monitor, Topology(backends=backends, routes=()))
        assert "bad/left-out" not in bench.components
        assert bench.health.status == "healthy"

    on_loop(test)


def test_a_removed_replica_is_forgotten_and_a_new_one_counts_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3):
            bench.round(one="", two="refused")
        assert bench.health.status == "degraded"
        backend = bench.settings.backends[0]
        bench.stage.tell(bench.monitor, Topology(backends=(attrs.evolve(backend, replicas=(ONE,)),), routes=()))
        assert f"files/{TWO}" not in bench.components
        assert bench.health.status == "healthy"
        bench.probed(TWO, "refused")  # a probe that was under way
        assert f"files/{TWO}" not in bench.components
        bench.stage.tell(bench.monitor, Topology(backends=(backend,), routes=()))
        bench.take_verdicts()
        for _ in range(2):
            bench.round(one="", two="refused")
        assert bench.take_verdicts() == []

    on_loop(test)
