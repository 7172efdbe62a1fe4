"""The two supervisors inside a cell: the gateway's chain of actors, and above it the cell, which also keeps the edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.actors.edge.edge import Edge
from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.events.event_bus import EventBus
from mcp_gateway.actors.health.health_monitor import HealthMonitor, HealthMonitorArguments
from mcp_gateway.actors.identity.identity import Identity
from mcp_gateway.actors.messages.events import EventsLogged, PublishEvent
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.actors.messages.supervision import ChildRestarted, ChildRestartRefused
from mcp_gateway.actors.messages.topology import GatewayWired, Topology
from mcp_gateway.actors.pool.connection_pool import ConnectionPool, ConnectionPoolArguments
from mcp_gateway.actors.pool.transport_registry import TransportRegistry
from mcp_gateway.actors.routing.router import Router
from mcp_gateway.actors.supervision.restart_plan import ChildSpec, Restart, RestartIntensity, Strategy
from mcp_gateway.actors.supervision.supervisor import Supervisor
from mcp_gateway.actors.viability.viability_monitor import ViabilityArguments, ViabilityMonitor
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.telemetry import metrics

GATEWAY_CHILDREN = ("event-bus", "transport-registry", "connection-pool", "router", "health-monitor", "identity")
"""The chain, in start order."""

BESIDE_THE_CHAIN = ("edge", "viability-monitor")
"""What survives the chain's restarts."""


@attrs.frozen(kw_only=True)
class CellParts:
    """What a cell is made of. upstream_transports: the strategies towards servers that it starts with."""

    settings: Settings
    link: NodeLink
    port: LoopPort
    upstream_transports: tuple[Any, ...]
    probes_replicas: bool


class _CellChildren(Supervisor):
    """What both supervisors of a cell share: the names of their children, and how they tell of an end."""

    def child_full_name(self, spec: ChildSpec) -> str:
        """`cell/0/router`: the supervisors in between are not part of the name."""
        return f"{self.arguments.port.cell_name}/{spec.name}"

    def tell(self, kind: str, name: str, reason_text: str) -> None:
        """Publish through the node's log directly: the event bus may be what has ended."""
        arguments: CellParts = self.arguments
        full_name = f"{arguments.port.cell_name}/{name}" if name else self.name
        if kind == "restarted":
            metrics.restarts_total.labels(full_name).inc()
        metrics.events_published_total.labels(f"mcp.supervisor.{kind}").inc()
        payload = {"child": full_name, "reason": reason_text}
        now_ms = arguments.port.now_ms()
        arguments.link.publish(f"mcp.supervisor.{kind}", payload, now_ms)


class GatewaySupervisor(_CellChildren):
    """Keeps the chain from the event bus to the identity actor: when one crashes, it and those after it start again in order.

    Receives  Topology, EventsLogged (cell supervisor)
    Sends     GatewayWired (cell supervisor), EventsLogged (event bus), Topology (connection pool, router, health monitor)
    On crash  the cell ends: a node starts the cell process again
    """

    strategy: ClassVar[Strategy] = Strategy.REST_FOR_ONE
    intensity: ClassVar[RestartIntensity] = RestartIntensity(max_restarts=10, period_s=10.0)

    def __init__(self) -> None:
        super().__init__()
        self._topology: Topology | None = None

    def child_specs(self) -> Sequence[ChildSpec]:
        arguments: CellParts = self.arguments
        settings = arguments.settings
        pool = ConnectionPoolArguments(settings=settings, cells=arguments.port.cells, seal=arguments.port.seal)
        monitor = HealthMonitorArguments(settings=settings, probes_replicas=arguments.probes_replicas)
        return (
            ChildSpec(name="event-bus", actor_class=EventBus, arguments=arguments.link),
            ChildSpec(name="transport-registry", actor_class=TransportRegistry, arguments=arguments.upstream_transports),
            ChildSpec(name="connection-pool", actor_class=ConnectionPool, arguments=pool),
            ChildSpec(name="router", actor_class=Router, arguments=settings),
            ChildSpec(name="health-monitor", actor_class=HealthMonitor, arguments=monitor),
            ChildSpec(name="identity", actor_class=Identity),
        )

    def on_children_changed(self) -> None:
        addresses = {name: self.child_address(name) for name in self.supervision.names}
        if any(address is None for address in addresses.values()):
            return
        self._tell_topology()  # children that were started again know the one of the start only
        incarnations = {name: self.supervision.incarnation(name) for name in addresses}
        addresses["gateway-supervisor"] = self.myAddress
        wired = GatewayWired(addresses=addresses, incarnations=incarnations)
        self.send(self.addresses["supervisor"], wired)

    def on_child_event(self, kind: str, name: str, reason_text: str) -> None:
        self.tell(kind, name, reason_text)

    def receiveMsg_EventsLogged(self, message: EventsLogged, sender: ActorAddress) -> None:
        bus = self.child_address("event-bus")
        if bus is not None:
            self.send(bus, message)

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        self._topology = message
        self._tell_topology()

    def _tell_topology(self) -> None:
        for name in ("connection-pool", "router", "health-monitor"):
            address = self.child_address(name)
            if address is not None and self._topology is not None:
                self.send(address, self._topology)


