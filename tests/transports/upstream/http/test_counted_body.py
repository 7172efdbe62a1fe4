"""A body that is read where it stays: all of it is there, in pieces where its frame is found."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.framing.pieces import joined
from mcp_gateway.transports.upstream.http.counted_body import UNFRAMED, CountedBody, Frame

BRACED = Frame(before=lambda begun: begun.find(b"<") + 1, behind=lambda before, rest: len(bytes(rest)) - bytes(rest).find(b">"))


def fill(body: CountedBody, rest: bytes, step: int) -> None:
    for start in range(0, len(rest), step):
        part = rest[start : start + step]
        body.missing[: len(part)] = part
        body.filled(len(part))
    assert not body.missing


@given(st.binary(min_size=1, max_size=64), st.data())
def test_what_was_filled_in_is_what_comes_out(content: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    before = data.draw(st.integers(0, at))
    behind = data.draw(st.integers(0, len(content) - before))
    body = CountedBody(content[:at], len(content), Frame(before=lambda begun: before, behind=lambda framing, rest: behind))
    fill(body, content[at:], data.draw(st.integers(1, 64)))
    pieces = body.pieces()
    assert joined(pieces) == content
    if before or behind:
        assert pieces == (content[:before], content[before : len(content) - behind], content[len(content) - behind :])
    else:
        assert pieces == content


def test_the_part_in_a_frame_stands_by_itself() -> None:
    body = CountedBody(b"a<b", 7, BRACED)
    fill(body, b"cd>e", 3)
    assert body.pieces() == (b"a<", b"bcd", b">e")


@pytest.mark.parametrize("frame", [UNFRAMED, BRACED])
def test_a_body_of_megabytes_takes_its_size_once(frame: Frame) -> None:
    size = 4_000_000
    begun, part = b"<" + bytes(100_000), bytes(100_000)
    frame = Frame(before=frame.before, behind=lambda before, rest: 1)
    tracemalloc.start()
    try:
        body = CountedBody(begun, size, frame)
        while left := len(body.missing):
            count = min(left, len(part))
            body.missing[:count] = part[:count]
            body.filled(count)
        pieces = body.pieces()
        assert tracemalloc.get_traced_memory()[1] < size * 1.25
    finally:
        tracemalloc.stop()
    assert sum(map(len, pieces)) == size


def test_who_no_longer_waits_leaves_nothing_behind() -> None:
    body = CountedBody(b"a", 3, UNFRAMED)
    body.release()
    body.release()
    with pytest.raises(ValueError, match="released"):
        len(body.missing)
