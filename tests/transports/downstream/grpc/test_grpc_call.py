from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.grpc.grpc_call import (
    CallWriter,
    Outcome,
    answer_of,
    error_of,
    headers_of,
    params_of,
    path_of,
    refusal,
)
from mcp_gateway.transports.downstream.server.client_connection import Peer
from mcp_gateway.transports.protocol.grpc.methods import METHODS
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.modern_rules import check_modern_request
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS, Refused
from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES, META_VERSION, NEWEST

_CALL = METHODS["tools/call"]


def asked(params: dict[str, Any], metadata: dict[str, str] | None = None) -> dict[str, Any]:
    return params_of(_CALL, _CALL.encode_request(params), metadata or {})


def test_a_call_has_all_that_the_revision_needs() -> None:
    params = asked({"name": "naïve", "arguments": {"a": 1}})
    assert params["_meta"] == {META_VERSION: NEWEST, META_CLIENT_CAPABILITIES: {}}
    headers = headers_of(_CALL, params, {"authorization": "Bearer k", "x-tenant": "t"})
    assert (headers["Authorization"], headers["X-Tenant"]) == ("Bearer k", "t")
    message = Request(b"1", "tools/call", msgspec.json.encode(params))
    shown = (headers["Mcp-Protocol-Version"], headers["Mcp-Method"], headers["Mcp-Name"])
    assert check_modern_request(message, *shown) == "naïve"


def test_what_a_client_says_of_itself_stays_and_progress_that_cannot_be_told_is_not_asked_for() -> None:
    meta = {META_CLIENT_CAPABILITIES: {"elicitation": {}}, "progressToken": 1, "x/y": "z"}
    assert asked({"name": "a", "_meta": meta})["_meta"] == {
        META_VERSION: NEWEST,
        META_CLIENT_CAPABILITIES: {"elicitation": {}},
        "x/y": "z",
    }


@pytest.mark.parametrize("name", ["Host", "Cookie", "Mcp-Session-Id", "Content-Encoding", "Mcp-Name", "X-Bin"])
def test_metadata_does_not_stand_over_what_the_call_itself_says(name: str) -> None:
    headers = headers_of(_CALL, asked({"name": "a"}), {name.lower(): "made up", "x-bin": "made up"})
    assert headers.get(name) in (None, "a")


@pytest.mark.parametrize("name", ["mcp_tool", "mcp_resource", "mcp_prompt"])
def test_what_metadata_asks_for_is_what_the_message_asks_for(name: str) -> None:
    """Source: mcp.proto: proxies route and permit by it."""
    assert asked({"name": "a"}, {name: "a"})["name"] == "a"
    with pytest.raises(Refused) as raised:
        asked({"name": "a"}, {name: "b"})
    assert raised.value.reason == "header_mismatch"


def test_a_server_is_named_by_metadata_and_never_by_a_path() -> None:
    assert path_of({}) == "/mcp"
    assert path_of({"mcp-server": "files"}) == "/mcp/servers/files"
    assert path_of({"mcp-server": "../../metrics"}) == "/mcp/servers/..%2F..%2Fmetrics"


@given(st.binary(max_size=200), st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4))
def test_any_call_is_a_request_or_a_refusal(data: bytes, metadata: dict[str, str]) -> None:
    for method in METHODS.values():
        try:
            headers_of(method, params_of(method, data, metadata), metadata)
        except Refused as refused:
            assert refused.reason in ("invalid_params", "header_mismatch")


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_carries_its_code_and_reason(reason: str) -> None:
    outcome = refusal(Refused(reason, "in words"))
    trailers = dict(outcome.trailers)
    assert (outcome.details, trailers["mcp-error-code"]) == ("in words", str(REFUSALS[reason].code))
    assert msgspec.json.decode(trailers["mcp-error-data-bin"]) == {"reason": reason}


def test_an_answer_is_a_result_or_the_end_of_the_call() -> None:
    assert answer_of(200, {}, b'{"id":1,"result":{"tools":[]}}') == {"tools": []}
    error = {"code": -32602, "message": "\ud83d no", "data": {"x": "y" * 10_000}}
    outcome = answer_of(400, {"WWW-Authenticate": "Bearer"}, msgspec.json.encode({"error": {**error, "message": "no"}}))
    assert outcome == Outcome("INVALID_ARGUMENT", "no", (("mcp-error-code", "-32602"), ("www-authenticate", "Bearer")))
    assert answer_of(500, {}, b"") == Outcome("INTERNAL", "internal error")
    assert answer_of(200, {}, b'{"error":{"message":"%s"}}' % (b"x" * 3_000)).details == "x" * 2_000  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["€", "é", "%", "\x01", "a"])
def test_the_text_of_a_refusal_has_room_in_the_end_of_a_call(text: str) -> None:
    outcome = error_of(400, {}, -32602, text * 10_000, {"reason": "invalid_params"})
    assert 1 <= len(outcome.details) <= 2_000
    assert len(quote(outcome.details)) <= 3_000


def test_a_writer_gives_the_first_answer_and_takes_no_stream() -> None:
    async def scene() -> None:
        writer = CallWriter(Peer("127.0.0.1", "127.0.0.1", lambda: None))
        writer.begin(200, {})
        writer.answer(200, {}, b"late")
        await writer.write(b"event")
        writer.end()
        assert await writer.answered == (500, {}, b"")
        with pytest.raises(ValueError, match="no connection"):
            writer.detach()

    asyncio.run(scene())
