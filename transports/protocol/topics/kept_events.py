"""The newest events of each namespace: the gateway's own topics, and those that clients publish. Pure.

Neither can push the other's events out. What is kept therefore has holes, and an id that is missing tells nobody whose it was:
that is what `LostIds` are for, which go along wherever events go, to disk and from process to process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Generic, Protocol, TypeVar

import attrs

from .client_events import CLIENT_TOPICS


class Logged(Protocol):
    """What has a place in the log: an event, alone or with where it came from."""

    @property
    def id(self) -> int: ...

    @property
    def topic(self) -> str: ...


E = TypeVar("E", bound=Logged)


@attrs.frozen
class LostIds:
    """Of each namespace, the highest id that is not kept and may have been of it; above it, nothing of the namespace is missing.

    0: nothing was lost.
    """

    of_gateway: int = 0
    of_clients: int = 0

    @classmethod
    def of_both(cls, event_id: int) -> LostIds:
        """Nobody knows what the ids up to this one were."""
        return cls(event_id, event_id)

    @property
    def highest(self) -> int:
        return max(self.of_gateway, self.of_clients)

    def is_before(self, event: Logged) -> bool:
        """Whether the event is not among what was lost."""
        return event.id > (self.of_clients if is_of_clients(event.topic) else self.of_gateway)


NOTHING_LOST: Final = LostIds()


def is_of_clients(topic: str) -> bool:
    """Whether it is of the namespace of clients, not of the gateway's."""
    return topic.startswith(CLIENT_TOPICS)


class KeptEvents(Generic[E]):
    """The newest `retention` events of each namespace.

    events:  ids ascending; where some are missing between them, `lost` says of which namespace they were.
    last_id: where ids go on, if that is beyond all of these.
    """

    def __init__(self, retention: int, events: Iterable[E] = (), lost: LostIds = NOTHING_LOST, last_id: int = 0) -> None:
        self.last_id = 0
        self.of_gateway = NamespaceEvents[E](retention)
        self.of_clients = NamespaceEvents[E](retention)
        self.lose(lost)
        for event in events:
            self.add(event)
        self.last_id = max(self.last_id, last_id)

    @property
    def lost(self) -> LostIds:
        return LostIds(self.of_gateway.lost_id, self.of_clients.lost_id)

    def lose(self, lost: LostIds) -> None:
        """Some of the ids that are to come were lost where they come from. What came before them is forgotten: readers are told
        of all that they miss."""
        for namespace, lost_id in ((self.of_gateway, lost.of_gateway), (self.of_clients, lost.of_clients)):
            if lost_id > self.last_id:
                namespace.lose_through(lost_id)

    def skip_to(self, event_id: int) -> None:
        """Ids go on after this one, if they have not come as far; those in between that nothing is known of count as lost."""
        if event_id > max(self.last_id, self.lost.highest):
            self.lose(LostIds.of_both(event_id))
        self.last_id = max(self.last_id, event_id)

    def add(self, event: E) -> None:
        """Take an event that has its id already; the ids before it that nothing is known of count as lost."""
        if event.id <= self.last_id:
            raise ValueError(f"event {event.id} comes after {self.last_id}")
        self.skip_to(event.id - 1)
        self.last_id = event.id
        (self.of_clients if is_of_clients(event.topic) else self.of_gateway).add(event)

    def after(self, event_id: int) -> list[E]:
        """All kept events with higher ids, ids ascending."""
        found = [*self.of_gateway.after(event_id), *self.of_clients.after(event_id)]
        return sorted(found, key=lambda event: event.id)

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        for namespace in (self.of_gateway, self.of_clients):
            namespace.assert_consistent()
        assert all(is_of_clients(event.topic) for event in self.of_clients.after(0))
        assert not any(is_of_clients(event.topic) for event in self.of_gateway.after(0))


class NamespaceEvents(Generic[E]):
    """The newest events of one namespace, ids ascending. lost_id: see `LostIds`."""

    __slots__ = ("_events", "_ids", "_retention", "_start", "lost_id")

    def __init__(self, retention: int) -> None:
        if retention < 1:
            raise ValueError(f"retention is {retention}, must be at least 1")
        self._retention = retention
        self._ids: list[int] = []  # what stands before `_start` is of events that were dropped
        self._start = 0
        self._events: dict[int, E] = {}
        self.lost_id = 0

    @property
    def newest_id(self) -> int:
        """0 where nothing is kept."""
        return self._ids[-1] if self._events else 0

    def add(self, event: E) -> None:
        self.lost_id = min(self.lost_id, event.id - 1)  # it was told as lost too early: here it is
        self._ids.append(event.id)
        self._events[event.id] = event
        if len(self._events) > self._retention:
            self.lost_id = self._ids[self._start]
            del self._events[self.lost_id]
            self._start += 1
            if self._start > self._retention:  # now and then, so that adding stays cheap
                del self._ids[: self._start]
                self._start = 0

    def lose_through(self, event_id: int) -> None:
        """This id and all before it; none of those that are kept is above it."""
        self._ids.clear()
        self._events.clear()
        self._start = 0
        self.lost_id = event_id

    def after(self, event_id: int, most: int | None = None) -> Iterator[E]:
        """The kept events with higher ids, the first `most` of them."""
        first = bisect_right(self._ids, event_id, self._start)
        return map(self._events.__getitem__, self._ids[first : None if most is None else first + most])

    def assert_consistent(self) -> None:
        kept = self._ids[self._start :]
        assert kept == sorted(self._events)
        assert len(kept) <= self._retention
        assert len(self._ids) <= 2 * self._retention + 1
        assert not kept or self.lost_id < kept[0]
