"""The order of a node's events: numbers them, recognises repeats, takes back what cells hold and the log has lost. Pure.

Publishers number their events without gaps; of each source only the next number is taken, so an event that overtook a lost one
waits at its publisher and the order within a source is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from mcp_gateway.actors.messages.event_log import JoinEventLog, StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.topics.topic_log import Event, TopicLog, TopicPattern

_EVERYTHING = TopicPattern("all")


class EventOrder:
    """The events of a node in one order, `retention` of them kept.

    stored:  what was kept on disk, ids ascending without holes.
    last_id: where ids go on if nobody knows better; the last of `stored`, where there is one.
    """

    def __init__(self, retention: int, stored: Iterable[StoredEvent] = (), last_id: int = 0) -> None:
        self._retention = retention
        self._log = TopicLog(retention, last_id=last_id)
        self._origins: dict[int, tuple[str, int]] = {}  # {event id: (source, sequence)} of the kept events
        self._last_sequences: dict[str, int] = {}  # {source: sequence}
        self._start_with(list(stored))

    @property
    def last_id(self) -> int:
        return self._log.last_id

    def rebuild(self, joins: Iterable[JoinEventLog]) -> list[StoredEvent]:
        """Add what the cells hold beyond this log, ids go on after the highest that any of them has seen; return what is new.

        Without a disk, two cells can disagree on an id if two logs in a row died before they had reached all cells; the first
        cell's view then wins.
        """
        own = self.after(0)
        known = {stored.event.id: stored for stored in own}
        last_id = self.last_id if own else 0
        for join in joins:
            last_id = max(last_id, join.last_event_id)
            for stored in join.recent_events:
                known.setdefault(stored.event.id, stored)
        if not last_id:
            return []
        first_id = last_id + 1
        while first_id - 1 in known and last_id - first_id + 1 < self._retention:
            first_id -= 1
        self._log = TopicLog(self._retention, last_id=last_id)
        self._start_with([known[event_id] for event_id in range(first_id, last_id + 1)])
        return self.after(own[-1].event.id if own else 0)

    def join(self, join: JoinEventLog) -> list[StoredEvent]:
        """Take what a cell holds and this log does not; return what is new in the order."""
        first_new = self.last_id + 1
        for stored in join.recent_events:
            if stored.event.id == self.last_id + 1:
                self._keep(stored)
        if join.last_event_id > self.last_id:
            # It saw events that nobody can give us: the ids must not be used again.
            self._log = TopicLog(self._retention, last_id=join.last_event_id)
            self._origins.clear()
        self._last_sequences[join.source] = max(self._last_sequences.get(join.source, 0), join.confirmed_sequence)
        self.publish(join.unstored)
        return self.after(first_new - 1)

    def publish(self, events: Iterable[UnstoredEvent]) -> list[StoredEvent]:
        """Number events; return those that are new."""
        new = []
        for event in events:
            if event.sequence == self._last_sequences.get(event.source, 0) + 1:
                numbered = Event(
                    id=self.last_id + 1, topic=event.topic, payload_json=event.payload_json, timestamp_ms=event.timestamp_ms
                )
                stored = StoredEvent(event=numbered, source=event.source, sequence=event.sequence)
                self._keep(stored)
                new.append(stored)
        return new

    def after(self, event_id: int) -> list[StoredEvent]:
        """All kept events with higher ids."""
        found: list[StoredEvent] = []
        has_more = event_id < self.last_id
        while has_more:
            page = self._log.read(event_id, _EVERYTHING, limit=self._retention)
            for event in page.events:
                source, sequence = self._origins[event.id]
                found.append(StoredEvent(event=event, source=source, sequence=sequence))
            event_id, has_more = page.next_id, page.has_more
        return found

    def _start_with(self, events: list[StoredEvent]) -> None:
        if events:
            self._log = TopicLog(self._retention, last_id=events[0].event.id - 1)
        self._origins.clear()
        for stored in events:
            self._keep(stored)

    def _keep(self, stored: StoredEvent) -> None:
        self._log.add(stored.event)
        self._origins[stored.event.id] = (stored.source, stored.sequence)
        self._origins.pop(stored.event.id - self._retention, None)
        self._last_sequences[stored.source] = max(self._last_sequences.get(stored.source, 0), stored.sequence)
