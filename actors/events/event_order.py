"""The order of a node's events: numbers them, recognises repeats, takes back what cells hold and the log has lost. Pure.

Publishers number their events without gaps; of each source only the next number is taken, so an event that overtook a lost one
waits at its publisher and the order within a source is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mcp_gateway.actors.messages.event_log import JoinEventLog, StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, KeptEvents, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event


class EventOrder:
    """The events of a node in one order, `retention` of them kept of each namespace.

    stored:  what was kept on disk, ids ascending; `lost` says of which namespace those are that are missing.
    last_id: where ids go on if nobody knows better; the last of `stored`, where there is one.
    """

    def __init__(
        self, retention: int, stored: Sequence[StoredEvent] = (), last_id: int = 0, lost: LostIds = NOTHING_LOST
    ) -> None:
        self._retention = retention
        self._last_sequences: dict[str, int] = {}  # {source: sequence}
        self._start_with(stored, lost, last_id)

    @property
    def last_id(self) -> int:
        return self._kept.last_id

    @property
    def lost(self) -> LostIds:
        """What is missing of the kept events."""
        return self._kept.lost

    def rebuild(self, joins: Iterable[JoinEventLog]) -> list[StoredEvent]:
        """Add what the cells hold beyond this log, ids go on after the highest that any of them has seen; return what is new.

        Without a disk, two cells can disagree on an id if two logs in a row died before they had reached all cells; the first
        cell's view then wins.
        """
        joins = list(joins)
        own = self.after(0)
        last_id = max([self.last_id if own else 0, *(join.last_event_id for join in joins)])
        if not last_id:
            return []
        self._take_back(joins, last_id)
        return self.after(own[-1].id if own else 0)

    def join(self, join: JoinEventLog) -> list[StoredEvent]:
        """Take what a cell holds and this log does not; return what is new in the order."""
        own_last_id = self.last_id
        if join.last_event_id > own_last_id:  # also where nobody can give us the events: the ids must not be used again
            self._take_back([join], join.last_event_id)
        self._last_sequences[join.source] = max(self._last_sequences.get(join.source, 0), join.confirmed_sequence)
        self.publish(join.unstored)
        return self.after(own_last_id)

    def publish(self, events: Iterable[UnstoredEvent]) -> list[StoredEvent]:
        """Number events; return those that are new."""
        new = []
        for event in events:
            if event.sequence == self._last_sequences.get(event.source, 0) + 1:
                numbered = Event(
                    id=self.last_id + 1, topic=event.topic, payload_json=event.payload_json, timestamp_ms=event.timestamp_ms
                )
                stored = StoredEvent(event=numbered, source=event.source, sequence=event.sequence)
                self._kept.add(stored)
                self._note_sequence(stored)
                new.append(stored)
        return new

    def after(self, event_id: int) -> list[StoredEvent]:
        """All kept events with higher ids."""
        return self._kept.after(event_id)

    def _take_back(self, joins: Sequence[JoinEventLog], last_id: int) -> None:
        """Hold, up to last_id, what this log and these cells have between them."""
        held = [(self.lost, self.last_id), *((join.lost, join.last_event_id) for join in joins)]
        lost = LostIds(
            of_gateway=_missing([(each.of_gateway, to_id) for each, to_id in held], last_id),
            of_clients=_missing([(each.of_clients, to_id) for each, to_id in held], last_id),
        )
        known = {stored.id: stored for stored in self.after(0)}
        for join in joins:
            for stored in join.recent_events:
                known.setdefault(stored.id, stored)
        self._start_with([known[event_id] for event_id in sorted(known) if lost.is_before(known[event_id])], lost, last_id)

    def _start_with(self, events: Sequence[StoredEvent], lost: LostIds, last_id: int) -> None:
        self._kept = KeptEvents(self._retention, events, lost, last_id)
        for stored in events:
            self._note_sequence(stored)

    def _note_sequence(self, stored: StoredEvent) -> None:
        self._last_sequences[stored.source] = max(self._last_sequences.get(stored.source, 0), stored.sequence)


def _missing(spans: Iterable[tuple[int, int]], last_id: int) -> int:
    """The highest id up to last_id that is in none of the spans. spans: (first id, not included; last id, included)."""
    missing_id = last_id
    for before_id, to_id in sorted(spans, key=lambda span: span[1], reverse=True):
        if to_id >= missing_id:
            missing_id = min(missing_id, before_id)
    return missing_id