class CellSupervisor(_CellChildren):
    """The root of a cell: the gateway's chain, and beside it what survives the chain's restarts: the edge, the viability monitor.

    Receives  GatewayWired (gateway supervisor), EventsLogged, Topology (cell)
    Sends     GatewayWired, Topology (edge, viability monitor), EventsLogged, Topology (gateway supervisor)
    On crash  the cell ends, and with it its clients' connections; they come back to another cell or the next incarnation
    """

    strategy: ClassVar[Strategy] = Strategy.ONE_FOR_ONE
    intensity: ClassVar[RestartIntensity] = RestartIntensity(max_restarts=10, period_s=10.0)

    def __init__(self) -> None:
        super().__init__()
        self._wired: GatewayWired | None = None
        self._topology: Topology | None = None
        self._wired_incarnations: dict[str, int] = {}

    def child_specs(self) -> Sequence[ChildSpec]:
        arguments: CellParts = self.arguments
        viability = ViabilityArguments(settings=arguments.settings, link=arguments.link, judges=arguments.probes_replicas)
        return (
            ChildSpec(name="edge", actor_class=Edge, arguments=arguments.port),
            ChildSpec(name="viability-monitor", actor_class=ViabilityMonitor, arguments=viability),
            # A chain that cannot be kept alive takes the cell down: TEMPORARY, and on_child_event escalates.
            ChildSpec(name="gateway-supervisor", actor_class=GatewaySupervisor, arguments=arguments, restart=Restart.TEMPORARY),
        )

    def receiveMsg_GatewayWired(self, message: GatewayWired, sender: ActorAddress) -> None:
        self._wired = message
        self._wire(BESIDE_THE_CHAIN)

    def on_children_changed(self) -> None:
        incarnations = {name: self.supervision.incarnation(name) for name in BESIDE_THE_CHAIN}
        changed = [name for name in BESIDE_THE_CHAIN if incarnations[name] != self._wired_incarnations.get(name, 0)]
        self._wired_incarnations = incarnations
        # The edge is told of its sibling, too: it passes questions on.
        self._wire(BESIDE_THE_CHAIN if "viability-monitor" in changed else changed)

    def _wire(self, names: Sequence[str]) -> None:
        siblings = {name: address for name in BESIDE_THE_CHAIN if (address := self.child_address(name)) is not None}
        for name in names:
            if name not in siblings:
                continue
            if self._topology is not None:
                self.send(siblings[name], self._topology)
            if self._wired is not None:
                self.send(siblings[name], attrs.evolve(self._wired, addresses={**siblings, **self._wired.addresses}))

    def on_child_event(self, kind: str, name: str, reason_text: str) -> None:
        self.tell(kind, name, reason_text)
        if kind == "child_exited" and name == "gateway-supervisor":
            self.arguments.link.request_stop(f"the gateway supervisor has ended: {reason_text}")

    def on_escalation(self) -> None:
        self.arguments.link.request_stop("the cell supervisor gives up")

    def receiveMsg_EventsLogged(self, message: EventsLogged, sender: ActorAddress) -> None:
        self._pass_to_gateway(message)

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        self._topology = message
        self._pass_to_gateway(message)
        for name in BESIDE_THE_CHAIN:
            if (address := self.child_address(name)) is not None:
                self.send(address, message)

    def receiveMsg_ChildRestarted(self, message: ChildRestarted, sender: ActorAddress) -> None:
        """Of a restart that the loop asked for in this supervisor's own name: nobody waits for the answer."""

    def receiveMsg_ChildRestartRefused(self, message: ChildRestartRefused, sender: ActorAddress) -> None:
        """The same, for a child that this cell does not have."""

    def _pass_to_gateway(self, message: object) -> None:
        gateway = self.child_address("gateway-supervisor")
        if gateway is not None:
            self.send(gateway, message)

    def receiveMsg_PublishEvent(self, message: PublishEvent, sender: ActorAddress) -> None:
        self.arguments.link.publish(message.topic, dict(message.payload), self.arguments.port.now_ms())
