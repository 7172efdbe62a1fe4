"""Which events a cell owes the log, which it has been given, and which it could give back to a log that lost them. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

import msgspec

from mcp_gateway.actors.messages.event_log import EventsDistributed, StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.topics.topic_log import Event, check_topic

RETURNED_EVENTS = 1_000  # a log that lost them takes these back; ours: more than a restart's time of events at any rate we expect

MOST_UNSTORED_EVENTS = 10_000  # ours: minutes of a log that is down, at any rate we expect

MOST_BYTES = 16 * 1024 * 1024  # ours, of either: both go to a log in one message


class OutboxFull(Exception):
    """The log has taken nothing for so long that no more can be kept for it."""


class EventOutbox:
    """The events of one start of a cell.

    source:    unique for this start, so that numbers of an earlier start are never taken for repeats.
    retention: how many of the events that came from the log are kept.
    """

    def __init__(self, source: str, retention: int = RETURNED_EVENTS) -> None:
        self.source = source
        self.last_event_id = 0
        self._recent: deque[StoredEvent] = deque(maxlen=retention)
        self._unstored: dict[int, UnstoredEvent] = {}  # by sequence, ascending
        self._unstored_bytes = 0
        self._last_sequence = 0

    @property
    def unstored(self) -> tuple[UnstoredEvent, ...]:
        """Published here, not confirmed by the log, oldest first."""
        return tuple(self._unstored.values())

    @property
    def confirmed_sequence(self) -> int:
        """The log has confirmed everything up to this number."""
        return next(iter(self._unstored), self._last_sequence + 1) - 1

    @property
    def returnable(self) -> tuple[StoredEvent, ...]:
        """The newest events that came from the log, oldest first."""
        found: list[StoredEvent] = []
        left_bytes = MOST_BYTES
        for stored in itertools.islice(reversed(self._recent), RETURNED_EVENTS):
            left_bytes -= stored.weight_bytes
            if left_bytes < 0:
                break
            found.append(stored)
        return tuple(reversed(found))

    def events_after(self, event_id: int) -> list[Event]:
        """What came from the log after this id and is still kept, ids ascending."""
        newer = itertools.takewhile(lambda stored: stored.event.id > event_id, reversed(self._recent))
        return [stored.event for stored in newer][::-1]

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> UnstoredEvent:
        """Number the event and keep it until `take` sees it stored.

        Raises: InvalidTopic, OutboxFull
        """
        if len(self._unstored) >= MOST_UNSTORED_EVENTS or self._unstored_bytes >= MOST_BYTES:
            raise OutboxFull
        event = UnstoredEvent(
            source=self.source,
            sequence=self._last_sequence + 1,
            topic=check_topic(topic),
            payload_json=msgspec.json.encode(payload),
            timestamp_ms=timestamp_ms,
        )
        self._last_sequence = event.sequence
        self._unstored[event.sequence] = event
        self._unstored_bytes += event.weight_bytes
        return event

    def take(self, message: EventsDistributed) -> list[Event] | None:
        """Return what is new here, ids ascending; None, and nothing is taken, if some on the way here were lost: join again."""
        new = [stored for stored in message.events if stored.event.id > self.last_event_id]
        if new and new[0].event.id != self.last_event_id + 1 and not message.is_catch_up:
            return None
        for stored in new:
            if stored.source == self.source and (confirmed := self._unstored.pop(stored.sequence, None)) is not None:
                self._unstored_bytes -= confirmed.weight_bytes
            self.last_event_id = stored.event.id
            self._recent.append(stored)
        return [stored.event for stored in new]
