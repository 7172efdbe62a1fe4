"""What is meant by a call of one of the gateway's two tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.config.backend_settings import BackendSettings, RouteSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.hash_keys import HashKeys
from mcp_gateway.transports.ports.meant_exchange import as_meant
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import route_target

ROUTE = RouteSettings(pattern="*", backend="b", hash_on="argument:name|ip")
KEYS = HashKeys(Settings(backends=(BackendSettings(name="b", builtin="demo"),), routes=(ROUTE,)))


def exchange(name: str, /, **arguments: Any) -> Exchange:
    message = Request(b"7", "tools/call", json.dumps({"name": name, "arguments": arguments}).encode())
    return Exchange(
        exchange_id=1,
        transport="t",
        revision="2026-07-28",
        endpoint="",
        kind=RequestKind.REQUEST,
        message=message,
        target=route_target(message.method, message.params, message.id),
        hash_keys=KEYS.of_message({"ip": "1.2.3.4"}, None, "", message),
        deadline_s=0.0,
    )


def test_any_other_exchange_stays_the_same() -> None:
    other = exchange("read", name="x")
    assert as_meant(other, KEYS) is other


def test_a_call_by_call_tool_is_one_of_the_tool_for_everybody_who_looks_at_it() -> None:
    meant = as_meant(exchange("call_tool", name="read", arguments={"name": "mine"}), KEYS)
    assert (meant.target, meant.method, meant.is_rewritten, meant.question) == ("tools/call/read", "tools/call", True, None)
    assert meant.hash_keys == {"ip": "1.2.3.4", "argument:name": '"mine"'}


def test_a_call_of_call_tool_by_itself_is_one_of_a_tool_that_is_not_there() -> None:
    meant = as_meant(exchange("call_tool", name="call_tool", arguments={"name": "read"}), KEYS)
    assert meant.target == "tools/call/call_tool"


def test_a_search_is_a_list_with_a_question() -> None:
    meant = as_meant(exchange("search_tools", query="read"), KEYS)
    assert (meant.target, meant.method, meant.hash_keys) == ("tools/list", "tools/list", {"ip": "1.2.3.4"})
    assert meant.question is not None
    assert meant.question.query == "read"


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(Refused, match="arguments"):
        as_meant(exchange("search_tools"), KEYS)
