"""The events that a cell keeps for those who follow topics: the newest of all, of the gateway's own, and of clients' own.

Pure. What clients publish cannot push the gateway's own events out of reach of those who follow these alone, nor the other way
round. Who follows everything reads the newest of all, without holes.
"""

from __future__ import annotations

from .client_events import CLIENT_TOPICS
from .kept_events import KeptEvents, NamespaceEvents
from .topic_log import MOST_EVENTS_LOOKED_AT, Event, Page, TopicLog, TopicPattern, check_place


class RetainedEvents(KeptEvents[Event]):
    """As a `TopicLog` to its readers. retention: how many events are kept of all, of the gateway, and of clients."""

    def __init__(self, retention: int) -> None:
        self._all = TopicLog(retention)
        super().__init__(retention)

    def add(self, event: Event) -> None:
        super().add(event)
        self._all.add(event)

    def skip_to(self, event_id: int) -> None:
        super().skip_to(event_id)
        self._all.skip_to(event_id)

    def read(self, after_id: int, pattern: TopicPattern, limit: int) -> Page:
        """As `TopicLog.read`; the gap of who follows topics of one kind is of ids beyond which that kind has lost nothing."""
        if pattern.is_within(CLIENT_TOPICS):
            return self._read_of(self.of_clients, after_id, pattern, limit)
        if pattern.is_without(CLIENT_TOPICS):
            return self._read_of(self.of_gateway, after_id, pattern, limit)
        return self._all.read(after_id, pattern, limit)

    def _read_of(self, namespace: NamespaceEvents[Event], after_id: int, pattern: TopicPattern, limit: int) -> Page:
        check_place(after_id, limit)
        lost_id = min(namespace.lost_id, self.last_id)  # what lies beyond may still be on its way
        gap = (after_id + 1, lost_id) if after_id < lost_id else None
        next_id = min(max(after_id, lost_id), self.last_id)
        found: list[Event] = []
        for event in namespace.after(next_id, MOST_EVENTS_LOOKED_AT):
            if len(found) == limit:
                break
            next_id = event.id
            if pattern.matches(event.topic):
                found.append(event)
        if next_id >= namespace.newest_id:
            next_id = self.last_id  # what follows is of the other kind
        return Page(events=tuple(found), next_id=next_id, gap=gap, has_more=next_id < self.last_id)

    def assert_consistent(self) -> None:
        super().assert_consistent()
        self._all.assert_consistent()
