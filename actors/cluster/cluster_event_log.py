"""The event log of a node of a cluster: the cluster's log gives the order, this one keeps a copy and fans it out to the cells."""

from __future__ import annotations

from pathlib import Path

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.actors.events.event_log import EventLog
from mcp_gateway.actors.events.event_order import EventOrder
from mcp_gateway.actors.messages.event_log import StoredEvent
from mcp_gateway.actors.messages.node import EventLogArguments
from mcp_gateway.actors.runtime.system_key import load_secrets
from mcp_gateway.actors.storage.event_spool import EventSpool
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST
from mcp_gateway.transports.telemetry import metrics

from .configured_engine import connect
from .log_follower import LogFollower
from .node_packets import packet_cipher
from .stream_order import StreamOrder


@attrs.frozen
class LogRead:
    """Loop -> its own log: what the cluster's log has next.

    places:  (source, number) of all its entries; none at its end.
    last_id: there, the id after which it goes on.
    """

    events: tuple[StoredEvent, ...] = attrs.field(repr=False)
    places: tuple[tuple[str, int], ...] = attrs.field(repr=False)
    last_id: int


class ClusterEventLog(EventLog):
    """Appends what its cells publish to the cluster's log, and hands on what that log has, of all nodes.

    An event is safe in the cluster's log before anybody is told of it, and there once, however often appending it is tried. While
    the engine is away events wait on disk. Before it has read the cluster's log to its end it does not know what is new: it gives
    its cells what its copy has, and does not tell them that this is all. Without a copy it tells them nothing until then.

    Receives  what EventLog does; LogRead (its own loop)
    On crash  nothing is lost: what was published is on disk, or with its cell still; the order is the cluster's
    """

    def __init__(self) -> None:
        super().__init__()
        self._stream = StreamOrder(1)
        self._spool = EventSpool(None, self.log)
        self._returned: list[tuple[str, int]] = []  # places of what has come back, by the messages of this batch
        self._is_complete = False
        self._is_unread = False  # and has no copy of what there was either

    def on_wired(self) -> None:
        arguments: EventLogArguments = self.arguments
        cluster = arguments.cluster
        assert cluster is not None
        self._spool = EventSpool(arguments.state_path, self.log)
        super().on_wired()
        self._joins = None  # there is nothing to take back from cells: what they were told the cluster's log has
        self._is_unread = not self._order.last_id
        cipher = packet_cipher(*load_secrets(Path(cluster.key_file).expanduser()))
        self._follower = LogFollower(
            lambda: connect(cluster, arguments.retention_events),
            cipher,
            self._order.last_id,
            lambda events, places, last_id: self.deliver(self.myAddress, LogRead(events, places, last_id)),
        )
        stored = self._stream.places()
        for each in self._spool.loaded:
            if (each.event.source, each.event.sequence) in stored:
                self._returned.append((each.spool, each.number))
            else:
                self._follower.append([each])
        self._spool.loaded = []
        self.start_loop()
        self.run_async(self._follower.run())

    def _first_order(self, retention: int) -> EventOrder:
        loaded = self._store.loaded
        lost = self._store.lost if loaded else NOTHING_LOST  # else the store counts from the time of day
        self._stream = StreamOrder(retention, loaded, lost, [each.event for each in self._spool.loaded])
        return self._stream

    def receiveMsg_LogRead(self, message: LogRead, sender: ActorAddress) -> None:
        self._unwritten += self._stream.take(message.events, message.last_id)
        self._returned += message.places
        if not message.places:
            self._is_complete, self._is_unread = True, False

    def _catch_up(self, cell_name: str, after_id: int) -> None:
        if self._is_unread and not after_id:
            self._joined[cell_name] = after_id  # with the next batch, or the one after it
        else:
            super()._catch_up(cell_name, after_id)

    def on_batch_handled(self) -> None:
        published = self._stream.take_published()
        if published:
            spooled = self._spool.add(published)
            metrics.bounds_reached_total.labels("spool").inc(len(published) - len(spooled))
            self.call_loop(self._follower.append, spooled)
        super().on_batch_handled()
        returned, self._returned = self._returned, []
        self._spool.forget(returned)  # the copy of this node has them now

    def on_exit(self) -> None:
        super().on_exit()
        self._spool.close()
