"""The event log of a node: one order for the events of all cells, kept in memory, distributed to all cells."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from setproctitle import setproctitle
from thespian.actors import ActorAddress

from mcp_gateway.actors.asyncio_actor import AsyncioActor
from mcp_gateway.actors.event_order import EventOrder
from mcp_gateway.actors.node_messages import (
    EventLogArguments,
    EventsDistributed,
    JoinEventLog,
    Ping,
    Pong,
    PublishEvents,
    StoredEvent,
)

JOIN_WAIT_S = 1.0  # a new log waits that long, after the first cell has joined, for what the others hold
RETRY_S = 1.0


class EventLog(AsyncioActor):
    """Orders, keeps and distributes events. It has lanes and no loop: there is nothing to wait for but mail.

    Receives  Wiring, Ping (NodeSupervisor); JoinEventLog, PublishEvents (cells)
    Sends     Pong (NodeSupervisor); EventsDistributed (cells)
    On crash  nothing that a cell still holds is lost: the cells join the next log with it, and ids go on
    """

    def __init__(self) -> None:
        super().__init__()
        self._order = EventOrder(1)
        self._cells: dict[str, ActorAddress] = {}  # by name
        self._joins: dict[str, JoinEventLog] | None = {}  # until the log is rebuilt from them
        self._waiting: list[PublishEvents] = []
        self._lost: dict[str, int] = {}  # {cell name: id after which it must be told again}

    # ---- wiring

    def on_wired(self) -> None:
        setproctitle(f"mcp-gateway: {self.name}")
        arguments: EventLogArguments = self.arguments
        self._order = EventOrder(arguments.retention_events)
        if self.incarnation == 1:
            self._joins = None  # nobody can hold what was never distributed

    def receiveMsg_Ping(self, message: Ping, sender: ActorAddress) -> None:
        self.deliver(sender, Pong(name=self.name, incarnation=self.incarnation, sequence=message.sequence))

    # ---- cells

    def receiveMsg_JoinEventLog(self, message: JoinEventLog, sender: ActorAddress) -> None:
        self._cells[message.cell_name] = sender
        if self._joins is None:
            self._distribute(self._order.join(message), except_cell=message.cell_name)
            self._catch_up(message.cell_name, message.last_event_id)
            return
        if not self._joins:
            self.start_timer("rebuild", JOIN_WAIT_S)
        self._joins[message.cell_name] = message
        if len(self._joins) >= self.arguments.cell_count:
            self.receiveTimer_rebuild(None)

    def receiveTimer_rebuild(self, _payload: object) -> None:
        if self._joins is None:
            return
        joins, self._joins = self._joins, None
        self._order.rebuild(joins.values())
        for join in joins.values():
            self._order.join(join)
        for message in self._waiting:
            self._order.publish(message.events)
        self._waiting.clear()
        for name, join in joins.items():
            self._catch_up(name, join.last_event_id)

    def receiveMsg_PublishEvents(self, message: PublishEvents, sender: ActorAddress) -> None:
        if self._joins is None:
            self._distribute(self._order.publish(message.events))
        else:
            self._waiting.append(message)

    # ---- distribution

    def _distribute(self, events: Sequence[StoredEvent], except_cell: str | None = None) -> None:
        if events:
            message = EventsDistributed(log_incarnation=self.incarnation, events=tuple(events))
            for name, address in self._cells.items():
                if name != except_cell:
                    self.deliver(address, message)

    def _catch_up(self, cell_name: str, after_id: int) -> None:
        events = tuple(self._order.after(after_id))
        message = EventsDistributed(log_incarnation=self.incarnation, events=events, is_catch_up=True)
        self.deliver(self._cells[cell_name], message)

    def on_undeliverable(self, target: ActorAddress, messages: Sequence[object], reason: str) -> None:
        name = next((name for name, address in self._cells.items() if address == target), None)
        ids = [stored.event.id for message in messages if isinstance(message, EventsDistributed) for stored in message.events]
        if name is None or not ids:
            return  # a heartbeat's answer: its absence says enough
        if reason == "dead target":
            del self._cells[name]  # its successor joins by itself
            return
        self.log(logging.WARNING, f"{name} did not take events: {reason}")
        self._lost[name] = min(self._lost.get(name, ids[0]), ids[0] - 1)
        self.start_timer("retry", RETRY_S)

    def receiveTimer_retry(self, _payload: object) -> None:
        lost, self._lost = self._lost, {}
        for name, after_id in lost.items():
            if name in self._cells:
                self._catch_up(name, after_id)
