"""The order that the cluster's log gives, as one node has it."""

from __future__ import annotations

import os

import msgspec
import pytest

from mcp_gateway.actors.cluster.engine import MAX_PAYLOAD_BYTES, LogEntry
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.stream_order import MAX_EVENT_BYTES, StreamOrder, read_entry, sealed_entry
from mcp_gateway.actors.messages.event_log import JoinEventLog, StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.topics.topic_log import Event

CIPHER = packet_cipher(b"s" * 32)


def unstored(sequence: int, source: str = "cell", payload: bytes = b"{}") -> UnstoredEvent:
    return UnstoredEvent(source=source, sequence=sequence, topic="mcp.x", payload_json=payload, timestamp_ms=5)


def stored(event_id: int, sequence: int = 1) -> StoredEvent:
    event = Event(id=event_id, topic="mcp.x", payload_json=b"{}", timestamp_ms=5)
    return StoredEvent(event=event, source="cell", sequence=sequence)


def test_what_is_published_has_no_id_before_it_comes_back() -> None:
    order = StreamOrder(10)
    assert order.publish([unstored(1), unstored(2)]) == []
    assert order.take_published() == [unstored(1), unstored(2)]
    assert order.take_published() == []
    assert order.last_id == 0
    back = [stored(7, sequence=1), stored(8, sequence=2)]
    assert order.take(back) == back
    assert order.after(0) == back
    assert order.lost.of_gateway == 6
    assert order.take(back) == []


def test_a_log_that_begins_later_than_this_one_has_come_is_told_as_lost_ids() -> None:
    order = StreamOrder(10)
    order.take([stored(7), stored(8, sequence=2)])
    order.take([stored(100, sequence=3)])
    assert [each.id for each in order.after(0)] == [100]
    assert order.lost.of_gateway == 99


def test_what_a_cell_says_again_is_appended_once_also_after_a_restart() -> None:
    order = StreamOrder(10)
    order.publish([unstored(1), unstored(1), unstored(2)])
    assert order.take_published() == [unstored(1), unstored(2)]
    again = StreamOrder(10, [stored(7, sequence=1)], waiting=[unstored(2)])
    join = JoinEventLog(
        cell_name="cell/0",
        source="cell",
        last_event_id=0,
        recent_events=(),
        confirmed_sequence=0,
        unstored=(unstored(1), unstored(2), unstored(3)),
    )
    again.join(join)
    assert again.take_published() == [unstored(3)]
    assert again.places() == {("cell", 1)}


def test_an_entry_is_read_at_its_own_place_with_the_clusters_key_only() -> None:
    data = sealed_entry(CIPHER, os.urandom(12), "spool", 3, unstored(1))
    found = read_entry(CIPHER, LogEntry(42, "spool", 3, data))
    assert found is not None
    assert (found.id, found.source, found.sequence, found.event.payload_json) == (42, "cell", 1, b"{}")
    for entry in (LogEntry(42, "spool", 4, data), LogEntry(42, "other", 3, data), LogEntry(42, "spool", 3, b"rubbish")):
        assert read_entry(CIPHER, entry) is None
    assert read_entry(packet_cipher(b"t" * 32), LogEntry(42, "spool", 3, data)) is None


@pytest.mark.parametrize("past", [0, 1])
def test_an_event_at_the_largest_size_goes_whole_and_one_past_it_is_told_of(past: int) -> None:
    payload = b'{"a":"' + b"x" * (MAX_EVENT_BYTES + past - 8) + b'"}'
    assert len(payload) == MAX_EVENT_BYTES + past
    data = sealed_entry(CIPHER, os.urandom(12), "spool", 1, unstored(1, payload=payload))
    assert len(data) <= MAX_PAYLOAD_BYTES
    found = read_entry(CIPHER, LogEntry(1, "spool", 1, data))
    assert found is not None
    if past:
        assert msgspec.json.decode(found.event.payload_json)["size_bytes"] == len(payload)
    else:
        assert found.event.payload_json == payload
