"""What a tool says of itself is found where it says it, and nowhere else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.tool_outcome import is_tool_error

LARGE = "x" * 70_000


def answer(result: dict[str, Any], **separators: tuple[str, str]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, **separators).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "is_error"),
    [
        ({"content": []}, False),
        ({"content": [], "isError": False}, False),
        ({"content": [], "isError": True}, True),
        ({"isError": True, "content": [], "structuredContent": {"a": 1}, "resultType": "complete"}, True),
        ({"content": [{"type": "text", "text": '"isError":true'}], "isError": False}, False),
        ({"structuredContent": {"isError": True}}, False),
        ({"isError": "true"}, False),
        ({"isError": None}, False),
        ({"content": [{"type": "text", "text": LARGE}], "isError": False}, False),
        ({"content": [{"type": "text", "text": LARGE}], "isError": True}, True),
        ({"content": [{"type": "text", "text": LARGE}], "isError": True, "resultType": "complete"}, True),
    ],
)
def test_a_tool_has_failed_where_its_result_says_so(result: dict[str, Any], is_error: bool) -> None:
    assert is_tool_error(answer(result)) is is_error
    assert is_tool_error(answer(result, separators=(",", ":"))) is is_error


@pytest.mark.parametrize(
    "pieces", [(b'{"result":{"isError":', b"true}}"), (b"{", b'"result":{"t":"%b","isError":' % (b"x" * 70_000), b"true", b"}}")]
)
def test_an_answer_in_pieces_is_looked_at_across_them(pieces: tuple[bytes, ...]) -> None:
    assert is_tool_error(pieces)


@pytest.mark.parametrize("other", [b"", b'"isError"', b'{"isError":true}', b'{"error":{"code":1,"message":"isError"}}', b"[1]"])
def test_what_is_no_result_is_no_error_of_a_tool(other: bytes) -> None:
    assert not is_tool_error(other)


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd(odd: bytes) -> None:
    assert not is_tool_error(odd + b'"isError"')
