"""Events of topics on an event stream: read back by a parser as they were published."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, ServerSentEvent
from mcp_gateway.transports.protocol.topics.topic_events import encode_connected, encode_gap, encode_topic_event, parse_event_id
from mcp_gateway.transports.protocol.topics.topic_log import TopicLog

PAYLOADS = st.dictionaries(st.text(), st.none() | st.integers(-(2**53), 2**53) | st.text() | st.lists(st.text()), max_size=4)


def parsed(data: bytes) -> ServerSentEvent:
    (event,) = EventStreamParser(1 << 20).feed(data)
    return event


@given(
    payload=PAYLOADS,
    topic=st.from_regex(r"[a-z0-9_-]{1,9}(\.[a-z0-9_-]{1,9}){0,3}", fullmatch=True).filter(lambda topic: topic != "all"),
)
def test_an_event_is_read_back_as_it_was_published(payload: dict[str, Any], topic: str) -> None:
    logged = TopicLog(1, last_id=41).append(topic, payload, 1_700_000_000_123)
    event = parsed(encode_topic_event(logged))
    assert (event.event, event.event_id) == ("vsm_event", "42")
    assert json.loads(event.data) == {"event_type": topic, "payload": payload, "timestamp": 1_700_000_000_123}


def test_a_gap_tells_the_range_and_moves_the_client_behind_it() -> None:
    event = parsed(encode_gap((3, 9)))
    assert (event.event, event.event_id, json.loads(event.data)) == ("gap", "9", {"first_id": 3, "last_id": 9, "count": 7})


@pytest.mark.parametrize("last_id", [None, 0, 7])
def test_a_stream_begins_with_its_topic_and_its_place(last_id: int | None) -> None:
    event = parsed(encode_connected("vsm.*", last_id, 1_000))
    assert (event.event, event.event_id) == ("connected", None if last_id is None else str(last_id))
    assert (event.retry_ms, json.loads(event.data)) == (1_000, {"topic": "vsm.*"})


@pytest.mark.parametrize(
    ("text", "event_id"),
    [
        ("0", 0),
        ("007", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("9" * 5_000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1_0", None),
        ("٣", None),
        ("²", None),
        ("1e3", None),
    ],
)
def test_an_id_is_a_whole_number_that_a_log_could_have_given(text: str, event_id: int | None) -> None:
    assert parse_event_id(text) == event_id
