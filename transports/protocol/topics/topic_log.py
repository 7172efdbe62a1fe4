"""Topics of the event bus, patterns over them, and the log that readers follow at their own pace."""

from __future__ import annotations

import re
from typing import Any

import attrs
import msgspec

_LONGEST_TOPIC = 200
_TOPIC = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
# The words for every topic. "all" is what clients write in a URL or a channel name, so no topic may have that name.
_EVERYTHING = ("all", "*")
# A reader of a rare topic must not hold up the log's owner for the whole retention.
MOST_EVENTS_LOOKED_AT = 10_000


class InvalidTopic(ValueError):
    """The text is no topic or no pattern; `str()` says which, shortened."""


def check_topic(topic: str) -> str:
    """Return the topic, or raise InvalidTopic: lower-case segments of a-z, 0-9, _ and - joined by ".", 200 characters at most."""
    if len(topic) > _LONGEST_TOPIC or _TOPIC.fullmatch(topic) is None or topic in _EVERYTHING:
        raise InvalidTopic(f"{topic[:_LONGEST_TOPIC]!r} is no topic")
    return topic


class TopicPattern:
    """What a reader follows: one topic ("vsm.algedonic.pain"), all below a segment ("vsm.*"), or everything ("all", "*").

    "vsm.*" means the whole tail, "vsm.algedonic.pain" included, and not the topic "vsm" itself. Raises InvalidTopic.
    """

    __slots__ = ("_exact", "_start", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._exact: str | None = None
        if text in _EVERYTHING:
            self._start = ""
            return
        is_tail = text.endswith(".*")
        try:
            checked = check_topic(text.removesuffix(".*"))
        except InvalidTopic:
            raise InvalidTopic(f"{text[:_LONGEST_TOPIC]!r} is no topic and no pattern such as vsm.* or all") from None
        self._start = f"{checked}."
        if not is_tail:
            self._exact = checked

    def matches(self, topic: str) -> bool:
        return topic == self._exact if self._exact is not None else topic.startswith(self._start)

    def is_within(self, start: str) -> bool:
        """Whether it matches only topics that begin so."""
        return (self._exact or self._start).startswith(start)

    def is_without(self, start: str) -> bool:
        """Whether it matches no topic that begins so. start: whole segments, as "client."."""
        return not self.is_within(start) and (self._exact is not None or not start.startswith(self._start))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TopicPattern) and (self._exact, self._start) == (other._exact, other._start)

    def __hash__(self) -> int:
        return hash((self._exact, self._start))

    def __repr__(self) -> str:
        return f"TopicPattern({self.text!r})"


@attrs.frozen(kw_only=True)
class Event:
    """One event of the log.

    payload_json: a JSON object, encoded once, where the event was published: nobody can change it afterwards, and a large one
                  costs no more memory than its text.
    timestamp_ms: milliseconds since the epoch.
    """

    id: int
    topic: str
    payload_json: bytes = attrs.field(repr=False)
    timestamp_ms: int

    @property
    def payload(self) -> Any:
        """A fresh copy at each call."""
        return msgspec.json.decode(self.payload_json)


@attrs.frozen(kw_only=True)
class Page:
    """What one read found.

    events:   in the order of their ids.
    next_id:  hand this in as `after_id` to read on; events up to here were looked at, wanted or not.
    gap:      first and last id that the log dropped before this reader came, both lost; None when nothing was.
              Their topics are forgotten, so some may not have been wanted.
    has_more: another read would look at further events now.
    """

    events: tuple[Event, ...]
    next_id: int
    gap: tuple[int, int] | None
    has_more: bool


def check_place(after_id: int, limit: int) -> None:
    """Raises: ValueError where nothing can be read so."""
    if after_id < 0 or limit < 1:
        raise ValueError(f"after_id is {after_id}, must be at least 0; limit is {limit}, must be at least 1")


class TopicLog:
    """The newest `retention` events, in memory. Ids rise by one from 1, or from `last_id` + 1 after a restart.

    A reader keeps nothing here but the number it read up to: however slow, it costs no memory, and when it comes too late it
    is told exactly which ids it missed. Appending is O(1).
    """

    __slots__ = ("_events", "_retention", "last_id")

    def __init__(self, retention: int, *, last_id: int = 0) -> None:
        if retention < 1 or last_id < 0:
            raise ValueError(f"retention is {retention}, must be at least 1; last_id is {last_id}, must be at least 0")
        self._retention = retention
        self.last_id = last_id
        # {id: event}, ids without holes. Not a deque: that one walks to the place where a reader starts.
        self._events: dict[int, Event] = {}

    @property
    def first_id(self) -> int:
        """The oldest id that can still be read; last_id + 1 when there is none."""
        return self.last_id - len(self._events) + 1

    def append(self, topic: str, payload: Any, timestamp_ms: int) -> Event:
        """Add an event and drop the oldest if there are more than are kept. Raises InvalidTopic."""
        event = Event(
            id=self.last_id + 1,
            topic=check_topic(topic),
            payload_json=msgspec.json.encode(payload),
            timestamp_ms=timestamp_ms,
        )
        self.add(event)
        return event

    def add(self, event: Event) -> None:
        """Take an event that has its id already. What came before a hole is forgotten: readers are told of all that they miss."""
        if event.id <= self.last_id:
            raise ValueError(f"event {event.id} comes after {self.last_id}")
        self.skip_to(event.id - 1)
        self.last_id = event.id
        self._events[event.id] = event
        self._events.pop(event.id - self._retention, None)

    def skip_to(self, event_id: int) -> None:
        """Ids go on after this one, if they have not come as far: those in between are a hole."""
        if event_id > self.last_id:
            self._events.clear()
            self.last_id = event_id

    def read(self, after_id: int, pattern: TopicPattern, limit: int) -> Page:
        """Read up to `limit` events with ids above `after_id` (0: from the start).

        An id that this log never gave, from a client of another time, reads on from the end: what it saw cannot be known.
        """
        check_place(after_id, limit)
        first_id = self.first_id
        gap = (after_id + 1, first_id - 1) if after_id + 1 < first_id else None
        next_id = start = min(max(after_id, first_id - 1), self.last_id)
        stop = min(self.last_id, start + MOST_EVENTS_LOOKED_AT)
        found: list[Event] = []
        while next_id < stop and len(found) < limit:
            next_id += 1
            event = self._events[next_id]
            if pattern.matches(event.topic):
                found.append(event)
        return Page(events=tuple(found), next_id=next_id, gap=gap, has_more=next_id < self.last_id)

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        assert len(self._events) <= self._retention
        assert sorted(self._events) == list(range(self.first_id, self.last_id + 1))
        assert all(event.id == event_id for event_id, event in self._events.items())
