"""The order of a cluster's events as one node has it: the cluster's log gives the ids. Pure.

What the node's own cells publish waits until it has come back from that log; only then has it an id, and a place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag

from mcp_gateway.actors.events.event_order import EventOrder
from mcp_gateway.actors.messages.event_log import StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event

from .engine import MAX_PAYLOAD_BYTES, LogEntry

MAX_EVENT_BYTES = MAX_PAYLOAD_BYTES - 4_000
"""Of an event's payload; what it is wrapped in takes the rest."""


class StreamOrder(EventOrder):
    """As `EventOrder`, but what is published here is given out by `take_published`, to be appended to the cluster's log.

    waiting: was published before this order was made, and is not in it.
    """

    def __init__(
        self,
        retention: int,
        stored: Sequence[StoredEvent] = (),
        lost: LostIds = NOTHING_LOST,
        waiting: Iterable[UnstoredEvent] = (),
    ) -> None:
        super().__init__(retention, stored, stored[-1].id if stored else 0, lost)
        self._published: list[UnstoredEvent] = []
        for event in waiting:
            self._last_sequences[event.source] = max(self._last_sequences.get(event.source, 0), event.sequence)

    def publish(self, events: Iterable[UnstoredEvent]) -> list[StoredEvent]:
        """Take events that are new; none of them has an id yet."""
        for event in events:
            if event.sequence == self._last_sequences.get(event.source, 0) + 1:
                self._last_sequences[event.source] = event.sequence
                self._published.append(event)
        return []

    def take_published(self) -> list[UnstoredEvent]:
        """What is new since the last time, in its order."""
        published, self._published = self._published, []
        return published

    def places(self) -> frozenset[tuple[str, int]]:
        """(source, sequence) of all that are kept."""
        return frozenset((stored.source, stored.sequence) for stored in self.after(0))

    def take(self, events: Iterable[StoredEvent], last_id: int = 0) -> list[StoredEvent]:
        """Events of the cluster's log, ids ascending; returns those that are new here. last_id: where that log goes on."""
        new = [stored for stored in events if stored.id > self.last_id]
        for stored in new:
            self._kept.add(stored)
            self._note_sequence(stored)
        self._kept.skip_to(last_id)
        return new


class _Logged(msgspec.Struct, frozen=True, array_like=True):
    topic: str
    payload: bytes
    timestamp_ms: int
    source: str
    sequence: int


_decode = msgspec.msgpack.Decoder(_Logged).decode


def sealed_entry(cipher: KeyRing, nonce: bytes, source: str, number: int, event: UnstoredEvent) -> bytes:
    """What is appended to the log for an event, under this source and number: readable for nodes of the cluster alone.

    An event that is too large for the log is told of by one that says so: those who follow its topic miss it knowingly.
    """
    payload = event.payload_json
    if len(payload) > MAX_EVENT_BYTES:
        payload = msgspec.json.encode({"error": "too large for the log of the cluster", "size_bytes": len(payload)})
    logged = _Logged(event.topic, payload, event.timestamp_ms, event.source, event.sequence)
    return nonce + cipher.encrypt(nonce, msgspec.msgpack.encode(logged), _place(source, number))


def read_entry(cipher: KeyRing, entry: LogEntry) -> StoredEvent | None:
    """The event of an entry; None where no node of this cluster has made it."""
    try:
        logged = _decode(cipher.decrypt(entry.data[:12], entry.data[12:], _place(entry.source, entry.number)))
    except (InvalidTag, msgspec.DecodeError, ValueError):
        return None
    event = Event(id=entry.sequence, topic=logged.topic, payload_json=logged.payload, timestamp_ms=logged.timestamp_ms)
    return StoredEvent(event=event, source=logged.source, sequence=logged.sequence)


def _place(source: str, number: int) -> bytes:
    return f"event {source} {number}".encode()
