"""Halves of characters in escapes: replaced where they stand alone, in every message that would fail for them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.phoenix.phoenix_serializer import SerializerV1, SerializerV2
from mcp_gateway.transports.protocol.framing.surrogates import without_halves
from mcp_gateway.transports.protocol.mcp import jsonrpc


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'"cut \ud83d"', rb'"cut \ufffd"'),
        (rb'"\uDE00 cut"', rb'"\ufffd cut"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\u00e9\n"', rb'"\u00e9\n"'),
        (rb'"\ud83"', rb'"\ud83"'),
        (b"", b""),
    ],
)
def test_halves_are_replaced_and_nothing_else(text: bytes, expected: bytes) -> None:
    assert without_halves(text) == expected


@given(st.text(st.characters(categories=["Cs", "Lu", "So"]) | st.sampled_from('\\"u\U0001f600'), max_size=30))
def test_any_text_that_json_can_carry_becomes_one_that_utf_8_can(text: str) -> None:
    written = json.dumps(text).encode()
    read = json.loads(without_halves(written))
    assert read.encode() is not None
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert read == whole


def test_a_message_with_half_a_character_is_read() -> None:
    message = jsonrpc.decode(rb'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"text":"cut \ud83d"}}')
    assert message == jsonrpc.Request(b"7", "tools/call", rb'{"text":"cut \ufffd"}')
    answer = jsonrpc.decode(rb'{"jsonrpc":"2.0","id":7,"result":{"text":"cut \ud83d"}}')
    assert answer == jsonrpc.Response(b"7", rb'{"text":"cut \ufffd"}', b"")


def test_a_push_with_half_a_character_is_read() -> None:
    assert SerializerV2().decode(rb'["1","2","mcp:a","request",{"x":"\ud83d"}]', True).payload == rb'{"x":"\ufffd"}'
    push = rb'{"topic":"mcp:a","event":"request","payload":{"x":"\ud83d"},"ref":"2"}'
    assert SerializerV1().decode(push, True).payload == rb'{"x":"\ufffd"}'
