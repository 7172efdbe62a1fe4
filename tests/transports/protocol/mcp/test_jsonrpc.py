"""JSON-RPC envelopes: any bytes give a message or a refusal, and what is read can be written again."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.framing.pieces import joined
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused

BIG_INTEGER = b"9" * 30

# Source: MCP 2026-07-28, basic/index, "Messages".
MESSAGES = {
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}': Request(b"1", "ping", b""),
    b'{"jsonrpc":"2.0","id":"1","method":"ping","params":{}}': Request(b'"1"', "ping", b"{}"),
    b'{"jsonrpc":"2.0","id":-7,"method":"a/b","params":{"x": [1, 2]}}': Request(b"-7", "a/b", b'{"x": [1, 2]}'),
    b'{"jsonrpc":"2.0","id":"","method":""}': Request(b'""', "", b""),
    b' {"method":"ping","jsonrpc":"2.0","id":%b} \n' % BIG_INTEGER: Request(BIG_INTEGER, "ping", b""),
    b'{"jsonrpc":"2.0","method":"notifications/x"}': Notification("notifications/x", b""),
    b'{"jsonrpc":"2.0","method":"n","params":{"a":1}}': Notification("n", b'{"a":1}'),
    b'{"jsonrpc":"2.0","id":1,"result":{}}': Response(b"1", b"{}", b""),
    b'{"jsonrpc":"2.0","id":"a","error":{"code":1,"message":""}}': Response(b'"a"', b"", b'{"code":1,"message":""}'),
    b'{"jsonrpc":"2.0","id":null,"error":{}}': Response(b"null", b"", b"{}"),
    b'{"jsonrpc":"2.0","id":1,"result":{},"extra":[{}]}': Response(b"1", b"{}", b""),
}

# {bytes: (reason, id in the refusal)}
REFUSED = {
    b"": ("parse_error", None),
    b"{": ("parse_error", None),
    b"nonsense": ("parse_error", None),
    b'{"jsonrpc":"2.0","id":1,"method":"ping"}}': ("parse_error", None),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":NaN}}': ("parse_error", None),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":Infinity}}': ("parse_error", None),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xff"}}': ("parse_error", None),
    b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}': ("parse_error", None),
    b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + b"[" * 100_000: ("parse_error", None),
    b'{"jsonrpc":"2.0","id":1,"method":"m","params":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001: ("parse_error", None),
    b"null": ("invalid_request", None),
    b"1": ("invalid_request", None),
    b'"text"': ("invalid_request", None),
    b"[]": ("invalid_request", None),  # batches: only in 2025-03-26, and gone again
    b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]': ("invalid_request", None),
    b"{}": ("invalid_request", None),
    b'{"id":1,"method":"ping"}': ("invalid_request", b"1"),
    b'{"jsonrpc":"1.0","id":1,"method":"ping"}': ("invalid_request", b"1"),
    b'{"jsonrpc":2.0,"id":"x","method":"ping"}': ("invalid_request", b'"x"'),
    b'{"jsonrpc":"2.0"}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":1}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":%b}' % BIG_INTEGER: ("invalid_request", BIG_INTEGER),
    b'{"jsonrpc":"2.0","id":null,"method":"ping"}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":true,"method":"ping"}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":[1],"method":"ping"}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % (b"9" * 5_000): ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":1,"method":7}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":1,"method":null}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":null}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"{}"}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":1,"result":[]}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":null,"result":{}}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":1,"error":"no"}': ("invalid_request", b"1"),
    b'{"jsonrpc":"2.0","id":[],"error":{}}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","id":true,"error":{}}': ("invalid_request", None),
    b'{"jsonrpc":"2.0","result":{}}': ("invalid_request", None),
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
ids = st.text() | st.integers()
objects = st.dictionaries(st.text(), json_values, max_size=4).map(lambda value: json.dumps(value).encode())
id_bytes = ids.map(lambda value: json.dumps(value).encode())
messages = st.one_of(
    st.builds(Request, id_bytes, st.text(), st.just(b"") | objects),
    st.builds(Notification, st.text(), st.just(b"") | objects),
    st.builds(Response, id_bytes, objects, st.just(b"")),
    st.builds(Response, id_bytes | st.just(b"null"), st.just(b""), objects),
)
# Members that a message has, with values it should not have.
broken_messages = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "id": json_values,
        "method": st.text() | json_values,
        "params": json_values,
        "result": json_values,
        "error": json_values,
    },
).map(lambda value: json.dumps(value).encode())


def decoded_or_refused(body: bytes):
    try:
        return jsonrpc.decode(body)
    except Refused as refused:
        assert refused.reason in ("parse_error", "invalid_request")
        assert json.loads(refused.body())["error"]["code"] in (-32700, -32600)
        return refused


@pytest.mark.parametrize("body", MESSAGES, ids=lambda body: body[:60].decode())
def test_messages_are_read_with_their_values_left_as_bytes(body):
    assert jsonrpc.decode(body) == MESSAGES[body]


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: repr(body[:70]))
def test_what_is_no_message_is_refused_with_its_id_where_it_shows_one(body):
    refused = decoded_or_refused(body)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.request_id) == REFUSED[body]


@settings(deadline=None)
@given(st.binary() | st.binary().map(lambda tail: b'{"jsonrpc":"2.0","id":1,"method":"x","params":{' + tail) | broken_messages)
def test_any_bytes_give_a_message_or_a_refusal(body):
    decoded_or_refused(body)


@settings(deadline=None)
@given(messages, st.data())
def test_a_damaged_message_gives_a_message_or_a_refusal(message, data):
    body = bytearray(jsonrpc.encode(message))
    position = data.draw(st.integers(0, len(body) - 1))
    body[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    decoded_or_refused(bytes(body))


@settings(deadline=None)
@given(messages)
def test_what_is_written_reads_as_the_same_message(message):
    assert jsonrpc.decode(jsonrpc.encode(message)) == message


@settings(deadline=None)
@given(messages)
def test_what_is_written_is_json_on_one_line_or_as_its_parts_were(message):
    value = json.loads(jsonrpc.encode(message))
    assert value["jsonrpc"] == "2.0"
    if isinstance(message, Request | Notification):
        assert value["method"] == message.method
        assert ("params" in value) == bool(message.params)


@settings(deadline=None)
@given(ids, st.sampled_from(["request", "result", "error"]))
def test_ids_keep_their_type_and_value(request_id, kind):
    """Source: MCP 2026-07-28, basic/index: the same id in request and response; "1" is not 1."""
    shown = json.dumps(request_id).encode()
    rest = {"request": b'"method":"x"', "result": b'"result":{}', "error": b'"error":{}'}[kind]
    message = jsonrpc.decode(b'{"jsonrpc":"2.0","id":%b,%b}' % (shown, rest))
    assert message.id == shown
    again = json.loads(jsonrpc.encode(message))["id"]
    assert again == request_id
    assert type(again) is type(request_id)
    assert jsonrpc.id_value(message.id) == request_id


@settings(deadline=None)
@given(ids)
def test_a_refusal_carries_the_id_of_the_broken_message(request_id):
    refused = decoded_or_refused(b'{"jsonrpc":"2.0","params":{},"id":%b}' % json.dumps(request_id).encode())
    assert json.loads(refused.body())["id"] == request_id


@pytest.mark.parametrize("depth", [1, 10, 100, 500, 900, 1_000, 3_000, 50_000])
def test_nesting_is_read_or_refused_at_any_depth(depth):
    for start, end in ((b"[", b"]"), (b'{"a":', b"}")):
        params = b'{"a":' + start * depth + b"1" + end * depth + b"}"
        message = decoded_or_refused(b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % params)
        if depth <= 500:
            assert message == Request(b"1", "m", params)
        elif isinstance(message, Refused):
            assert message.reason == "parse_error"


def test_numbers_of_any_size_pass_through_untouched():
    params = b'{"a":%b,"b":1e999,"c":-0,"d":0.1000000000000000055511151231257827}' % (b"9" * 5_000)
    message = jsonrpc.decode(b'{"jsonrpc":"2.0","id":1,"method":"m","params":%b}' % params)
    assert message == Request(b"1", "m", params)


def test_members_of_nothing_are_none_and_of_no_object_an_error():
    assert jsonrpc.members(b"") == {}
    assert {name: bytes(value) for name, value in jsonrpc.members(b'{"a": [1 ,2]}').items()} == {"a": b"[1 ,2]"}
    with pytest.raises(msgspec.ValidationError):
        jsonrpc.members(b"[]")


def test_a_result_of_python_values_is_a_response():
    assert jsonrpc.decode(jsonrpc.encode_result(b"4", {"a": None})) == Response(b"4", b'{"a":null}', b"")


# ---- what servers send

FROM_SERVERS = {
    b'{"jsonrpc":"2.0","id":1,"result":{"a":1},"error":null}': Response(b"1", b'{"a":1}', b""),
    b'{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":1}}': Response(b"1", b"", b'{"code":1}'),
    b'{"jsonrpc":"2.0","id":1,"method":null,"params":null,"result":{},"error":null}': Response(b"1", b"{}", b""),
    b'{"id":1,"result":{}}': Response(b"1", b"{}", b""),
    b'{"jsonrpc":"2.0","id":null,"result":{}}': Response(b"null", b"{}", b""),
    b'{"jsonrpc":"2.0","error":{}}': Response(b"null", b"", b"{}"),
    b'{"jsonrpc":"2.0","id":null,"method":"notifications/x","params":null,"error":null}': Notification("notifications/x", b""),
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":null}': Request(b"1", "ping", b""),
}
NOT_FROM_SERVERS = [
    b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
    b'{"jsonrpc":"2.0","id":1,"result":null,"error":null}',
    b'{"jsonrpc":"2.0","id":1,"result":"text"}',
    b'{"jsonrpc":"2.0","id":[1],"result":{}}',
    b'{"jsonrpc":"1.0","id":1,"result":{}}',
    b'{"error":{"code":403,"message":"of some other program"}}',
    b'{"error":"text"}',
    b'{"jsonrpc":"2.0","id":1,"error":null,"result":{"x":"\xff"}}',
    b'{"id":1,"method":"ping"}',
    b"[]",
]


@pytest.mark.parametrize("body", FROM_SERVERS)
def test_what_a_server_can_only_mean_in_one_way_is_understood_from_it_and_refused_from_a_client(body: bytes) -> None:
    assert jsonrpc.decode_from_server(body) == FROM_SERVERS[body]
    with pytest.raises(Refused):
        jsonrpc.decode(body)


@pytest.mark.parametrize("body", NOT_FROM_SERVERS)
def test_what_could_mean_anything_is_refused_from_a_server_as_well(body: bytes) -> None:
    with pytest.raises(Refused):
        jsonrpc.decode_from_server(body)


@pytest.mark.parametrize("body", MESSAGES)
def test_a_sound_message_is_read_alike_from_both_sides(body: bytes) -> None:
    assert jsonrpc.decode_from_server(body) == MESSAGES[body]


@given(st.binary() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_have_parts_of_which_each_is_a_message_or_is_refused(body: bytes) -> None:
    for part in jsonrpc.parts_of(body):
        with contextlib.suppress(Refused):
            jsonrpc.decode_from_server(part)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (b"7", b"7", True),
        (b"7", b'"7"', True),
        (b'"7"', b"7", True),
        (b'"a"', b'"\\u0061"', True),
        (b"7", b"8", False),
        (b"null", b'"None"', False),
        (b"null", b"7", False),
    ],
)
def test_ids_are_the_same_however_they_are_written(one: bytes, other: bytes, is_same: bool) -> None:
    assert jsonrpc.is_same_id(one, other) == is_same


def test_a_client_may_name_no_member_twice_and_a_server_is_read_as_its_envelope_stands() -> None:
    """An envelope is written anew: what was read of it is what everybody reads."""
    twice = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","name":"b"}}'
    with pytest.raises(Refused) as caught:
        jsonrpc.decode_from_client(twice)
    assert (caught.value.reason, caught.value.request_id) == ("invalid_request", b"7")
    assert isinstance(jsonrpc.decode_from_server(twice), Request)
    for body, message in MESSAGES.items():
        assert jsonrpc.decode_from_client(body) == message


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_no_message_is_refused_to_a_client_as_ever(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        jsonrpc.decode_from_client(body)
    assert (caught.value.reason, caught.value.request_id) == REFUSED[body]


@given(st.integers(0, 140_000), st.sampled_from(["é", "€", "😀"]), st.booleans())
@settings(deadline=None, max_examples=30)
def test_a_large_message_is_text_wherever_its_characters_lie(position: int, character: str, is_cut: bool) -> None:
    whole = character.encode()
    text = b"x" * position + (whole[:-1] if is_cut else whole) + b"x" * (140_000 - position)
    body = b'{"jsonrpc":"2.0","id":1,"result":{"text":"%b"}}' % text
    if is_cut:
        with pytest.raises(Refused, match="Parse error"):
            jsonrpc.decode(body)
    else:
        assert jsonrpc.decode(body) == Response(b"1", b'{"text":"%b"}' % text, b"")


@pytest.mark.parametrize("size", [10, 70_000])
def test_a_result_in_pieces_is_the_same_bytes_and_a_large_one_is_not_copied(size: int) -> None:
    response = Response(b'"a"', b'{"x":"%b"}' % (b"y" * size), b"")
    pieces = jsonrpc.encode_in_pieces(response)
    assert joined(pieces) == jsonrpc.encode_response(response)
    assert isinstance(pieces, bytes) or any(piece is response.result for piece in pieces)
