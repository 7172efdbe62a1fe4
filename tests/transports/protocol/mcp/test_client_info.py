"""What programs call themselves is read of whatever they send, and bounded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.client_info import MOST_LOOKED_THROUGH_BYTES, client_of_request, client_of_session

INFO = {"name": "editor", "version": "3"}


@pytest.mark.parametrize(
    ("info", "known"),
    [
        (INFO, ("editor", "3")),
        ({"name": "editor"}, ("editor", "")),
        ({"name": 7, "version": None}, ("", "")),
        ({"name": "n" * 1_000, "version": "v" * 1_000}, ("n" * 100, "v" * 100)),
        ("editor", ("", "")),
        (None, ("", "")),
    ],
)
def test_it_is_found_in_a_handshake_and_in_a_request(info: object, known: tuple[str, str]) -> None:
    assert client_of_session(json.dumps({"clientInfo": info}).encode()) == known
    meta = {"io.modelcontextprotocol/clientInfo": info}
    assert client_of_request(json.dumps({"name": "echo", "_meta": meta}).encode()) == known


def test_a_large_request_is_not_looked_through() -> None:
    def request(filling: int) -> bytes:
        return json.dumps({"_meta": {"io.modelcontextprotocol/clientInfo": INFO}, "filling": "x" * filling}).encode()

    room = MOST_LOOKED_THROUGH_BYTES - len(request(0))
    assert client_of_request(request(room)) == ("editor", "3")
    assert client_of_request(request(room + 1)) == ("", "")


@given(st.binary(max_size=200))
def test_any_bytes_are_somebody_unknown_at_worst(raw: bytes) -> None:
    for found in (client_of_session(raw), client_of_request(raw)):
        assert all(isinstance(each, str) for each in found)
