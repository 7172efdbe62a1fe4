"""The events that a cell keeps for those who follow topics: the newest of all, of the gateway's own, and of clients' own.

Pure. What clients publish cannot push the gateway's own events out of reach of those who follow these alone, nor the other way
round. Who follows everything reads the newest of all, without holes.

Known gap: the log of the node and its file keep the newest of all, so a cell that starts again begins with these. Keeping them
apart there as well needs a word of the log about which ids each of the two has lost.
"""

from __future__ import annotations

from bisect import bisect_right

from .client_events import CLIENT_TOPICS
from .topic_log import MOST_EVENTS_LOOKED_AT, Event, Page, TopicLog, TopicPattern, check_place


class RetainedEvents:
    """As a `TopicLog` to its readers. retention: how many events are kept of all, of the gateway, and of clients."""

    __slots__ = ("_all", "_of_clients", "_of_gateway")

    def __init__(self, retention: int) -> None:
        self._all = TopicLog(retention)
        self._of_clients = _Part(retention)
        self._of_gateway = _Part(retention)

    @property
    def last_id(self) -> int:
        return self._all.last_id

    def add(self, event: Event) -> None:
        """Take an event that has its id already. What came before a hole is forgotten: readers are told of all that they miss."""
        if event.id != self._all.last_id + 1:
            self._of_clients.lose_before(event.id)
            self._of_gateway.lose_before(event.id)
        self._all.add(event)
        (self._of_clients if event.topic.startswith(CLIENT_TOPICS) else self._of_gateway).add(event)

    def read(self, after_id: int, pattern: TopicPattern, limit: int) -> Page:
        """As `TopicLog.read`; the gap of who follows topics of one kind is of ids beyond which that kind has lost nothing."""
        if pattern.is_within(CLIENT_TOPICS):
            return self._of_clients.read(after_id, pattern, limit, self.last_id)
        if pattern.is_without(CLIENT_TOPICS):
            return self._of_gateway.read(after_id, pattern, limit, self.last_id)
        return self._all.read(after_id, pattern, limit)

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        self._all.assert_consistent()
        for part in (self._of_clients, self._of_gateway):
            part.assert_consistent(self.last_id)


class _Part:
    """The newest events of one kind, ids ascending. lost_id: the highest id that is not kept and may have been of this kind."""

    __slots__ = ("_events", "_ids", "_retention", "_start", "lost_id")

    def __init__(self, retention: int) -> None:
        self._retention = retention
        self._ids: list[int] = []  # what stands before `_start` is of events that were dropped
        self._start = 0
        self._events: dict[int, Event] = {}
        self.lost_id = 0

    def add(self, event: Event) -> None:
        self._ids.append(event.id)
        self._events[event.id] = event
        if len(self._events) > self._retention:
            self.lost_id = self._ids[self._start]
            del self._events[self.lost_id]
            self._start += 1
            if self._start > self._retention:  # now and then, so that adding stays cheap
                del self._ids[: self._start]
                self._start = 0

    def lose_before(self, event_id: int) -> None:
        self._ids.clear()
        self._events.clear()
        self._start = 0
        self.lost_id = event_id - 1

    def read(self, after_id: int, pattern: TopicPattern, limit: int, last_id: int) -> Page:
        check_place(after_id, limit)
        gap = (after_id + 1, self.lost_id) if after_id < self.lost_id else None
        next_id = min(max(after_id, self.lost_id), last_id)
        first = bisect_right(self._ids, next_id, self._start)
        found: list[Event] = []
        for event_id in self._ids[first : first + MOST_EVENTS_LOOKED_AT]:
            if len(found) == limit:
                break
            next_id = event_id
            if pattern.matches(self._events[event_id].topic):
                found.append(self._events[event_id])
        if not self._ids or next_id >= self._ids[-1]:
            next_id = last_id  # what follows is of the other kind
        return Page(events=tuple(found), next_id=next_id, gap=gap, has_more=next_id < last_id)

    def assert_consistent(self, last_id: int) -> None:
        kept = self._ids[self._start :]
        assert kept == sorted(self._events)
        assert len(kept) <= self._retention
        assert len(self._ids) <= 2 * self._retention + 1
        assert self.lost_id < (kept[0] if kept else last_id + 1)
