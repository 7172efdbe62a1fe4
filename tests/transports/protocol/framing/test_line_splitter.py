"""Tests of lines from chunks."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mcp_gateway.transports.protocol.framing.line_splitter import LineSplitter, LongLine


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a", b"b", b"\n"], [b"ab"]),
        ([b"a\r\n \t\nb"], [b"a"]),
        ([b"\n\n\n"], []),
        ([b"", b"a\n", b""], [b"a"]),
        ([b"12345678\n"], [b"12345678"]),
    ],
)
def test_a_line_is_given_once_its_end_has_come_and_empty_ones_never(chunks: list[bytes], lines: list[bytes]) -> None:
    splitter = LineSplitter(8)
    assert [line for chunk in chunks for line in splitter.feed(chunk)] == lines


def test_what_has_no_end_is_given_when_no_more_will_come() -> None:
    splitter = LineSplitter(8)
    assert splitter.feed(b"a\nb") == [b"a"]
    assert splitter.rest() == b"b"
    assert splitter.rest() == b""


def test_of_a_line_beyond_the_limit_the_ends_are_kept_and_the_next_line_is_whole() -> None:
    splitter = LineSplitter(1_000)
    body = b"<" + b"x" * 5_000 + b">"
    assert splitter.feed(body + b"\nnext\n") == [LongLine(body[:256], body[-256:]), b"next"]
    lines = [line for start in range(0, len(body), 100) for line in splitter.feed(body[start : start + 100])]
    assert lines == []
    assert splitter.feed(b"\nnext\n") == [LongLine(body[:256], body[-256:]), b"next"]


@given(st.binary(max_size=400), st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 50))
def test_how_the_bytes_are_cut_makes_no_difference_and_no_more_than_a_line_is_held(
    data: bytes, cuts: list[int], limit: int
) -> None:
    whole = LineSplitter(limit)
    expected = whole.feed(data)
    splitter, lines, position = LineSplitter(limit), [], 0
    while position < len(data):
        size = cuts[position % len(cuts)]
        lines += splitter.feed(data[position : position + size])
        position += size
    assert lines == expected
    assert splitter.rest() == whole.rest()
    assert all(len(line) <= limit for line in lines if isinstance(line, bytes))
