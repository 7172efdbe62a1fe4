"""What a refusal and a ping together say of a session."""

from __future__ import annotations

import json

import pytest

from mcp_gateway.transports.upstream.http.session_sign import SessionSign


def error(code: int, message: str = "no") -> bytes:
    return json.dumps({"code": code, "message": message}).encode()


@pytest.mark.parametrize(
    ("status", "said", "may_be"),
    [
        (404, b"", True),
        (400, b"", True),
        (410, b'"Gone"', True),
        (200, error(-32600), True),
        (200, error(-32602), True),
        (400, error(-32000), True),
        (404, error(-32001), True),
        (500, error(-32603, "Session not found"), True),
        (200, error(-32603, "unknown session"), True),
        (200, error(-32603), False),
        (500, error(-32000), False),
        (503, b"", False),
        (401, error(-32000, "no session"), False),
        (405, b"", False),
        (429, b"", False),
        (200, error(-32601), False),
        (404, error(-32601), False),
        (200, error(-32042), False),
        (200, b"", False),
    ],
)
def test_only_some_refusals_may_be_of_the_session(status: int, said: bytes, may_be: bool) -> None:
    assert (SessionSign.of(status, said) is not None) == may_be


@pytest.mark.parametrize(
    ("one", "ping", "is_lost"),
    [
        (SessionSign(404, None), SessionSign(404, None), True),
        (SessionSign(404, None), SessionSign(404, -32001, "no"), True),
        (SessionSign(404, None), None, False),
        (SessionSign(404, None), SessionSign(400, None), False),
        (SessionSign(200, -32600, "no"), SessionSign(200, -32600, "no"), True),
        (SessionSign(200, -32600, "Session a, request 1"), SessionSign(200, -32600, "Session a, request 2"), True),
        (SessionSign(200, -32602, "unit must be C"), SessionSign(200, -32602, "no params"), False),
        (SessionSign(200, -32602, "no"), SessionSign(200, -32600, "no"), False),
    ],
)
def test_a_session_is_lost_where_a_ping_is_refused_in_the_same_way(
    one: SessionSign, ping: SessionSign | None, is_lost: bool
) -> None:
    assert one.is_confirmed_by(ping) == is_lost
