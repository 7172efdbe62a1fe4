"""Large responses: what one pass tells is what a closer look tells, and nothing is taken for what it is not."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.result_form import bytes_before_result, in_pieces, is_plain, read_response

TEXT: Any = {"type": "text", "text": "taskId ui://x resourceUri"}
IMAGE: Any = {"type": "image", "data": "AAAA", "mimeType": "image/png", "_meta": {"x": 1}}

PLAIN: list[Any] = [
    {},
    {"content": []},
    {"content": [TEXT, IMAGE, {"type": "audio", "data": "", "mimeType": "audio/wav"}], "isError": False},
    {"content": [TEXT], "structuredContent": {"taskId": "1", "uri": "ui://x"}, "_meta": {"a/b": {"c": [1]}}},
    {"tools": [{"name": "x"}], "resultType": "complete"},
]
OTHERS: list[Any] = [
    {"content": [TEXT, {"type": "resource_link", "uri": "file:///a", "name": "a"}]},
    {"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": ""}}]},
    {"content": [{"type": "of-tomorrow"}]},
    {"content": [{}]},
    {"content": [{**TEXT, "_meta": {"ui": {"resourceUri": "ui://a"}}}]},
    {"content": [TEXT], "_meta": {"ui/resourceUri": "a"}},
    {"content": [TEXT], "_meta": {"io.modelcontextprotocol/related-task": {"taskId": "1"}}},
    {"contents": [{"uri": "file:///a", "text": ""}]},
    {"messages": [{"role": "user", "content": TEXT}]},
    {"task": {"taskId": "1"}},
    {"tasks": []},
    {"taskId": "1", "resultType": "task"},
]


@pytest.mark.parametrize("result", PLAIN)
def test_text_images_and_audio_alone_are_plain(result: Any) -> None:
    assert is_plain(json.dumps(result).encode())


@pytest.mark.parametrize("result", OTHERS)
def test_what_may_name_a_resource_or_a_task_is_not(result: Any) -> None:
    assert not is_plain(json.dumps(result).encode())


@pytest.mark.parametrize("result", [b"", b"{", b"[]", b'"x"', b'{"content":1}', b'{"content":[1]}', b"{} {}"])
def test_what_is_no_result_is_an_error(result: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        is_plain(result)


# ---- whole responses


@pytest.mark.parametrize(
    ("body", "request_id", "result"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}', b"1", b'{"content":[]}'),
        (b'{"result":{"content":[]},"jsonrpc":"2.0","id":"a-1"}', b'"a-1"', b'{"content":[]}'),
        (b'\n{ "jsonrpc" : "2.0", "id": -7 ,"result": {} \n} \r\n', b"-7", b"{}"),
        (b'{ "result": { } , "jsonrpc": "2.0" , "id": 0 }\n', b"0", b"{ }"),
    ],
)
def test_a_response_as_serialisers_write_it_is_read(body: bytes, request_id: bytes, result: bytes) -> None:
    before, found, behind = in_pieces(body)
    assert (found, before + found + behind) == (result, body)
    assert read_response(before, found, behind) == (request_id, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"jsonrpc":"2.0","id":1,"result":{}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":[]}',
        b'{"jsonrpc":"2.0","id":1,"result":{"content":{}}}',
        b'{"jsonrpc":"2.0","id":1.5,"result":{}}',
        b'{"jsonrpc":"2.0","id":01,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.1","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,\x0b"result":{}}',
        b'{"result":{"a":{"b":1,"jsonrpc":"2.0","id":1}',
        b'{"result":{},"error":{},"jsonrpc":"2.0","id":1}',
        b'[{"jsonrpc":"2.0","id":1,"result":{}}]',
    ],
)
def test_all_else_is_left_to_who_looks_closer(body: bytes) -> None:
    assert read_response(*in_pieces(body)) is None


@given(
    st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists)),
    st.sampled_from([1, 0, -3, "a", 'q"', "ü"]),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from([b"", b"}", b" \n", b"x", b","]),
)
def test_what_is_read_is_what_a_closer_look_reads(
    result: Any, request_id: Any, result_first: bool, indent: int | None, tail: bytes
) -> None:
    envelope: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
    message = {"result": result, **envelope} if result_first else {**envelope, "result": result}
    body = json.dumps(message, indent=indent, ensure_ascii=False).encode("utf-8", "replace") + tail
    pieces = in_pieces(body)
    found = read_response(*pieces)
    if found is not None:
        assert Response(found[0], pieces[1], b"") == jsonrpc.decode(body)


@pytest.mark.parametrize("before", [b'{"jsonrpc":"2.0","id":"a","result":', b'{ "result" : ', b'{"result":'])
def test_where_a_result_begins_shows_once_it_has_begun_and_no_earlier(before: bytes) -> None:
    body = before + b'{"content":[]}'
    found = [bytes_before_result(body[:count]) for count in range(len(body) + 1)]
    assert found == [0] * (len(before) + 1) + [len(before)] * (len(body) - len(before))


@pytest.mark.parametrize("size", [60_000, 70_000])
def test_a_message_of_any_size_is_read_alike(size: int) -> None:
    result = b'{"content":[{"type":"text","text":"%b"}]}' % (b"x" * size)
    body = b'{"jsonrpc":"2.0","id":1,"result":%b}' % result
    response = jsonrpc.decode_from_server(body)
    assert isinstance(response, Response)
    assert (response.id, response.result, response.error) == (b"1", result, b"")
    assert response.is_plain == (size > 65_536)
    assert response.to(b"2") == Response(b"2", result, b"", response.is_plain)
    with pytest.raises(Refused):
        jsonrpc.decode_from_server(body.replace(b"xx", b"\xff\xff", 1))
