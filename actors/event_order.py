"""The order of a node's events: numbers them, recognises repeats, rebuilds itself from what the cells still hold. Pure.

Publishers number their events without gaps; of each source only the next number is taken, so an event that overtook a lost one
waits at its publisher and the order within a source is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from mcp_gateway.actors.node_messages import JoinEventLog, StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.topic_log import Event, TopicLog, TopicPattern

_EVERYTHING = TopicPattern("all")


class EventOrder:
    """The events of a node in one order, `retention` of them kept."""

    def __init__(self, retention: int) -> None:
        self._retention = retention
        self._log = TopicLog(retention)
        self._origins: dict[int, tuple[str, int]] = {}  # {event id: (source, sequence)} of the kept events
        self._last_sequences: dict[str, int] = {}  # {source: sequence}

    @property
    def last_id(self) -> int:
        return self._log.last_id

    def rebuild(self, joins: Iterable[JoinEventLog]) -> None:
        """Start from what the cells still hold: ids go on after the highest that any cell has seen.

        Two cells can disagree on an id only if two logs in a row died before they had reached all cells; the first cell's view
        then wins (known gap; closed by a log on disk).
        """
        known: dict[int, StoredEvent] = {}
        last_id = 0
        for join in joins:
            last_id = max(last_id, join.last_event_id)
            for stored in join.recent_events:
                known.setdefault(stored.event.id, stored)
        first_id = last_id + 1
        while first_id - 1 in known and last_id - first_id + 1 < self._retention:
            first_id -= 1
        self._log = TopicLog(self._retention, last_id=first_id - 1)
        self._origins.clear()
        for event_id in range(first_id, last_id + 1):
            self._keep(known[event_id])

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
        if join.unstored:
            before = join.unstored[0].sequence - 1
            self._last_sequences[join.source] = max(self._last_sequences.get(join.source, 0), before)
        self.publish(join.unstored)
        return self.after(first_new - 1)

    def publish(self, events: Iterable[UnstoredEvent]) -> list[StoredEvent]:
        """Store events; return those that are new, with their ids."""
        new = []
        for event in events:
            if event.sequence == self._last_sequences.get(event.source, 0) + 1:
                self._last_sequences[event.source] = event.sequence
                stored = Event(
                    id=self.last_id + 1, topic=event.topic, payload_json=event.payload_json, timestamp_ms=event.timestamp_ms
                )
                self._log.add(stored)
                self._remember_origin(stored.id, event.source, event.sequence)
                new.append(StoredEvent(event=stored, source=event.source, sequence=event.sequence))
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

    def _keep(self, stored: StoredEvent) -> None:
        self._log.add(stored.event)
        self._remember_origin(stored.event.id, stored.source, stored.sequence)
        self._last_sequences[stored.source] = max(self._last_sequences.get(stored.source, 0), stored.sequence)

    def _remember_origin(self, event_id: int, source: str, sequence: int) -> None:
        self._origins[event_id] = (source, sequence)
        self._origins.pop(event_id - self._retention, None)
