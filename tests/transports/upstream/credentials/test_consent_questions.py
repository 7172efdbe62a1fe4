"""The question for consent in either era, and what is told until there is one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.eras.questions import url_elicitations
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.upstream.credentials.consent_questions import (
    Replied,
    asks_modern_client,
    initialized_without,
    may_be_asked,
    reply_in,
    told_without,
    url_required,
    without_reply,
)

URL = "https://mcp.example/mcp/oauth/connect?link=abc"
META = "io.modelcontextprotocol/clientCapabilities"


def handshake(revision: str, capabilities: Any) -> bytes:
    return json.dumps({"protocolVersion": revision, "capabilities": capabilities}).encode()


@pytest.mark.parametrize(
    ("method", "revision", "capabilities", "expected"),
    [
        ("tools/call", "2025-11-25", {"elicitation": {"url": {}}}, True),
        ("resources/read", "2025-11-25", {"elicitation": {"url": {}, "form": {}}}, True),
        ("tools/list", "2025-11-25", {"elicitation": {"url": {}}}, False),
        ("tools/call", "2025-11-25", {"elicitation": {}}, False),
        ("tools/call", "2025-11-25", {}, False),
        ("tools/call", "2025-06-18", {"elicitation": {"url": {}}}, False),
    ],
)
def test_a_legacy_client_is_asked_for_what_it_has_declared(method: str, revision: str, capabilities: Any, expected: bool) -> None:
    """Source: MCP 2025-11-25, client/elicitation, "Capabilities"."""
    assert may_be_asked(Request(b"1", method, b"{}"), handshake(revision, capabilities), is_modern=False) is expected


def test_a_modern_client_says_what_it_takes_with_each_request() -> None:
    takes = json.dumps({"_meta": {META: {"elicitation": {"url": {}}}}}).encode()
    assert may_be_asked(Request(b"1", "tools/call", takes), None, is_modern=True)
    for params in (b"{}", b'{"_meta":7}', b"[", json.dumps({"_meta": {META: {}}}).encode()):
        assert not may_be_asked(Request(b"1", "tools/call", params), None, is_modern=True)
    assert not may_be_asked(Request(b"1", "tools/call", b"{}"), None, is_modern=False)


def test_both_eras_are_asked_the_same() -> None:
    error = url_required("files", URL)
    (legacy,) = json.loads(error)["data"]["elicitations"]
    (modern,) = json.loads(asks_modern_client("files", URL))["inputRequests"].values()
    assert {**modern["params"], "elicitationId": legacy["elicitationId"]} == legacy
    assert [each["params"] for each in url_elicitations(error).values()] == [modern["params"]]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, Replied.NOTHING),
        ({"inputResponses": {"other": {"action": "accept"}}}, Replied.NOTHING),
        ({"arguments": {"text": "mcp-gateway-consent"}}, Replied.NOTHING),
        ({"inputResponses": {"mcp-gateway-consent": {"action": "accept"}}}, Replied.ACCEPTED),
        ({"inputResponses": {"mcp-gateway-consent": {"action": "decline"}}}, Replied.DECLINED),
        ({"inputResponses": {"mcp-gateway-consent": {}}}, Replied.DECLINED),
        ({"inputResponses": {"mcp-gateway-consent": 7}}, Replied.NOTHING),
    ],
)
def test_a_reply_is_found_where_it_belongs(params: Any, expected: Replied) -> None:
    assert reply_in(json.dumps(params).encode()) is expected


def test_the_server_is_not_shown_a_reply_to_what_it_has_not_asked() -> None:
    ours = {"mcp-gateway-consent": {"action": "accept"}}
    params = {"name": "a", "inputResponses": ours}
    assert json.loads(without_reply(json.dumps(params).encode())) == {"name": "a"}
    both = {"name": "a", "inputResponses": {**ours, "x": {"action": "accept"}}}
    assert json.loads(without_reply(json.dumps(both).encode())) == {"name": "a", "inputResponses": {"x": {"action": "accept"}}}


@given(st.binary())
def test_any_params_are_a_reply_or_none(params: bytes) -> None:
    assert reply_in(params + b"mcp-gateway-consent") is Replied.NOTHING


def test_until_there_is_consent_a_server_has_one_tool() -> None:
    assert json.loads(initialized_without(b'{"protocolVersion":"2025-06-18"}', "files"))["protocolVersion"] == "2025-06-18"
    assert json.loads(initialized_without(b"{}", "files"))["protocolVersion"] == "2025-11-25"
    listed = told_without("tools/list", "files", is_modern=False)
    assert listed is not None
    assert [tool["name"] for tool in json.loads(listed)["tools"]] == ["connect"]
    empty = told_without("prompts/list", "files", is_modern=True)
    assert empty is not None
    assert json.loads(empty) == {"prompts": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    assert told_without("tools/call", "files", is_modern=True) is None
    discovered = told_without("server/discover", "files", is_modern=True)
    assert discovered is not None
    assert "connect" in json.loads(discovered)["instructions"]
