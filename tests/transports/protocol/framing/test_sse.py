"""Server-Sent Events: the same events however the bytes are cut, in bounded memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.framing.sse import (
    HEARTBEAT,
    KEEP_ALIVE,
    EventStreamParser,
    EventTooLarge,
    ServerSentEvent,
    encode_event,
)

Event = ServerSentEvent
LIMIT = 1_000

# Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream"; priming events: MCP 2025-11-25, basic/transports.
STREAMS = {
    b"data: a\n\n": [Event(b"a")],
    b"data:a\n\n": [Event(b"a")],
    b"data:  a\n\n": [Event(b" a")],
    b"data: a\r\n\r\n": [Event(b"a")],
    b"data: a\r\r": [Event(b"a")],
    b"data: a\r\n\n\rdata: b\n\r\n": [Event(b"a"), Event(b"b")],
    b"data: a\ndata: b\n\n": [Event(b"a\nb")],
    b"data\ndata\n\n": [Event(b"\n")],
    b"data: YHOO\ndata: +2\ndata: 10\n\n": [Event(b"YHOO\n+2\n10")],
    b": comment\n\ndata: a\nid: 1\n\ndata:b\nid\n\n": [Event(b"a", event_id="1"), Event(b"b", event_id="")],
    b"event: endpoint\ndata: /x\n\n": [Event(b"/x", "endpoint")],
    b"event:\ndata: x\n\n": [Event(b"x", "message")],
    b"event: x\nevent: y\ndata: z\n\ndata: z\n\n": [Event(b"z", "y"), Event(b"z")],
    b"\xef\xbb\xbfdata: a\n\n": [Event(b"a")],
    b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n": [],
    b"data: a\n\n\xef\xbb\xbfdata: b\n\n": [Event(b"a")],
    b"id: x\ndata:\n\n": [Event(b"", event_id="x")],
    b"id: x\ndata: \nretry: 500\n\n": [Event(b"", event_id="x", retry_ms=500)],
    b"id: x\n\n": [Event(b"", event_id="x")],
    b"retry: 3000\n\n": [Event(b"", retry_ms=3_000)],
    b"retry: 3 s\n\nretry: -1\n\nretry: 99999999999\n\n": [],
    b"event: lonely\n\n": [],
    b"id: a\0b\ndata: x\n\n": [Event(b"x")],
    b"unknown: x\ndata x\nDATA: y\n\n": [],
    b"data: never ended": [],
    b"data: never ended\n": [],
    b":\n\n:\n\n": [],
    b"\n\n\n": [],
    b"": [],
    "data: \u4e16\u754c\n\n".encode(): [Event("\u4e16\u754c".encode())],
    b"data: \xff\nid: \xff\n\n": [Event(b"\xff", event_id="\ufffd")],
}

# Bytes that matter to the grammar come often.
pieces = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"data",
        b"id: ",
        b"event: ",
        b"retry: 7",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b":",
        b" ",
        b"\xef\xbb\xbf",
        b"x",
        b"\0",
    ]
)
streams = st.lists(pieces | st.binary(max_size=4), max_size=40).map(b"".join)


def events_of(*chunks: bytes, limit: int = LIMIT) -> list[ServerSentEvent]:
    parser = EventStreamParser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def cut(stream: bytes, positions: list[int]) -> list[bytes]:
    ends = sorted(position % (len(stream) + 1) for position in positions)
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


@pytest.mark.parametrize("stream", STREAMS, ids=repr)
def test_streams_give_the_events_of_the_standard(stream):
    assert events_of(stream) == STREAMS[stream]
    assert events_of(*(bytes([byte]) for byte in stream)) == STREAMS[stream]


@settings(deadline=None)
@given(streams, st.lists(st.integers(0, 400), max_size=8))
def test_any_cut_of_any_stream_gives_the_events_of_the_whole(stream, positions):
    assert events_of(*cut(stream, positions)) == events_of(stream)


@settings(deadline=None)
@given(streams, st.lists(st.integers(0, 400), max_size=8), st.integers(0, 30))
def test_whether_an_event_is_too_large_does_not_depend_on_the_cut(stream, positions, limit):
    def is_too_large(*chunks: bytes) -> bool:
        try:
            events_of(*chunks, b"\n\n", limit=limit)
        except EventTooLarge:
            return True
        return False

    assert is_too_large(*cut(stream, positions)) == is_too_large(stream)


def test_an_event_that_ends_with_cr_is_not_held_back():
    """The LF that may follow belongs to the same line end, whenever it comes."""
    parser = EventStreamParser(LIMIT)
    assert parser.feed(b"data: a\r\n\r") == [Event(b"a")]
    assert parser.feed(b"") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: b\r") == []
    assert parser.feed(b"\r") == [Event(b"b")]


@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * LIMIT, b"x" * (LIMIT + 4), b"data: 12345\n" * 100, b"data\n" * 300, b"id: 1234567\n" * 100]
)
def test_an_event_beyond_the_limit_is_refused_before_it_ends(stream):
    with pytest.raises(EventTooLarge):
        events_of(stream)
    with pytest.raises(EventTooLarge):
        events_of(*(stream[start : start + 7] for start in range(0, len(stream), 7)))


def test_an_event_of_just_the_limit_passes():
    assert events_of(b"data: " + b"x" * (LIMIT - 6) + b"\n\n") == [Event(b"x" * (LIMIT - 6))]


def test_events_within_the_limit_pass_in_one_large_chunk():
    assert len(events_of(b"data: 0123456789\n\n" * 1_000)) == 1_000


@pytest.mark.parametrize("size", [0, 1, 4_095, 4_096, 4_097, 70_000])
@pytest.mark.parametrize("written", [b"data: %b\n\n", b"event: message\ndata: %b\n\n", b"data: %b\r\n\r\n", b"data:%b\n: x\n\n"])
def test_messages_of_any_size_are_read_alike_however_they_are_written_and_cut(written: bytes, size: int) -> None:
    large, small = b"x" * size, b"y"
    stream = written % small + written % large + b"id: 7\n" + written % small
    expected = [Event(small), Event(large), Event(small, event_id="7")]
    assert events_of(stream, limit=100_000) == expected
    for at in (1, len(written % small) - 1, len(written % small), len(written % small) + 3, len(stream) - 1):
        assert events_of(stream[:at], stream[at:], limit=100_000) == expected
    assert events_of(b"\xef\xbb\xbf" + stream, limit=100_000) == expected


@pytest.mark.parametrize("size", [74, 75])
def test_the_limit_holds_for_what_is_read_as_a_whole(size: int) -> None:
    stream = b"event: message\ndata: %b\n\n" % (b"x" * size)
    if size + len(b"event: message" + b"data: ") > 94:
        with pytest.raises(EventTooLarge):
            events_of(stream, limit=94)
    else:
        assert events_of(stream, limit=94) == [Event(b"x" * size)]


def test_comments_never_add_up():
    """Some servers keep a stream alive with comments that no blank line ends."""
    assert events_of(*[b": still here\n"] * 1_000, b"data: a\n\n") == [Event(b"a")]


def test_memory_is_bounded_by_the_limit_however_small_the_chunks():
    limit = 100_000
    tracemalloc.start()
    try:
        parser = EventStreamParser(limit)
        with pytest.raises(EventTooLarge):
            for _ in range(limit + 10):
                parser.feed(b"x")
        assert tracemalloc.get_traced_memory()[1] < 3 * limit
    finally:
        tracemalloc.stop()


no_line_breaks = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))


@settings(deadline=None)
@given(
    st.binary(),
    st.none() | no_line_breaks.filter(bool),
    st.none() | no_line_breaks,
    st.none() | st.integers(0, 999_999_999),
    st.lists(st.integers(0, 400), max_size=4),
)
def test_what_is_written_reads_as_the_same_event(data, event, event_id, retry_ms, positions):
    stream = encode_event(data, event=event, event_id=event_id, retry_ms=retry_ms)
    shown = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    expected = [Event(shown, event or "message", event_id, retry_ms)]
    assert events_of(*cut(stream, positions), limit=10_000) == expected
    assert events_of(KEEP_ALIVE, stream, KEEP_ALIVE, limit=10_000) == expected
    assert events_of(stream, HEARTBEAT, limit=10_000) == [*expected, Event(b"{}", "heartbeat")]


@pytest.mark.parametrize(
    "fields", [{"event": "a\nb"}, {"event": "a\rdata: forged"}, {"event_id": "a\nb"}, {"event_id": "\r"}, {"event_id": "\0"}]
)
def test_a_name_or_id_that_would_forge_another_field_is_not_written(fields):
    with pytest.raises(ValueError, match="event"):
        encode_event(b"{}", **fields)
