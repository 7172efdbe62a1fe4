"""Arguments and results against schemas, a bound on results, and a guard: in both eras, over every transport."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.end_to_end.every_transport import WAYS
from tests.end_to_end.raw_http import ask, modern, open_session, tool_call
from tests.end_to_end.running_gateway import RunningGateway

SERVER = Path(__file__).parents[1] / "doubles" / "changing_server.py"
OBJECT = {"type": "object", "properties": {"n": {"type": "integer"}, "result": {"type": "object"}}, "additionalProperties": False}
TOOLS = [{"name": "t", "inputSchema": OBJECT, "outputSchema": {"type": "object", "required": ["name"]}}]
RULES = {
    "check": ["arguments", "results"],
    "max_result_bytes": 2_000,
    "guard": {"callable": "mcp_gateway.config.mask_secrets:judge"},
}
SECRET = "ghp_" + "a" * 36


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway, tmp_path_factory: Any) -> Iterator[RunningGateway]:
    tools = tmp_path_factory.mktemp("tools") / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    backend = {"name": "b", "command": [sys.executable, str(SERVER), str(tools)], "tools": RULES}
    with start_gateway(request.param, [backend]) as running:
        yield running


def call(gateway: RunningGateway, way: str, **arguments: Any) -> Any:
    return asyncio.run(WAYS[way](gateway.url, modern(tool_call("b__t", arguments))[0]))


def given(**result: Any) -> dict[str, Any]:
    return {"content": [], "structuredContent": {"name": "x"}, **result}


@pytest.mark.parametrize("way", WAYS)
def test_calls_and_results_have_to_pass(gateway: RunningGateway, way: str) -> None:
    assert call(gateway, way, n=1)["result"]["structuredContent"] == {"name": "t", "arguments": {"n": 1}}
    refused = call(gateway, way, n="1")["error"]
    assert (refused["data"]["reason"], 'n: "1" is not of type "integer"' in refused["message"]) == ("invalid_params", True)
    assert call(gateway, way, other=1)["error"]["data"]["reason"] == "invalid_params"
    assert call(gateway, way, result=given(structuredContent={}))["error"]["data"]["reason"] == "upstream_failed"
    secret = given(content=[{"type": "text", "text": f"it is {SECRET}."}])
    assert call(gateway, way, result=secret)["result"]["content"][0]["text"] == "it is [masked]."
    key = given(content=[{"type": "text", "text": "-----BEGIN PRIVATE KEY-----"}])
    assert call(gateway, way, result=key)["error"]["data"]["reason"] == "forbidden"
    cut = call(gateway, way, result=given(content=[{"type": "text", "text": "x" * 5_000}]))["result"]
    assert (cut["isError"], "Cut by the gateway" in cut["content"][-1]["text"]) == (True, True)


def test_the_same_in_a_session_and_it_opens_no_circuit(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint("b"))
    for _ in range(8):
        refused = ask(gateway.endpoint("b"), tool_call("t", {"n": "1"}), session)
        assert (refused.status, refused.reason) == (400, "invalid_params")
    assert "result" in ask(gateway.endpoint("b"), tool_call("t", {"n": 1}), session).message
    assert gateway.metric_sum("mcp_gateway_tool_refusals_total", backend="b", rule="arguments") >= 8
    assert not gateway.errors()
