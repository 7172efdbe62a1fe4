"""The event log of a node: one order for the events of all cells, kept on disk, distributed to all cells."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from setproctitle import setproctitle
from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.event_log import EventsDistributed, JoinEventLog, PublishEvents, StoredEvent
from mcp_gateway.actors.messages.node import EventLogArguments, Ping, Pong
from mcp_gateway.actors.runtime.asyncio_actor import AsyncioActor
from mcp_gateway.actors.storage.event_store import EventStore

from .event_order import EventOrder

JOIN_WAIT_S = 1.0  # a new log waits that long, after the first cell has joined, for what the others hold
RETRY_S = 1.0
PAGE_BYTES = 1_000_000
_DEAD_AFTER_S = 3.0  # in which a cell's process was not there each time


class EventLog(AsyncioActor):
    """Orders, keeps and distributes events. It has lanes and no loop: there is nothing to wait for but mail and the disk.

    Receives  Wiring, Ping (NodeSupervisor); JoinEventLog, PublishEvents (cells)
    Sends     Pong (NodeSupervisor); EventsDistributed (cells)
    On crash  nothing is lost: what was distributed is on disk, what was not is still with the cell that published it, and joins
              the next log with it. Without a disk, the next log takes back what the cells hold. Ids go on in either case
    """

    def __init__(self) -> None:
        super().__init__()
        self._order = EventOrder(1)
        self._store = EventStore(None, 1, self.log)
        self._is_complete = True  # whether it has all that there is
        self._told = (0, True)  # up to which id the cells were told, and whether that was all
        self._unwritten: list[StoredEvent] = []  # ordered by the messages of this batch
        self._cells: dict[str, ActorAddress] = {}  # by name
        self._joined: dict[str, int] = {}  # {cell name: id after which it is to be told} by the messages of this batch
        self._joins: dict[str, JoinEventLog] | None = {}  # until the log is rebuilt from them
        self._waiting: list[PublishEvents] = []
        self._absences: dict[str, tuple[float, float]] = {}  # {cell name: first and last time that its process was not there}
        self._lost: dict[str, int] = {}  # {cell name: id after which it must be told again}

    # ---- wiring

    def on_wired(self) -> None:
        setproctitle(f"mcp-gateway: {self.name}")
        arguments: EventLogArguments = self.arguments
        self._store = EventStore(arguments.state_path, arguments.retention_events, self.log)
        self._order = self._first_order(arguments.retention_events)
        self._store.loaded = []
        self._told = (self._order.last_id, self._is_complete)
        if self.incarnation == 1:
            self._joins = None  # no cell can hold what was never distributed

    def _first_order(self, retention: int) -> EventOrder:
        """Of what is on disk."""
        return EventOrder(retention, self._store.loaded, self._store.last_id, self._store.lost)

    def receiveMsg_Ping(self, message: Ping, sender: ActorAddress) -> None:
        self.deliver(sender, Pong(name=self.name, incarnation=self.incarnation, sequence=message.sequence))

    # ---- cells

    def receiveMsg_JoinEventLog(self, message: JoinEventLog, sender: ActorAddress) -> None:
        self._cells[message.cell_name] = sender
        self._absences.pop(message.cell_name, None)
        if self._joins is None:
            self._join(message)
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
        self._unwritten += self._order.rebuild(joins.values())
        for join in joins.values():
            self._join(join)
        for message in self._waiting:
            self._unwritten += self._order.publish(message.events)
        self._waiting.clear()

    def _join(self, message: JoinEventLog) -> None:
        self._unwritten += self._order.join(message)
        self._joined[message.cell_name] = message.last_event_id

    def receiveMsg_PublishEvents(self, message: PublishEvents, sender: ActorAddress) -> None:
        if self._joins is None:
            self._unwritten += self._order.publish(message.events)
        else:
            self._waiting.append(message)

    # ---- distribution

    def on_batch_handled(self) -> None:
        """Commit what came together in one transaction, then tell: no cell may see an event that a crash could take back."""
        written, self._unwritten = self._unwritten, []
        if not self._store.write(written, self._order.lost) and self._store.wants_mending:
            self._store.mend(self._order.after(0), self._order.lost)
        joined, self._joined = self._joined, {}
        for name, after_id in joined.items():
            self._catch_up(name, after_id)
        told, self._told = self._told, (self._order.last_id, self._is_complete)
        if self._told != told:
            messages = self._distribution(written, told[0])
            for name, address in self._cells.items():
                for message in messages if name not in joined else ():
                    self.deliver(address, message)

    def _catch_up(self, cell_name: str, after_id: int) -> None:
        """All that a cell has missed; it may be more than any packet takes."""
        for message in self._distribution(self._order.after(after_id), after_id, is_catch_up=True):
            self.deliver(self._cells[cell_name], message)

    def _distribution(
        self, events: Sequence[StoredEvent], after_id: int, *, is_catch_up: bool = False
    ) -> list[EventsDistributed]:
        """For who has all that there is up to after_id."""
        messages = []
        parts = pages(events)
        for number, part in enumerate(parts, start=1):
            messages.append(
                EventsDistributed(
                    log_incarnation=self.incarnation,
                    is_catch_up=is_catch_up and number == 1,
                    has_more=not self._is_complete or (is_catch_up and number < len(parts)),
                    events=part,
                    lost=self._order.lost,
                    last_id=self._order.last_id if number == len(parts) else 0,
                    after_id=after_id,
                )
            )
            after_id = part[-1].id if part else after_id
        return messages

    def on_undeliverable(self, target: ActorAddress, messages: Sequence[object], reason: str) -> None:
        name = next((name for name, address in self._cells.items() if address == target), None)
        distributed = [message for message in messages if isinstance(message, EventsDistributed)]
        if name is None or not distributed:
            return  # a heartbeat's answer: its absence says enough
        if reason == "dead target":
            now_s = self.monotonic_s()
            first_s, last_s = self._absences.get(name, (now_s, now_s))
            self._absences[name] = first_s, last_s = (now_s if now_s - last_s > _DEAD_AFTER_S else first_s), now_s
            if last_s - first_s >= _DEAD_AFTER_S:
                del self._cells[name], self._absences[name]  # its successor joins by itself
                return
        level = logging.INFO if reason == "dead target" else logging.WARNING  # its supervisor says more of a death
        self.log(level, f"{name} did not take events: {reason}")
        after_id = min(message.after_id for message in distributed)
        self._lost[name] = min(self._lost.get(name, after_id), after_id)
        self.start_timer("retry", RETRY_S)

    def receiveTimer_retry(self, _payload: object) -> None:
        lost, self._lost = self._lost, {}
        self._joined |= {name: after_id for name, after_id in lost.items() if name in self._cells}

    # ---- lifecycle

    def on_exit(self) -> None:
        if self._store.lacks_events:  # there may be room again: after this nobody has them any more
            self._store.mend(self._order.after(0), self._order.lost)
        self._store.close()


def pages(events: Sequence[StoredEvent]) -> list[tuple[StoredEvent, ...]]:
    """The events in parts that are easily sent, at least one, which may be empty."""
    parts: list[list[StoredEvent]] = [[]]
    size_bytes = 0
    for stored in events:
        size_bytes += stored.weight_bytes
        if parts[-1] and size_bytes > PAGE_BYTES:
            parts.append([])
            size_bytes = stored.weight_bytes
        parts[-1].append(stored)
    return [tuple(part) for part in parts]
