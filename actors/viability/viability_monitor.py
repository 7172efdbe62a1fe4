"""Samples the whole node every second, feels what hurts, and tells of it past all levels."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.events import EventPublished, Subscribe
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.actors.messages.status import StatusReported, StatusRequested, ViabilityReported, ViabilityRequested
from mcp_gateway.actors.messages.topology import GatewayWired, Topology
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.metric_reader import READERS, MetricsUnreadable, read_samples

from .algedonic import AlgedonicSense, Signal, SignalKind
from .five_systems import Policy, SystemState, assess
from .sensations import WINDOW_S, Measurement, Sensations
from .viability_report import backend_report, short_report
from .vital_signs import vital_signs

SAMPLE_S = 1.0
TIMELINE_LENGTH = 200

_MOST_OF_A_CORE = 0.02
"""What sampling may take: where reading costs much, it is done less often."""

_RAREST_S = WINDOW_S / 2
"""Whatever it costs: who looks less often misses what hurts."""

_PATTERNS = ("vsm.algedonic.*", "mcp.supervisor.*", "mcp.replica.*", "mcp.sse.backpressure", "mcp.tool.changed")
_TOPICS = {kind: f"vsm.algedonic.{kind.value}" for kind in SignalKind}


@attrs.frozen(kw_only=True)
class ViabilityArguments:
    """judges: one cell of a node does, for all of them; in the others this actor only answers that it does not.

    link:    signals go through it directly: the event bus may be what hurts.
    read:    gives the samples of the whole node; called in a thread.
    """

    settings: Settings
    link: NodeLink
    judges: bool
    read: Callable[[], Sequence[Any]] = read_samples


@attrs.frozen
class _SamplesRead:
    """A monitor to itself. cost_s: processor time that reading took. failure: a defect of ours, to crash with."""

    samples: Sequence[Any] = attrs.field(repr=False)
    cost_s: float
    failure: Exception | None = None


class ViabilityMonitor(GatewayActor):
    """The algedonic channel of a node and its Viable System Model; beside the chain, so that it feels the chain's restarts.

    Receives  GatewayWired, Topology (cell supervisor), EventPublished (event bus), ViabilityRequested, StatusRequested (edge)
    Sends     Subscribe (event bus), ViabilityReported, StatusReported (edge); signals through the node's link
    On crash  what is usual is learned anew, and what hurts is told again; the timeline comes back as far as the log is read again
    """

    def __init__(self) -> None:
        super().__init__()
        self._sense = AlgedonicSense()
        self._sensations = Sensations()
        self._timeline: deque[dict[str, Any]] = deque(maxlen=TIMELINE_LENGTH)
        self._verdicts_s: deque[float] = deque(maxlen=1_000)
        self._measurement: Measurement | None = None
        self._systems: tuple[SystemState, ...] = ()
        self._reading: asyncio.Task[None] | None = None
        self._last_event_id = 0  # a new bus, after a crash, is asked for what comes after this one

    def on_wired(self) -> None:
        arguments: ViabilityArguments = self.arguments
        self._take_topology(arguments.settings.backends, len(arguments.settings.routes))
        transports = arguments.settings.transports
        self._connection_limits = {
            "streamable_http": transports.streamable_http.max_connections,
            "http_sse": transports.http_sse.max_connections,
            "websocket": transports.websocket.max_connections,
        }
        if arguments.judges:
            self.start_timer("sample", SAMPLE_S)

    def receiveMsg_GatewayWired(self, message: GatewayWired, sender: ActorAddress) -> None:
        if self.arguments.judges:
            for pattern in _PATTERNS:
                subscribe = Subscribe(pattern=pattern, subscriber_id=self.name, after_id=self._last_event_id)
                self.send(message.addresses["event-bus"], subscribe)

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        self._take_topology(message.backends, len(message.routes))

    def _take_topology(self, backends: tuple[BackendSettings, ...], route_count: int) -> None:
        self._backends = tuple(backend.name for backend in backends)
        self._replica_backends = {replica: backend.name for backend in backends for replica in backend.replica_ids}
        self._route_count = route_count

    # ---- sampling

    def receiveTimer_sample(self, _: Any) -> None:
        self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        """Read in a thread: it takes milliseconds, more with many backends, and the loop serves clients meanwhile."""
        read = await asyncio.get_running_loop().run_in_executor(READERS, self._read_now)
        assert self.runtime is not None
        self.runtime.post(self.myAddress, read)

    def _read_now(self) -> _SamplesRead:
        started_s = time.thread_time()  # not the clock's: a busy machine is not to blind who watches it
        samples: Sequence[Any] = ()
        failure: Exception | None = None
        try:
            samples = self.arguments.read()
        except MetricsUnreadable as error:
            self.log(logging.WARNING, str(error))
        except Exception as error:  # nobody awaits the task: without this nothing would be sampled any more, and nobody told
            failure = error
        return _SamplesRead(samples, time.thread_time() - started_s, failure)

    def receiveMsg__SamplesRead(self, message: _SamplesRead, sender: ActorAddress) -> None:
        if message.failure is not None:
            raise message.failure
        self.start_timer("sample", min(_RAREST_S, max(SAMPLE_S, message.cost_s / _MOST_OF_A_CORE)))
        if not message.samples:
            return
        now_s = self.monotonic_s()
        signs = vital_signs(message.samples, self._backends, self._replica_backends, now_s)
        self._measurement = self._sensations.measure(signs, self._connection_limits)
        for signal in self._sense.feel(self._measurement.feelings, now_s):
            self._tell(signal)
        self._systems = self._assess(self._measurement, now_s)

    def _assess(self, measurement: Measurement, now_s: float) -> tuple[SystemState, ...]:
        settings: Settings = self.arguments.settings
        policy = Policy(
            backends=len(self._backends),
            routes=self._route_count or len(self._backends),
            limits_clients=settings.limits.requests_per_second > 0,
            cells=settings.gateway.cell_count,
        )
        probed = 4 * settings.gateway.cell_count + len(self._replica_backends)
        verdicts = sum(1 for at_s in self._verdicts_s if now_s - at_s <= WINDOW_S)
        probes_per_s = probed / settings.gateway.health_check_interval
        return assess(measurement, self._sense.aches, policy, probes_per_s=probes_per_s, verdicts=verdicts)

    def _tell(self, signal: Signal) -> None:
        metrics.algedonic_signals_total.labels(signal.kind.value, metrics.bounded_source(signal.source)).inc()
        topic = _TOPICS[signal.kind]
        metrics.events_published_total.labels(topic).inc()
        payload = {
            "source": signal.source,
            "intensity": signal.intensity,
            "reason": signal.text,
            "since": self._to_ms(signal.since_s),
        }
        self.arguments.link.publish(topic, payload, int(time.time() * 1000))

    # ---- events, also those of the time before this monitor: the log hands them to a cell that starts

    def receiveMsg_EventPublished(self, message: EventPublished, sender: ActorAddress) -> None:
        self._last_event_id = max(self._last_event_id, message.event_id)
        payload, at_s = message.payload, self._from_ms(message.timestamp_ms)
        if message.topic.startswith("vsm.algedonic."):
            kind = message.topic.rpartition(".")[2]
            self._timeline.append({"id": message.event_id, "at": message.timestamp_ms, "kind": kind, **payload})
        elif message.topic == "mcp.supervisor.restarted":
            self._sensations.note_restart(str(payload.get("child")), at_s)
        elif message.topic == "mcp.supervisor.escalated":
            self._sensations.note_escalation(at_s)
        elif message.topic == "mcp.tool.changed":
            self._sensations.note_changed_tool(str(payload.get("backend")), str(payload.get("tool")), at_s)
        elif message.topic == "mcp.sse.backpressure":
            self._sensations.note_backpressure(str(payload.get("transport", "http_sse")), at_s)
        elif message.topic in ("mcp.replica.ejected", "mcp.replica.restored"):
            self._verdicts_s.append(at_s)

    def _from_ms(self, timestamp_ms: int) -> float:
        return self.monotonic_s() - (time.time() - timestamp_ms / 1000.0)

    def _to_ms(self, at_s: float) -> int:
        return int((time.time() - (self.monotonic_s() - at_s)) * 1000)

    # ---- questions

    def receiveMsg_ViabilityRequested(self, message: ViabilityRequested, sender: ActorAddress) -> None:
        measurement = self._measurement
        report: dict[str, Any] = {}
        if measurement is not None:
            signs = measurement.signs
            report = {
                **short_report(self._sense, self._systems, self._to_ms),
                "sampled_at": self._to_ms(signs.at_s),
                "timeline": list(self._timeline),
                "backends": backend_report(measurement, self._sensations.backends),
                "sessions": signs.sessions,
                "connections": signs.connections,
                "restarts": signs.restarts,
            }
        self.send(sender, ViabilityReported(message.request_id, report))

    def receiveMsg_StatusRequested(self, message: StatusRequested, sender: ActorAddress) -> None:
        status = short_report(self._sense, self._systems, self._to_ms) if self._measurement is not None else {}
        self.send(sender, StatusReported(message.request_id, status))

    def on_exit(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
