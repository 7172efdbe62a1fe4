"""A list too long to be shown: searched and called through two tools, by the same rules, over every transport."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.end_to_end.every_transport import WAYS, bearer
from tests.end_to_end.raw_http import ask, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway

KEY = "key-of-dev-0123456789"
BACKENDS = [{"name": "one", "builtin": "demo"}, {"name": "two", "builtin": "demo"}]
KEYS = [{"name": "dev", "hash": f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"}]
POLICIES = [
    {"effect": "allow", "tools": ["one__*", "two__echo"], "when": "!has(arguments.message) || arguments.message != 'bad'"},
]


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    tables: dict[str, Any] = {"auth": {"mode": "required", "api_keys": KEYS}, "policies": POLICIES}
    with start_gateway(request.param, BACKENDS, search={"above": 3, "pinned": ["*time"]}, **tables) as running:
        yield running


def over(gateway: RunningGateway, way: str, message: dict[str, Any]) -> Any:
    return asyncio.run(WAYS[way](gateway.url, modern(message)[0], key=KEY))


def names(tools: list[dict[str, Any]]) -> list[str]:
    return [tool["name"] for tool in tools]


@pytest.mark.parametrize("way", WAYS)
def test_a_tool_is_found_and_called_as_it_would_be_directly(gateway: RunningGateway, way: str) -> None:
    # 1. The list is the two tools, and what is pinned of what the client may use.
    listed = over(gateway, way, request("tools/list", {}))["result"]["tools"]
    assert names(listed) == ["search_tools", "call_tool", "one__time"]
    # 2. What is found is what it may use.
    answer = over(gateway, way, tool_call("search_tools", {"query": "echo a message"}))["result"]
    found = answer["structuredContent"]["tools"]
    assert sorted(names(found)[:2]) == ["one__echo", "two__echo"]
    assert "two__fail" not in names(found)
    assert found[0]["inputSchema"]["properties"]
    assert json.loads(answer["content"][0]["text"]) == answer["structuredContent"]
    # 3. A call is that of the tool, and refused where that one would be.
    called = over(gateway, way, tool_call("call_tool", {"name": "two__echo", "arguments": {"message": "hi"}}))
    assert called["result"]["content"][0]["text"] == "hi"
    for name, arguments in (("two__fail", {}), ("one__echo", {"message": "bad"})):
        for refused in (
            over(gateway, way, tool_call("call_tool", {"name": name, "arguments": arguments})),
            over(gateway, way, tool_call(name, arguments)),
        ):
            assert refused["error"]["data"]["reason"] == "forbidden"
    assert over(gateway, way, tool_call("search_tools", {}))["error"]["data"]["reason"] == "invalid_params"


def test_sessions_and_a_short_list_at_one_backend(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint(), bearer(KEY))
    listed = ask(gateway.endpoint(), request("tools/list"), session).message["result"]["tools"]
    assert names(listed) == ["search_tools", "call_tool", "one__time"]
    assert (
        ask(gateway.endpoint(), tool_call("call_tool", {"name": "one__echo", "arguments": {"message": "x"}}), session).text == "x"
    )
    alone = gateway.endpoint("two")
    session = open_session(alone, bearer(KEY))
    assert names(ask(alone, request("tools/list"), session).message["result"]["tools"]) == ["echo"]
    found = ask(alone, tool_call("search_tools", {"query": "echo"}), session).message["result"]["structuredContent"]["tools"]
    assert names(found) == ["echo"]
