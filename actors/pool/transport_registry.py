"""Which transport serves clients and which speaks to servers: strategies, checked, replaced and removed while it runs."""

from __future__ import annotations

import logging
from typing import Any

from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.actors.messages.health import ComponentProbed, ProbeComponent
from mcp_gateway.actors.messages.status import StatusReported, StatusRequested
from mcp_gateway.actors.messages.transports import (
    RegisterTransport,
    RemoveTransport,
    ResolveScheme,
    SchemeResolved,
    TransportRefused,
    TransportRegistered,
    TransportRemoved,
    TransportsChanged,
)
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.transports.ports.strategies import DownstreamTransport, UpstreamTransport, strategy_problem


class TransportRegistry(GatewayActor):
    """Knows every transport by its name; the newest registration of a name wins.

    Receives  RegisterTransport, RemoveTransport (owners), ResolveScheme (connection pool)
    Sends     TransportRegistered, TransportRemoved, TransportRefused, SchemeResolved (askers), TransportsChanged (the edge,
              which registers the client side), PublishEvent (event bus)
    On crash  registrations are forgotten; upstream strategies come with the wiring, the edge registers again when it is re-wired
    """

    def __init__(self) -> None:
        super().__init__()
        self._strategies: dict[str, Any] = {}
        self._edge: ActorAddress | None = None

    def on_wired(self) -> None:
        for strategy in self.arguments:
            problem = strategy_problem(strategy)
            if problem:
                raise ValueError(problem)
            self._strategies[strategy.name] = strategy

    def receiveMsg_RegisterTransport(self, message: RegisterTransport, sender: ActorAddress) -> None:
        problem = strategy_problem(message.strategy)
        if problem:
            self.log(logging.ERROR, f"transport refused: {problem}")
            self.send(sender, TransportRefused(message.request_id, problem))
            return
        name = message.strategy.name
        self._strategies[name] = message.strategy
        self.send(sender, TransportRegistered(message.request_id, name))
        self._publish("mcp.transport.registered", name)
        if isinstance(message.strategy, DownstreamTransport) and not isinstance(message.strategy, UpstreamTransport):
            self._edge = sender
            self._publish("mcp.transport.started", name)
        self._tell_edge()

    def receiveMsg_RemoveTransport(self, message: RemoveTransport, sender: ActorAddress) -> None:
        if self._strategies.pop(message.name, None) is None:
            self.send(sender, TransportRefused(message.request_id, f"no transport {message.name!r} is registered"))
            return
        self.send(sender, TransportRemoved(message.request_id, message.name))
        self._tell_edge()

    def receiveMsg_ResolveScheme(self, message: ResolveScheme, sender: ActorAddress) -> None:
        speakers = (each for each in self._strategies.values() if isinstance(each, UpstreamTransport))
        strategy = next((each for each in speakers if message.scheme in each.schemes), None)
        self.send(sender, SchemeResolved(message.request_id, message.scheme, strategy))

    def receiveMsg_ProbeComponent(self, message: ProbeComponent, sender: ActorAddress) -> None:
        problem = "" if self._downstream_names() else "no transport serves clients"
        self.send(sender, ComponentProbed(message.request_id, "transport-registry", problem))

    def receiveMsg_StatusRequested(self, message: StatusRequested, sender: ActorAddress) -> None:
        self.send(sender, StatusReported(message.request_id, {"transports": sorted(self._strategies)}))

    def _downstream_names(self) -> frozenset[str]:
        return frozenset(name for name, each in self._strategies.items() if not isinstance(each, UpstreamTransport))

    def _tell_edge(self) -> None:
        if self._edge is not None:
            self.send(self._edge, TransportsChanged(self._downstream_names()))

    def _publish(self, topic: str, name: str) -> None:
        self.send(self.addresses["event-bus"], PublishEvent(topic=topic, payload={"transport": name}))
