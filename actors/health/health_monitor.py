"""Asks every component and every replica whether it is well, and tells the router who may take traffic."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.cluster import ClusterDescribed
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
from mcp_gateway.actors.messages.status import StatusReported, StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.config.backend_settings import BackendSettings, LeftOutServer
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.telemetry import metrics

from .cluster_rules import cluster_facts, judge_cluster
from .health_rules import Change, HealthRecord, RiseFall, Status, StatusChanged, SteadyVerdict
from .resource_meter import ResourceMeter
from .resource_rules import resource_problems

_COMPONENTS = ("event-bus", "transport-registry", "connection-pool", "router")
_BACKENDS = "backends"
_CLUSTER = "cluster"
_LEFT_OUT = "left-out"
_RESOURCES_S = 5.0
"""Longer than most intervals of probes: a burst of work is no shortage."""
_LAG_S = 0.5
_LAGS_SHOWN = 4
_RESTARTED = "mcp.supervisor.restarted"
_FIRST_ROUND_S = 0.02
_LONGEST_PROBE_S = 5.0
_TOPICS = {Status.HEALTHY: "mcp.health.recovered", Status.DEGRADED: "mcp.health.degraded", Status.UNHEALTHY: "mcp.health.failed"}


@attrs.frozen(kw_only=True)
class HealthMonitorArguments:
    """probes_replicas: one cell of a node does; the others follow its events."""

    settings: Settings
    probes_replicas: bool


class HealthMonitor(GatewayActor):
    """Judges components, replicas and the cell's own resources, each by rise and fall of what is found of it.

    Receives  ComponentProbed (components), ReplicaProbed (upstreams of the cell that probes), HealthRequested, StatusRequested
              (edge), Topology, ClusterDescribed (cell), EventPublished (event bus: verdicts of the cell that probes)
    Sends     ProbeComponent (components), ProbeReplicas (connection pool), ReplicaEjected, ReplicaRestored (router),
              PublishEvent (event bus), HealthReported, StatusReported (edge)
    On crash  verdicts and history are forgotten; the router keeps its last view of a replica until that one's next probe
    """

    def __init__(self) -> None:
        super().__init__()
        self._record = HealthRecord((*_COMPONENTS, _BACKENDS))
        self._round = 0
        self._unanswered: set[str] = set()
        self._components: dict[str, ActorAddress] = {}
        self._findings: dict[str, SteadyVerdict] = {}
        self._lags_s: deque[float] = deque(maxlen=_LAGS_SHOWN)
        self._worst_lag_s = 0.0
        self._lag_due_s = 0.0
        self._verdicts: dict[ReplicaId, RiseFall] = {}
        self._found_up: set[ReplicaId] = set()
        self._retries_s: dict[ReplicaId, float] = {}  # for how long each was to be left alone when it was probed last
        self._left_out: set[str] = set()
        self._cluster: Mapping[str, Any] = {}
        self._cluster_heard_s = 0.0

    def on_wired(self) -> None:
        arguments: HealthMonitorArguments = self.arguments
        self._interval_s = arguments.settings.gateway.health_check_interval
        self._components = {name: self.addresses[name] for name in _COMPONENTS}
        self._arrange(arguments.settings.backends)
        self._judge_left_out(arguments.settings.left_out)
        self._cluster_heard_s = self.monotonic_s()
        self._judge_cluster()
        self._meter = ResourceMeter()
        if not arguments.probes_replicas or arguments.settings.gateway.cell_count > 1:
            pattern = _RESTARTED if arguments.probes_replicas else "mcp.replica.*"
            self.send(self.addresses["event-bus"], Subscribe(pattern=pattern, subscriber_id=self.name))
        self.start_timer("round", _FIRST_ROUND_S)
        self.start_timer("resources", _RESOURCES_S)
        self._time_lag()

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        self._arrange(message.backends)
        self._judge_left_out(message.left_out)

    def _judge_left_out(self, servers: tuple[LeftOutServer, ...]) -> None:
        """Nobody can ask a server that was not understood how it does: the gateway is degraded until its file is mended."""
        reasons = {f"{server.name}/{_LEFT_OUT}": f"left out: {server.reason}" for server in servers}
        for component in self._left_out - reasons.keys():
            self._forget(component)
        self._left_out = set(reasons)
        for component, reason in reasons.items():
            self._judge(component, Status.DEGRADED, reason)

    def _arrange(self, backends: tuple[BackendSettings, ...]) -> None:
        wanted = {ReplicaId(backend.name, address) for backend in backends for address in backend.replica_ids}
        for replica in [replica for replica in self._verdicts if replica not in wanted]:
            del self._verdicts[replica]
            self._found_up.discard(replica)
            self._retries_s.pop(replica, None)
            self._forget(str(replica))
            self._judge_backends()
        for replica in wanted - self._verdicts.keys():
            self._verdicts[replica] = RiseFall()
            if not self.arguments.probes_replicas:  # events tell of changes only: what they never name is up
                self._judge_replica(replica, is_up=True, is_failing=False, reason="")

    # ---- the cluster

    def receiveMsg_ClusterDescribed(self, message: ClusterDescribed, sender: ActorAddress) -> None:
        self._cluster, self._cluster_heard_s = message.status, self.monotonic_s()
        self._judge_cluster()

    def _judge_cluster(self) -> None:
        if self.arguments.settings.cluster is not None:
            self._judge(_CLUSTER, *judge_cluster(self._cluster, self.monotonic_s() - self._cluster_heard_s))

    # ---- rounds

    def receiveTimer_round(self, _: Any) -> None:
        """Who has not answered since the last round is unhealthy; ask all of them again."""
        for component in self._unanswered:
            self._find(component, Status.UNHEALTHY, "does not answer")
        self._round += 1
        self._unanswered = set(self._components)
        self._judge_cluster()
        for address in self._components.values():
            self.send(address, ProbeComponent(str(self._round)))
        if self.arguments.probes_replicas:
            timeout_s = min(self._interval_s, _LONGEST_PROBE_S)
            probe = ProbeReplicas(request_id=str(self._round), timeout_s=timeout_s, asker=self.myAddress)
            self.send(self.addresses["connection-pool"], probe)
        self.start_timer("round", self._interval_s)

    def receiveMsg_ComponentProbed(self, message: ComponentProbed, sender: ActorAddress) -> None:
        if message.request_id == str(self._round) and message.component in self._unanswered:
            self._unanswered.discard(message.component)
            self._find(message.component, Status.DEGRADED if message.problem else Status.HEALTHY, message.problem)

    def receiveMsg_ReplicaProbed(self, message: ReplicaProbed, sender: ActorAddress) -> None:
        replica = message.replica
        verdict = self._verdicts.get(replica)
        if verdict is None:
            return
        if not self.arguments.probes_replicas:  # the events of the cell that does say what it amounts to
            self._show_replica(replica, verdict, message.problem)
            return
        if message.is_starting:  # neither a success nor a failure: it keeps its verdict, and whoever calls it waits
            self._judge_replica(replica, is_up=verdict.is_up, is_failing=True, reason=message.problem)
            return
        change = verdict.observe(not message.problem, is_certain=message.is_certain)
        payload: dict[str, Any] = {**_named(replica), "reason": message.problem}
        if message.retry_after_s is not None:
            payload["retry_after_s"] = round(message.retry_after_s, 1)
        before_s, self._retries_s[replica] = self._retries_s.get(replica, 0.0), message.retry_after_s or 0.0
        is_pause_new = self._retries_s[replica] > before_s
        if change is Change.DOWN or (not verdict.is_up and message.retry_after_s is not None):
            self.send(self.addresses["router"], ReplicaEjected(replica, message.problem, message.retry_after_s))
            if change is Change.DOWN or is_pause_new:
                self._publish("mcp.replica.ejected", payload)
        elif change is Change.UP:
            self.send(self.addresses["router"], ReplicaRestored(replica))
            self._publish("mcp.replica.restored", payload)
        elif verdict.is_up and not message.problem and replica not in self._found_up:
            # A monitor before this one may have ejected it: whoever still keeps it out takes it in again.
            self.send(self.addresses["router"], ReplicaRestored(replica))
            if self.arguments.settings.gateway.cell_count > 1:
                self._publish("mcp.replica.restored", payload)
        if verdict.is_up and not message.problem:
            self._found_up.add(replica)
        self._judge_replica(replica, is_up=verdict.is_up, is_failing=bool(message.problem), reason=message.problem)

    def receiveMsg_EventPublished(self, message: EventPublished, sender: ActorAddress) -> None:
        replica = ReplicaId(str(message.payload.get("backend")), str(message.payload.get("replica")))
        if message.topic == _RESTARTED:
            self._repeat_ejections()
        elif replica in self._verdicts:
            is_up = message.topic == "mcp.replica.restored"
            self._verdicts[replica] = RiseFall(is_up=is_up)
            self._judge_replica(replica, is_up=is_up, is_failing=not is_up, reason=str(message.payload.get("reason")))

    def _repeat_ejections(self) -> None:
        """Somebody has started anew, perhaps another cell: it does not know who is out."""
        for replica, verdict in self._verdicts.items():
            if not verdict.is_up:
                reason = self._record.components[str(replica)].reason
                self._publish("mcp.replica.ejected", {**_named(replica), "reason": reason})

    def _judge_replica(self, replica: ReplicaId, *, is_up: bool, is_failing: bool, reason: str) -> None:
        doubtful = Status.DEGRADED if is_failing else Status.HEALTHY
        self._judge(str(replica), doubtful if is_up else Status.UNHEALTHY, reason)
        self._judge_backends()

    def _show_replica(self, replica: ReplicaId, verdict: RiseFall, problem: str) -> None:
        """Tell the same as the cell that probes; the change is announced by that one."""
        doubtful = Status.DEGRADED if problem else Status.HEALTHY
        status = doubtful if verdict.is_up else Status.UNHEALTHY
        self._record.set_status(str(replica), status, problem, self.monotonic_s())
        metrics.health_status.labels(str(replica)).set(status.gauge)

    def _judge_backends(self) -> None:
        if self._verdicts and all(not verdict.is_up for verdict in self._verdicts.values()):
            self._judge(_BACKENDS, Status.UNHEALTHY, "no replica of any backend answers")
        else:
            self._judge(_BACKENDS, Status.HEALTHY, "")

    def _find(self, component: str, finding: Status, reason: str, worst: Status | None = None) -> None:
        """Take in one finding; what it amounts to depends on those before it."""
        verdict = self._findings.get(component)
        if verdict is None:
            verdict = self._findings[component] = SteadyVerdict(worst)
        status = verdict.observe(finding)
        known = self._record.components.get(component)
        if not reason and known is not None:
            reason = known.reason  # it answers again, and has yet to do so often enough
        self._judge(component, status, reason)

    def _forget(self, component: str) -> None:
        self._findings.pop(component, None)
        self._announce(self._record.forget(component, self.monotonic_s()))
        metrics.forget(metrics.health_status, component)

    def _judge(self, component: str, status: Status, reason: str) -> None:
        self._announce(self._record.set_status(component, status, reason, self.monotonic_s()))
        metrics.health_status.labels(component).set(status.gauge)

    def _announce(self, changes: tuple[StatusChanged, ...]) -> None:
        for change in changes:
            payload = {
                "component": change.component,
                "status": change.new.value,
                "was": change.old.value,
                "reason": change.reason,
            }
            is_better = change.new.gauge > change.old.gauge and change.new is not Status.HEALTHY
            self._publish("mcp.health.improving" if is_better else _TOPICS[change.new], payload)

    # ---- resources

    def receiveTimer_resources(self, _: Any) -> None:
        use = self._meter.read(self._worst_lag_s)
        self._worst_lag_s = 0.0
        for component, problem in resource_problems(use).items():
            self._find(component, Status.UNHEALTHY if problem else Status.HEALTHY, problem, worst=Status.DEGRADED)
        self.start_timer("resources", _RESOURCES_S)

    def _time_lag(self) -> None:
        self._lag_due_s = self.monotonic_s() + _LAG_S
        self.start_timer("lag", _LAG_S)

    def receiveTimer_lag(self, _: Any) -> None:
        """How late this timer comes is how late everything on this loop is."""
        lag_s = max(0.0, self.monotonic_s() - self._lag_due_s)
        self._lags_s.append(lag_s)
        self._worst_lag_s = max(self._worst_lag_s, lag_s)
        metrics.event_loop_lag_seconds.set(max(self._lags_s))
        self._time_lag()

    # ---- questions

    def receiveMsg_HealthRequested(self, message: HealthRequested, sender: ActorAddress) -> None:
        offset_s = time.time() - self.monotonic_s()
        components = {
            name: {
                "status": health.status.value,
                **({"reason": health.reason} if health.reason else {}),
                "since": _time_text(health.since_s + offset_s),
                **(cluster_facts(self._cluster) if name == _CLUSTER else {}),
            }
            for name, health in self._record.components.items()
        }
        history = tuple(
            {
                "at": _time_text(past.at_s + offset_s),
                "component": past.change.component,
                "was": past.change.old.value,
                "status": past.change.new.value,
                **({"reason": past.change.reason} if past.change.reason else {}),
            }
            for past in self._record.history
        )
        reported = HealthReported(
            request_id=message.request_id, status=self._record.overall.value, components=components, history=history
        )
        self.send(sender, reported)

    def receiveMsg_StatusRequested(self, message: StatusRequested, sender: ActorAddress) -> None:
        self.send(sender, StatusReported(message.request_id, {"status": self._record.overall.value}))

    def _publish(self, topic: str, payload: dict[str, Any]) -> None:
        self.send(self.addresses["event-bus"], PublishEvent(topic=topic, payload=payload))


def _named(replica: ReplicaId) -> dict[str, str]:
    """What events call it."""
    return {"backend": replica.backend, "replica": replica.address}


def _time_text(epoch_s: float) -> str:
    """RFC 3339, to the second."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
