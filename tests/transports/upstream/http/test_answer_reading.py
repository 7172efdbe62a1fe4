"""Which message of a body answers a request."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.upstream.http.answer_reading import RESULT_FRAME, media_type, read_refusal, read_said, read_usual

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


RESULT = b'{"content":[{"type":"text","text":"%b"}]}' % (b"x" * 100)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":7,"result":%b}' % RESULT,
        b'{"result":%b,"jsonrpc":"2.0","id":7}\n' % RESULT,
        b'{"jsonrpc":"2.0","id":"7","result":%b}' % RESULT,
        b'{"jsonrpc":"2.0","id":8,"result":%b}' % RESULT,
        b'{"jsonrpc":"2.0","id":7,"result":%b,"x":1}' % RESULT,
        b'{"jsonrpc":"2.0","id":7,"result":%b}}' % RESULT,
        b'{"jsonrpc":"2.0","id":7,"result":%b' % RESULT,
        b'{"jsonrpc":"2.0","id":7,"result":%b}' % RESULT.replace(b"x", b"\xff"),
        b'{"jsonrpc":"2.0","id":7,"result":%b}' % RESULT.replace(b"x", b"\n"),
        b'{"jsonrpc":"2.0","id":7,"error":{"code":1}}',
        b"[]",
    ],
)
@pytest.mark.parametrize("begun_bytes", [0, 20, 60])
def test_what_came_in_pieces_says_what_it_says_as_a_whole(body: bytes, begun_bytes: int) -> None:
    before = body[: RESULT_FRAME.before(body[:begun_bytes])]
    rest = body[len(before) :]
    end = len(rest) - RESULT_FRAME.behind(before, memoryview(rest))
    in_pieces, whole = read_said((before, rest[:end], rest[end:]), b"7"), read_said(body, b"7")
    if in_pieces.answer is not None and in_pieces.answer.is_plain:  # looked at in the same pass
        assert in_pieces.answer == msgspec.structs.replace(whole.answer, is_plain=True)
    else:
        assert in_pieces == whole


@given(ANY_JSON, st.booleans(), st.booleans())
def test_any_json_is_an_answer_with_our_id_or_has_a_problem(value: Any, is_event_stream: bool, is_line: bool) -> None:
    body = json.dumps(value).encode()
    said = read_refusal(b"data: " + body if is_line else body, b"7", is_event_stream=is_event_stream)
    if said.answer is None:
        assert said.problem
    else:
        assert said.answer.id == b"7"
        assert bool(said.answer.result) != bool(said.answer.error)


RESPONSE = b'{"jsonrpc":"2.0","id":7,"result":{}}'
EVENT = b"data: %b\n\n" % RESPONSE


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", RESPONSE),
        ("text/event-stream", EVENT),
        ("text/event-stream", EVENT + b"data: {"),
        ("text/event-stream", b"id: 1\n" + EVENT),
    ],
)
def test_one_response_and_nothing_else_is_the_usual_answer(content_type: str, body: bytes) -> None:
    assert read_usual(content_type, body, b"7", 100) == Response(b"7", b"{}", b"")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", RESPONSE),
        ("application/json", b""),
        ("application/json", RESPONSE.replace(b"7", b"8")),
        ("application/json", b'{"jsonrpc":"2.0","method":"notifications/message"}'),
        ("application/json", b"[%b,%b]" % (RESPONSE, RESPONSE.replace(b"7", b"8"))),
        ("text/event-stream", EVENT[:-1]),
        ("text/event-stream", EVENT + EVENT),
        ("text/event-stream", b"id: 1\ndata:\n\n" + EVENT),
        ("text/event-stream", b"event: endpoint\n" + EVENT),
        ("text/event-stream", b"data: %b\n\n" % RESPONSE.replace(b"{}", b'{"a":"%b"}' % (b"x" * 100))),
    ],
)
def test_whatever_else_a_server_says_is_to_be_looked_at_closer(content_type: str, body: bytes) -> None:
    assert read_usual(content_type, body, b"7", 100) is None


def test_a_media_type_is_read_without_its_parameters_and_case() -> None:
    assert media_type({"content-type": "Application/JSON ; charset=utf-8"}) == "application/json"
    assert media_type({}) == ""
