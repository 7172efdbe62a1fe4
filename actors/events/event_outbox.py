"""Which events a cell owes the log, which it has been given, and which it could give back to a log that lost them. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from mcp_gateway.actors.messages.event_log import EventsDistributed, StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.topics.kept_events import KeptEvents, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event, check_topic

RETURNED_EVENTS = 1_000
"""Of each namespace: a log that lost them takes these back; ours: more than a restart's time of events at any rate we expect."""

MOST_UNSTORED_EVENTS = 10_000  # ours: minutes of a log that is down, at any rate we expect

MOST_BYTES = 16 * 1024 * 1024  # ours, of either: both go to a log in one message


class OutboxFull(Exception):
    """The log has taken nothing for so long that no more can be kept for it."""


class EventOutbox:
    """The events of one start of a cell.

    source:    unique for this start, so that numbers of an earlier start are never taken for repeats.
    retention: how many of the events that came from the log are kept of each namespace.
    """

    def __init__(self, source: str, retention: int = RETURNED_EVENTS) -> None:
        self.source = source
        self._kept = KeptEvents[StoredEvent](retention)
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
    def last_event_id(self) -> int:
        return self._kept.last_id

    @property
    def lost(self) -> LostIds:
        """What is missing of the events that came from the log."""
        return self._kept.lost

    @property
    def returnable(self) -> tuple[StoredEvent, ...]:
        """The newest events of each namespace that came from the log, ids ascending."""
        lost = self.not_returnable
        return tuple(stored for stored in self._kept.after(0) if lost.is_before(stored))

    @property
    def not_returnable(self) -> LostIds:
        """What is missing of the events that came from the log, or beyond what goes back to a log in one message.

        The gateway's own go first, which are few and small.
        """
        left_bytes = MOST_BYTES
        first_ids = []
        for namespace in (self._kept.of_gateway, self._kept.of_clients):
            lost_id = namespace.lost_id
            for count, stored in enumerate(reversed(list(namespace.after(0)))):
                left_bytes -= stored.weight_bytes
                if left_bytes < 0 or count == RETURNED_EVENTS:
                    lost_id = stored.id
                    break
            first_ids.append(lost_id)
        return LostIds(*first_ids)

    def events_after(self, event_id: int) -> list[Event]:
        """What came from the log after this id and is still kept, ids ascending."""
        return [stored.event for stored in self._kept.after(event_id)]

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
        has_news = bool(new) or message.last_id > self.last_event_id
        if has_news and message.after_id > self.last_event_id and not message.is_catch_up:
            return None
        self._kept.lose(message.lost)
        for stored in new:
            if stored.source == self.source and (confirmed := self._unstored.pop(stored.sequence, None)) is not None:
                self._unstored_bytes -= confirmed.weight_bytes
            self._kept.add(stored)
        self._kept.skip_to(message.last_id)
        return [stored.event for stored in new]
