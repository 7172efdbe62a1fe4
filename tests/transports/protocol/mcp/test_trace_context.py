"""W3C trace context in headers and in `_meta`: read, written, and left alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.trace_context import (
    context_in_headers,
    context_in_params,
    params_with_context,
    trace_id_of,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
OTHER = f"00-{'1' * 32}-{'2' * 16}-00"


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (PARENT, TRACE),
        (f"{PARENT}-what-the-future-brings", None),  # version 00 has four parts
        (f"01{PARENT[2:]}-what-the-future-brings", TRACE),
        (f"ff{PARENT[2:]}", None),
        (PARENT.upper(), None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (PARENT[:-1], None),
        ("", None),
    ],
)
def test_a_traceparent_is_valid_or_none(traceparent: str, trace_id: str | None) -> None:
    """Source: W3C Trace Context, 3.2.2."""
    assert trace_id_of(traceparent) == trace_id


def test_of_the_headers_of_a_request_only_the_context_travels_on() -> None:
    context = {"Traceparent": PARENT, "Tracestate": "a=1", "Baggage": "k=v"}
    expected = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}
    assert context_in_headers({**context, "Host": "localhost", "Authorization": "secret"}) == expected
    assert context_in_headers({"Tracestate": "a=1"}) == {"tracestate": "a=1"}
    assert context_in_headers({}) == {}


def params(meta: object) -> bytes:
    return json.dumps({"name": "echo", "_meta": meta}).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", {}),
        (b'{"name": "echo"}', {}),
        (params({"traceparent": PARENT}), {"traceparent": PARENT}),
        (
            params({"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v", "progressToken": 1}),
            {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"},
        ),
        (params({"traceparent": "nonsense", "tracestate": "a=1"}), {}),
        (params({"traceparent": PARENT, "baggage": "line\nbreak"}), {"traceparent": PARENT}),
        (params({"traceparent": 7}), {}),
        (params("traceparent"), {}),
        (b'{"arguments": {"traceparent": "x"}}', {}),
        (b'["traceparent"]', {}),
    ],
)
def test_the_context_of_a_message_is_read_where_it_is_valid(content: bytes, expected: dict[str, str]) -> None:
    assert context_in_params(content) == expected


def test_a_context_replaces_another_one_and_nothing_else_changes() -> None:
    before = params({"traceparent": OTHER, "tracestate": "gone", "progressToken": 1.50})
    after = params_with_context(before, {"traceparent": PARENT, "baggage": "k=v", "authorization": "never"})
    assert json.loads(after) == {"name": "echo", "_meta": {"progressToken": 1.5, "traceparent": PARENT, "baggage": "k=v"}}
    assert b"1.5" in after
    assert params_with_context(before, {}) == before
    assert params_with_context(b"[1]", {"traceparent": PARENT}) == b"[1]"
    assert json.loads(params_with_context(b"", {"traceparent": PARENT})) == {"_meta": {"traceparent": PARENT}}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(content: bytes) -> None:
    assert isinstance(context_in_params(content + b'"traceparent"'), dict)


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4))
def test_what_was_written_is_read(arguments: dict[str, object]) -> None:
    written = params_with_context(json.dumps({"arguments": arguments}).encode(), {"traceparent": PARENT, "tracestate": "a=1"})
    assert context_in_params(written) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert json.loads(written)["arguments"] == arguments
