"""What the servers of the harness answer, and which calls they count."""

from __future__ import annotations

import pytest

from mcp_gateway.scripts.chaos_harness.served_tools import LEGACY, READ, answer, called, no_session


def request(method: str, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 5, "method": method, "params": params}


def test_a_call_is_answered_with_its_argument() -> None:
    message = request("tools/call", name="write", arguments={"argument": "a", "seconds": 2})
    assert called(message) == ("write", "a", 2.0)
    assert answer(message)["result"]["content"] == [{"type": "text", "text": "a"}]
    assert called(request("ping")) == ("", "", 0.0)


@pytest.mark.parametrize("method", ["initialize", "ping", "tools/list", "logging/setLevel"])
def test_what_a_client_of_a_session_asks_has_a_result(method: str) -> None:
    assert answer(request(method))["id"] == 5
    assert "result" in answer(request(method))


def test_only_the_tool_that_reads_is_annotated_as_one() -> None:
    tools = answer(request("tools/list"))["result"]["tools"]
    assert [tool["name"] for tool in tools if tool.get("annotations")] == [READ]


def test_a_stateless_client_reads_that_it_must_shake_hands() -> None:
    assert answer(request("server/discover"))["error"]["code"] == -32601
    assert answer(request("initialize"))["result"]["protocolVersion"] == LEGACY
    assert no_session({"method": "tools/call"})["id"] is None
