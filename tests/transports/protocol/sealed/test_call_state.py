"""`requestState`: whose retry goes on with which call."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.sealed.call_state import (
    CallState,
    read_state,
    request_digest,
    resumed_replica,
    sealed_state,
    state_problem,
)
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from tests.transports.protocol.eras.test_translation import dumped, objects

SEAL = Seal(b"0123456789abcdef")
STATE = CallState("cell/0", "i", "files", "http://a", "ada", "call", 1, 1000.0, b"digest")


def problem(**changes: Any) -> tuple[str, str] | None:
    known: dict[str, Any] = {
        "backend": "files",
        "replica": "http://a",
        "principal": "ada",
        "digest": b"digest",
        "now_s": 999.0,
    }
    return state_problem(STATE, **{**known, **changes})


def test_a_state_comes_back_as_it_was_sealed() -> None:
    assert read_state(SEAL, sealed_state(SEAL, STATE)) == STATE
    assert problem() is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"principal": "bob"}, "forbidden"),
        ({"principal": ""}, "forbidden"),
        ({"backend": "mail"}, "invalid_params"),
        ({"replica": "http://b"}, "invalid_params"),
        ({"digest": b"other"}, "invalid_params"),
        ({"now_s": 1000.1}, "invalid_params"),
    ],
)
def test_a_state_of_somebody_or_something_else_is_refused(changes: dict[str, Any], reason: str) -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr, "Server Requirements", 5."""
    refused = problem(**changes)
    assert refused is not None
    assert refused[0] == reason


@given(st.text(max_size=200) | st.integers(0, 300))
def test_what_was_not_sealed_here_is_no_state(change: str | int) -> None:
    sealed = sealed_state(SEAL, STATE)
    if isinstance(change, int):
        at = change % len(sealed)
        change = sealed[:at] + ("A" if sealed[at] != "A" else "B") + sealed[at + 1 :]
    assert read_state(SEAL, change) is None
    assert read_state(Seal(b"another secret 16"), sealed) is None


def test_a_session_id_is_no_state() -> None:
    assert read_state(SEAL, SEAL.seal("session", msgspec.msgpack.encode(STATE))) is None


def test_the_replica_is_read_from_the_params_of_the_retry() -> None:
    assert resumed_replica(SEAL, dumped({"requestState": sealed_state(SEAL, STATE)})) == "http://a"
    for params in (b"", b"{}", b'{"requestState":1}', b'{"requestState":"x"}', b"["):
        assert resumed_replica(SEAL, params) == ""


def test_a_digest_tells_requests_apart_but_not_the_order_of_their_members() -> None:
    def digest(method: str, params: Any) -> bytes:
        return request_digest(method, members(json.dumps(params).encode()))

    one = digest("tools/call", {"name": "x", "arguments": {"a": 1, "b": [1, 2]}})
    assert digest("tools/call", {"arguments": {"b": [1, 2], "a": 1}, "name": "x"}) == one
    others = [
        digest("prompts/get", {"name": "x", "arguments": {"a": 1, "b": [1, 2]}}),
        digest("tools/call", {"name": "y", "arguments": {"a": 1, "b": [1, 2]}}),
        digest("tools/call", {"name": "x", "arguments": {"a": 1, "b": [2, 1]}}),
        digest("tools/call", {"name": "x"}),
    ]
    assert len({one, *others}) == 5


@given(objects)
def test_any_params_have_a_digest(params: dict[str, Any]) -> None:
    assert len(request_digest("tools/call", members(dumped(params)))) == 16
