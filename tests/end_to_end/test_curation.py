"""What of the servers' tools clients see, and by what names: over every transport, in both eras and both forms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.end_to_end.every_transport import WAYS
from tests.end_to_end.raw_http import ask, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway

TOOLS = {
    "deny": ["fail"],
    "rename": {"echo": "say"},
    "overrides": {
        "echo": {
            "title": "Say",
            "description": "Says it.",
            "annotations": {"openWorldHint": False},
            "fixed": {"message": "fixed"},
        }
    },
}
BACKENDS = [
    {"name": "one", "builtin": "demo", "separator": "-", "tools": TOOLS},
    {"name": "two", "builtin": "demo", "prefix": f"two{'_' * 50}"},
]
SERVERS = [{"name": "research", "include": ["one/say", "two/*"], "exclude": ["two/slow"], "instructions": "Look around."}]


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway(request.param, BACKENDS, servers=SERVERS) as running:
        yield running


def over(gateway: RunningGateway, way: str, message: dict[str, Any], query: str = "") -> Any:
    return asyncio.run(WAYS[way](gateway.url, modern(message)[0], query))


def names(answer: dict[str, Any]) -> list[str]:
    return [tool["name"] for tool in answer["result"]["tools"]]


def outcome(answer: dict[str, Any]) -> str:
    return answer["error"]["data"]["reason"] if "error" in answer else "ok"


@pytest.mark.parametrize("way", WAYS)
def test_tools_are_called_as_they_are_listed_and_in_no_other_way(gateway: RunningGateway, way: str) -> None:
    listed = over(gateway, way, request("tools/list", {}))
    prefix = BACKENDS[1]["prefix"]
    assert names(listed) == [
        "one-say",
        "one-time",
        "one-slow",
        f"{prefix}echo",
        f"{prefix}time",
        f"{prefix}slow",
        f"{prefix}fail",
    ]
    say = listed["result"]["tools"][0]
    assert (say["title"], say["description"], say["annotations"]["openWorldHint"]) == ("Say", "Says it.", False)
    assert "message" not in say["inputSchema"]["properties"]
    answer = over(gateway, way, tool_call("one-say", {"message": "mine"}))
    assert answer["result"]["content"][0]["text"] == "fixed"
    for name in ("one-echo", "one-fail", "one__say"):
        assert outcome(over(gateway, way, tool_call(name))) == "invalid_params"


@pytest.mark.parametrize("way", WAYS)
def test_a_client_chooses_its_tools_over_every_transport(gateway: RunningGateway, way: str) -> None:
    query = "tools=one-say,*time"
    assert names(over(gateway, way, request("tools/list", {}), query)) == ["one-say", "one-time", f"{BACKENDS[1]['prefix']}time"]
    assert outcome(over(gateway, way, tool_call("one-say"), query)) == "ok"
    assert outcome(over(gateway, way, tool_call("one-slow"), query)) == "invalid_params"


def test_a_header_chooses_as_the_query_does(gateway: RunningGateway) -> None:
    message, headers = modern(request("tools/list", {}))
    assert names(ask(gateway.endpoint(), message, headers | {"Mcp-Tools": "one-t*"}).message) == ["one-time"]


def test_in_a_session_and_at_one_backend_the_names_are_the_same_without_the_prefix(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint("one"))
    assert names(ask(gateway.endpoint("one"), request("tools/list"), session).message) == ["say", "time", "slow"]
    assert ask(gateway.endpoint("one"), tool_call("say", {"message": "x"}), session).text == "fixed"
    refused = ask(gateway.endpoint("one"), tool_call("echo", {"message": "x"}), session).message
    assert (refused["error"]["code"], refused["error"]["message"]) == (-32602, "Unknown tool: echo")


def test_a_virtual_server_has_its_part_in_both_eras_and_its_sessions_are_its_own(gateway: RunningGateway) -> None:
    address, prefix = gateway.endpoint("research"), BACKENDS[1]["prefix"]
    wanted = ["one-say", f"{prefix}echo", f"{prefix}time", f"{prefix}fail"]
    # 1. Stateless.
    message, headers = modern(request("server/discover", {}))
    assert ask(address, message, headers).message["result"]["instructions"] == "Look around."
    message, headers = modern(request("tools/list", {}))
    assert names(ask(address, message, headers).message) == wanted
    for name, reason in (("one-say", "ok"), ("one-time", "invalid_params"), (f"{prefix}slow", "invalid_params")):
        message, headers = modern(tool_call(name, {}))
        assert outcome(ask(address, message, headers).message) == reason
    message, headers = modern(request("resources/list", {}))
    uris = [each["uri"] for each in ask(address, message, headers).message["result"]["resources"]]
    assert uris
    assert all(uri.startswith("two+") for uri in uris)
    # 2. In a session, which is of no use elsewhere.
    session = open_session(address)
    assert names(ask(address, request("tools/list"), session).message) == wanted
    assert outcome(ask(address, tool_call("one-time"), session).message) == "invalid_params"
    assert ask(address, tool_call("one-say"), session).text == "fixed"
    assert ask(gateway.endpoint(), request("tools/list"), session).status == 404
    # 3. Over another transport, by its name.
    assert names(over(gateway, "WebSocket", request("tools/list", {}), "backend=research")) == wanted
