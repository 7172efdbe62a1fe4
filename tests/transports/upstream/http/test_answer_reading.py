"""Which message of a body answers a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.upstream.http.answer_reading import read_refusal, read_said

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)


def test_two_answers_without_id_could_be_anybodys() -> None:
    said = read_said(b'[{"jsonrpc":"2.0","id":null,"result":{}},{"jsonrpc":"2.0","id":null,"error":{}}]', b"7")
    assert said.answer is None
    assert said.problem == "for another request than ours"


@pytest.mark.parametrize(("body", "is_event_stream"), [(b"%b", False), (b"data: {}\n\ndata: %b\n\n", True), (b"data: %b", True)])
def test_the_error_in_a_refusal_is_found_in_either_form(body: bytes, is_event_stream: bool) -> None:
    said = read_refusal(body % b'{"jsonrpc":"2.0","id":7,"error":{"code":1}}', b"7", is_event_stream=is_event_stream)
    assert said.answer == Response(b"7", b"", b'{"code":1}')


@given(ANY_JSON, st.booleans(), st.booleans())
def test_any_json_is_an_answer_with_our_id_or_has_a_problem(value: Any, is_event_stream: bool, is_line: bool) -> None:
    body = json.dumps(value).encode()
    said = read_refusal(b"data: " + body if is_line else body, b"7", is_event_stream=is_event_stream)
    if said.answer is None:
        assert said.problem
    else:
        assert said.answer.id == b"7"
        assert bool(said.answer.result) != bool(said.answer.error)
