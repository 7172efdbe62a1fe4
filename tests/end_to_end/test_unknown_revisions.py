"""Servers that speak what nobody knows: what their clients are told can be used, or they are told why not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.scripted_upstreams import ScriptedUpstream, result_of, send
from tests.end_to_end.raw_http import ask, ask_modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway

OLDER, BETWEEN, FUTURE, DRAFT = "2024-10-07", "2025-05-01", "2030-01-01", "draft-2027-v1"
SPOKEN = {"older": OLDER, "between": BETWEEN, "future": FUTURE, "draft": DRAFT}
REFUSED = {"number": 5, "spaces": "a b"}


class OneVersion(ScriptedUpstream):
    """A legacy server that answers in one version, whatever is asked for, and takes no other in the header."""

    def __init__(self, version: Any) -> None:
        super().__init__()
        self.version = version

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        method, head = request.get("method"), self.heads[-1]
        if "id" not in request:
            await send(writer, b"", status="202 Accepted" if method else "405 Method Not Allowed")
            return
        is_known = method in ("initialize", "tools/list", "tools/call", "ping")
        if not is_known or (method != "initialize" and head.get("mcp-protocol-version") != self.version):
            error = {"code": -32000, "message": "Bad Request: unsupported protocol version"}
            await send(writer, json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(), status="400 Bad Request")
            return
        result = {**result_of(request), **({"protocolVersion": self.version} if method == "initialize" else {})}
        await send(writer, json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode())


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(OneVersion(version)) for name, version in {**SPOKEN, **REFUSED}.items()}
        backends = [{"name": name, "replicas": [server.url]} for name, server in servers.items()]
        with start_gateway(request.param, backends, gateway={"health_check_interval": 60.0}) as gateway:
            yield gateway
            assert gateway.restart_count() == 0


@pytest.mark.parametrize("name", SPOKEN)
def test_a_session_at_one_of_them_can_be_used(name: str, gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint(name))
    listed = ask(gateway.endpoint(name), request("tools/list"), session)
    assert [tool["name"] for tool in listed.message["result"]["tools"]] == ["echo"]
    assert ask(gateway.endpoint(name), tool_call("echo", {"a": 1}), session).text == '{"a": 1}'


def test_the_merged_session_holds_all_that_can_be_spoken_to(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint())
    listed = ask(gateway.endpoint(), request("tools/list"), session)
    assert [tool["name"] for tool in listed.message["result"]["tools"]] == [f"{name}__echo" for name in SPOKEN]
    for name in SPOKEN:
        assert ask(gateway.endpoint(), tool_call(f"{name}__echo", {"a": 1}), session).text == '{"a": 1}'


@pytest.mark.parametrize("name", SPOKEN)
def test_modern_clients_reach_them_as_well(name: str, gateway: RunningGateway) -> None:
    assert ask_modern(gateway.endpoint(name), tool_call("echo", {"a": 1})).text == '{"a": 1}'
    assert ask_modern(gateway.endpoint(), tool_call(f"{name}__echo", {"a": 1})).text == '{"a": 1}'
    discovered = ask_modern(gateway.endpoint(name), request("server/discover"))
    tasks_of_ours = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    assert discovered.message["result"]["capabilities"] == {"tools": {}, **tasks_of_ours}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_spoken_is_refused_in_clear_words_to_each_client(name: str, gateway: RunningGateway) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    refused = ask(gateway.endpoint(name), request("initialize", params))
    for answer in (refused, ask_modern(gateway.endpoint(name), tool_call("echo"))):
        assert answer.reason == "upstream_failed"
        assert "protocolVersion that cannot be spoken" in answer.message["error"]["message"]
