"""Phoenix messages as bytes, in both serializers: what clients send is read, whatever else comes is refused in one way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.phoenix.phoenix_serializer import (
    Malformed,
    PhoenixMessage,
    Serializer,
    SerializerV1,
    SerializerV2,
    serializer_for,
)
from mcp_gateway.transports.protocol.mcp.refusals import Refused

V1, V2 = SerializerV1(), SerializerV2()


def binary_push(join_ref: bytes, ref: bytes, topic: bytes, event: bytes, payload: bytes, *, kind: int = 0) -> bytes:
    """As `binaryEncode` of npm phoenix writes it."""
    head = bytes([kind, len(join_ref), len(ref), len(topic), len(event)])
    return head + join_ref + ref + topic + event + payload


@pytest.mark.parametrize(
    ("serializer", "data", "is_text", "expected"),
    [
        (V2, b'["7","8","mcp:events","ping",{}]', True, ("7", "8", "mcp:events", "ping", b"{}")),
        (V2, b' [ null , "8" , "phoenix" , "heartbeat" , { } ] ', True, (None, "8", "phoenix", "heartbeat", b"{ }")),
        (V2, b'[1,2,"t","e",[1,2]]', True, (1, 2, "t", "e", b"[1,2]")),
        (V2, b'["7","8","t","e",{"a":1},"Phoenix ignores this",6]', True, ("7", "8", "t", "e", b'{"a":1}')),
        (V2, '["7","8","tópico","é",{"a":"ü"}]'.encode(), True, ("7", "8", "tópico", "é", '{"a":"ü"}'.encode())),
        (V2, binary_push(b"7", b"8", b"mcp:events", b"ping", b"{}"), False, ("7", "8", "mcp:events", "ping", b"{}")),
        (V2, binary_push(b"", b"8", b"t", b"e", b"\x00\xff"), False, (None, "8", "t", "e", b"\x00\xff")),
        (V2, binary_push(b"7", b"", b"t", "é".encode(), b""), False, ("7", None, "t", "é", b"")),
        (V1, b'{"topic":"t","event":"e","payload":{"a":1},"ref":"8"}', True, (None, "8", "t", "e", b'{"a":1}')),
        (V1, b'{"topic":"t","event":"e","payload":{},"ref":"8","join_ref":"7"}', True, ("7", "8", "t", "e", b"{}")),
        (V1, b'{"topic":"t","event":"e","payload":{},"ref":8,"more":true}', True, (None, 8, "t", "e", b"{}")),
        (V1, b'{"topic":"t","event":"e"}', True, (None, None, "t", "e", b"{}")),
    ],
)
def test_what_clients_send_is_read(serializer: Serializer, data: bytes, is_text: bool, expected: tuple[Any, ...]) -> None:
    assert serializer.decode(data, is_text) == PhoenixMessage(*expected)


@pytest.mark.parametrize(
    ("serializer", "data", "is_text"),
    [
        *((each, data, True) for each in (V1, V2) for data in (b"", b"x", b"null", b"1", b'"text"', b"{}", b"[]", b"[[[")),
        (V2, b'["7","8","t","e"]', True),
        (V2, b'["7","8",9,"e",{}]', True),
        (V2, b'["7","8","t",null,{}]', True),
        (V2, b'[true,"8","t","e",{}]', True),
        (V2, b'["7",{},"t","e",{}]', True),
        (V2, b'["7",1.5,"t","e",{}]', True),
        (V2, b'["7","8","t","e",{}', True),
        (V2, b"[" * 100_000, True),
        (V2, b'["' + b"7" * 256 + b'","8","t","e",{}]', True),
        (V1, b'{"topic":"t","event":"e","payload":{},"ref":"' + b"8" * 256 + b'"}', True),
        (V1, b'{"topic":"t","payload":{},"ref":"8"}', True),
        (V1, b'{"topic":1,"event":"e","payload":{},"ref":"8"}', True),
        (V1, b'["7","8","t","e",{}]', True),
        (V2, b"", False),
        (V2, b"\x00\x01\x01\x01", False),
        (V2, binary_push(b"7", b"8", b"t", b"e", b"", kind=1), False),
        (V2, binary_push(b"7", b"8", b"t", b"e", b"")[:-1], False),
        (V2, binary_push(b"7", b"8", b"\xff", b"e", b""), False),
    ],
)
def test_what_is_no_message_is_refused(serializer: Serializer, data: bytes, is_text: bool) -> None:
    with pytest.raises(Malformed) as malformed:
        serializer.decode(data, is_text)
    assert not malformed.value.is_unsupported


def test_serializer_1_has_no_binary_messages() -> None:
    with pytest.raises(Malformed) as malformed:
        V1.decode(binary_push(b"7", b"8", b"t", b"e", b"{}"), False)
    assert malformed.value.is_unsupported


def test_what_the_server_sends_has_the_shape_of_its_version() -> None:
    """Source: Phoenix 1.8, `Phoenix.Socket.V1.JSONSerializer` and `Phoenix.Socket.V2.JSONSerializer`."""
    message = PhoenixMessage("7", None, "mcp:events", "event", b'{"event":"x"}')
    asked = PhoenixMessage("7", "8", "mcp:events", "ping", b"{}")
    assert json.loads(V2.encode(message)) == ["7", None, "mcp:events", "event", {"event": "x"}]
    assert json.loads(V1.encode(message)) == {"topic": "mcp:events", "event": "event", "payload": {"event": "x"}, "ref": None}
    replied = {"status": "ok", "response": {"a": 1}}
    assert json.loads(V2.encode_reply(asked, "ok", b'{"a":1}', join_ref="7")) == ["7", "8", "mcp:events", "phx_reply", replied]
    shown = {"topic": "mcp:events", "event": "phx_reply", "payload": replied, "ref": "8"}
    assert json.loads(V1.encode_reply(asked, "ok", b'{"a":1}', join_ref="7")) == shown


@pytest.mark.parametrize(
    ("version", "expected"),
    [(None, "1.0.0"), ("", "1.0.0"), ("1.0.0", "1.0.0"), ("1.0.7", "1.0.0"), ("2.0.0", "2.0.0"), ("2.0", "2.0.0")],
)
def test_the_client_chooses_the_version(version: str | None, expected: str) -> None:
    assert serializer_for(version).version == expected


@pytest.mark.parametrize("version", ["3.0.0", "2.1.0", "1.1.0", "2", "latest", "x" * 10_000])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(Refused) as refused:
        serializer_for(version)
    assert (refused.value.reason, len(refused.value.text) < 200) == ("invalid_request", True)


# ---- anything at all

refs = st.one_of(st.none(), st.text(max_size=255), st.integers(-(2**63), 2**63 - 1))
payloads = st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(refs, refs, st.text(), st.text(), payloads)
def test_a_message_comes_back_as_it_was_sent(join_ref: Any, ref: Any, topic: str, event: str, payload: dict[str, Any]) -> None:
    data = json.dumps([join_ref, ref, topic, event, payload]).encode()
    read = V2.decode(data, True)
    assert json.loads(V2.encode(read)) == [join_ref, ref, topic, event, payload]
    assert V2.decode(V2.encode(read), True) == read
    assert V1.decode(V1.encode(read), True) == PhoenixMessage(None, ref, topic, event, read.payload)


short = st.text(max_size=60)


@given(short, short, short, short, st.binary())
def test_a_binary_push_comes_back_as_it_was_sent(join_ref: str, ref: str, topic: str, event: str, payload: bytes) -> None:
    read = V2.decode(binary_push(*(each.encode() for each in (join_ref, ref, topic, event)), payload), False)
    assert read == PhoenixMessage(join_ref or None, ref or None, topic, event, payload)


@given(st.binary(), st.booleans(), st.sampled_from([V1, V2]))
def test_any_bytes_are_a_message_or_malformed(data: bytes, is_text: bool, serializer: Serializer) -> None:
    _decodes_or_is_malformed(serializer, data, is_text)


@given(json_values, st.sampled_from([V1, V2]))
def test_any_json_is_a_message_or_malformed(value: Any, serializer: Serializer) -> None:
    _decodes_or_is_malformed(serializer, json.dumps(value).encode(), True)


@given(st.lists(json_values, min_size=5, max_size=7))
def test_any_array_is_a_message_or_malformed(value: list[Any]) -> None:
    _decodes_or_is_malformed(V2, json.dumps(value).encode(), True)


def _decodes_or_is_malformed(serializer: Serializer, data: bytes, is_text: bool) -> None:
    try:
        message = serializer.decode(data, is_text)
    except Malformed:
        return
    if is_text:
        json.loads(serializer.encode(message))
