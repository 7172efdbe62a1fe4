"""The cell's event bus: what any actor publishes reaches every subscriber, in the order of the node's log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.events import EventPublished, EventsLogged, FollowLog, PublishEvent, Subscribe, Unsubscribe
from mcp_gateway.actors.messages.health import ComponentProbed, ProbeComponent
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.actors.messages.status import StatusReported, StatusRequested
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.transports.ports.cell_names import node_of
from mcp_gateway.transports.protocol.topics.node_events import is_of_node
from mcp_gateway.transports.protocol.topics.topic_log import Event, TopicPattern
from mcp_gateway.transports.telemetry import metrics

_Subscription = tuple[TopicPattern, ActorAddress, bool]
"""(what is followed, by whom, whether of all nodes)."""


class EventBus(GatewayActor):
    """Publishes through the node's log and hands what the log has ordered to the subscribers of this cell.

    Receives  PublishEvent, Subscribe, Unsubscribe (any actor), FollowLog (edge), EventsLogged (cell: events of all cells)
    Sends     EventPublished (subscribers), EventsLogged (edge)
    On crash  subscriptions are forgotten; every subscriber restarts after the bus, or is wired again, and subscribes anew.
              Events are kept by the log, not here; what waits to be published still goes to the log
    """

    def __init__(self) -> None:
        super().__init__()
        self._subscriptions: dict[tuple[str, str], _Subscription] = {}
        self._edge: ActorAddress | None = None
        self._published_count = 0

    def receiveMsg_PublishEvent(self, message: PublishEvent, sender: ActorAddress) -> None:
        self._publish(message)
        self._published_count += 1

    def _publish(self, message: PublishEvent) -> None:
        link: NodeLink = self.arguments
        link.publish(message.topic, dict(message.payload), int(time.time() * 1000))
        metrics.events_published_total.labels(_topic_label(message.topic)).inc()

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        if isinstance(message, PublishEvent):
            self._publish(message)

    def receiveMsg_FollowLog(self, message: FollowLog, sender: ActorAddress) -> None:
        link: NodeLink = self.arguments
        self._edge = sender
        missed = tuple(link.events_after(message.after_id))
        self.send(sender, EventsLogged(missed, link.is_caught_up, link.lost, link.last_event_id))

    def receiveMsg_EventsLogged(self, message: EventsLogged, sender: ActorAddress) -> None:
        if self._edge is not None:
            self.send(self._edge, message)
        self._hand_out(message.events, list(self._subscriptions.values()))

    def _hand_out(self, events: Iterable[Event], subscriptions: Sequence[_Subscription]) -> None:
        own_node = node_of(self.name)
        for event in events:
            published: Any = None
            for pattern, subscriber, of_all_nodes in subscriptions:
                if pattern.matches(event.topic):
                    if not of_all_nodes and not is_of_node(event, own_node):
                        continue
                    published = published or EventPublished(
                        event_id=event.id, topic=event.topic, payload=event.payload, timestamp_ms=event.timestamp_ms
                    )
                    self.send(subscriber, published)

    def receiveMsg_Subscribe(self, message: Subscribe, sender: ActorAddress) -> None:
        subscription = (TopicPattern(message.pattern), sender, message.of_all_nodes)
        self._subscriptions[message.subscriber_id, message.pattern] = subscription
        if message.after_id is not None:
            self._hand_out(self.arguments.events_after(message.after_id), (subscription,))

    def receiveMsg_Unsubscribe(self, message: Unsubscribe, sender: ActorAddress) -> None:
        self._subscriptions.pop((message.subscriber_id, message.pattern), None)

    def receiveMsg_ProbeComponent(self, message: ProbeComponent, sender: ActorAddress) -> None:
        self.send(sender, ComponentProbed(message.request_id, "event-bus"))

    def receiveMsg_StatusRequested(self, message: StatusRequested, sender: ActorAddress) -> None:
        status = {"subscriptions": len(self._subscriptions), "published": self._published_count}
        self.send(sender, StatusReported(message.request_id, status))


def _topic_label(topic: str) -> str:
    """The topic as a metric label; clients' own topics share one, so that they cannot make up labels without end."""
    return "client" if topic.startswith("client.") else topic
