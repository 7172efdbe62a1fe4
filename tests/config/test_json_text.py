"""JSON as people keep it: with comments and in every encoding, or one clear problem with its place."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_gateway.config.json_text import NotJson, read_json

PLAIN = '{"a": ["é", 1]}'


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        PLAIN.replace(" ", "\r\n").encode(),
        '// first\n{"a": /* here */ ["é", 1,],}\n// last'.encode(),
        "{a: ['é', 1]}".encode(),
        '{"a": ["é", +1]} // JSON5'.encode("utf-16"),
    ],
)
def test_every_way_of_writing_gives_the_same(content: bytes) -> None:
    assert read_json(content).value == {"a": ["é", 1]}


def test_what_looks_like_a_comment_in_a_string_is_none() -> None:
    document = read_json(b'{"url": "http://h//mcp", /* c */ "glob": "/**/*", "quote": "\\"//", }')
    assert document.value == {"url": "http://h//mcp", "glob": "/**/*", "quote": '"//'}


@pytest.mark.parametrize("end", ["", " // comment"])
def test_of_a_key_that_stands_twice_the_last_counts_and_it_is_named(end: str) -> None:
    document = read_json(f'{{"a": {{"b": 1, "b": 2}}, "c": {{}}, "a": {{"b": 3}}}}{end}'.encode())
    assert (document.value, document.twice) == ({"a": {"b": 3}, "c": {}}, ("b", "a"))


@pytest.mark.parametrize(
    ("content", "found", "place"),
    [
        (b"", "an empty file", (None, None)),
        (b" \r\n", "an empty file", (None, None)),
        (b'{"a": 1 "b": 2}', 'invalid JSON (unexpected """)', (1, 9)),
        (b'{\n  "a": [1\n}', 'invalid JSON (unexpected "}")', (3, 1)),
        (b"{", "invalid JSON (unexpected end of input)", (1, 2)),
        (b"\x01", "invalid JSON (an unexpected character)", (1, 1)),
        (b"[" * 100_000, "arrays or objects nested too deeply", (None, None)),
        (b"9" * 5_000, "an integer of more than 4300 digits", (None, None)),
        (b'{"a":\n "\xff"}', "byte 0xff, which is not UTF-8", (2, 3)),
        (b"\xff\xfe\x00", "byte 0x00, which is not UTF-16", (1, 1)),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(content: bytes, found: str, place: tuple[int | None, int | None]) -> None:
    with pytest.raises(NotJson) as refusal:
        read_json(content)
    assert (refusal.value.found, (refusal.value.line, refusal.value.column)) == (found, place)


def test_a_large_file_with_a_mistake_is_refused_at_once() -> None:
    """The reader for comments would take minutes."""
    with pytest.raises(NotJson, match="invalid JSON"):
        read_json(b'{"a": "' + b"x" * 4_000_000 + b'" // comment\n}')


@hypothesis_settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.text(alphabet="{}[]:,'\"/*\\ n1e-.\n\u2028é", max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        read_json(content)
    except NotJson as error:
        assert error.found.isprintable()


def test_the_reader_for_comments_is_loaded_for_them_only() -> None:
    code = "import sys; from mcp_gateway.config.json_text import read_json; read_json(b'{}'); print('json5' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
