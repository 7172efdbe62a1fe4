"""Streamable HTTP for clients, as bytes on a connection: who is refused with what, and what a session is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.doubles.patience import patience
from tests.doubles.running_cell import DEMO, RunningCell, cell_settings, running_cell

PREFIX = "io.modelcontextprotocol/"
LEGACY = ("2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
SESSION, VERSION = "Mcp-Session-Id", "MCP-Protocol-Version"


class Client:
    def __init__(self, cell: RunningCell, http: aiohttp.ClientSession) -> None:
        self._url = cell.url
        self._http = http
        self.headers: dict[str, str] = {}

    async def send(self, verb: str, body: Any = None, path: str = "/mcp", **headers: str) -> tuple[int, dict[str, str], Any]:
        """(status, headers, body: JSON, or the messages of an event stream)"""
        shown = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **self.headers}
        shown |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with self._http.request(verb, self._url + path, data=data, headers=shown) as response:
            text = await response.text()
            if response.content_type == "text/event-stream":
                lines = [line[5:] for line in text.splitlines() if line.startswith("data:")]
                return response.status, dict(response.headers), [json.loads(line) for line in lines]
            return response.status, dict(response.headers), json.loads(text) if text else None

    async def refusal(self, verb: str, body: Any = None, **how: Any) -> tuple[int, str, Any]:
        """(status, reason, id)"""
        status, _, answer = await self.send(verb, body, **how)
        return status, answer["error"]["data"]["reason"], answer["id"]

    async def open(self, revision: str = "2025-11-25", path: str = "/mcp") -> str:
        status, headers, answer = await self.send("POST", initialize(revision), path)
        assert status == 200, answer
        assert answer["result"]["protocolVersion"] == revision
        self.headers = {SESSION: headers[SESSION], VERSION: revision}
        return headers[SESSION]


def on_cell(body: Callable[[RunningCell, Client], Awaitable[None]], *backends: dict[str, Any]) -> None:
    async def run() -> None:
        async with running_cell(cell_settings(backends or (DEMO,))) as cell, patience():
            async with aiohttp.ClientSession() as http:
                await body(cell, Client(cell, http))

    asyncio.run(run())


def message(method: str, params: dict[str, Any] | None = None, request_id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}


def initialize(revision: str) -> dict[str, Any]:
    return message("initialize", {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}})


def modern(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    who = {"name": "n", "version": "1"}
    meta = {f"{PREFIX}protocolVersion": MODERN, f"{PREFIX}clientInfo": who, f"{PREFIX}clientCapabilities": {}}
    return message(method, {**(params or {}), "_meta": meta})


ECHO = {"name": "echo", "arguments": {"message": "hello"}}


# ---- what is no message


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"", {}, (400, "parse_error", None)),
        (b"{oops", {}, (400, "parse_error", None)),
        (b"\xff\xfe", {}, (400, "parse_error", None)),
        (b"7", {}, (400, "invalid_request", None)),
        (b"{}", {}, (400, "invalid_request", None)),
        (b'{"jsonrpc":"1.0","id":7,"method":"x"}', {}, (400, "invalid_request", 7)),
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":[]}', {}, (400, "invalid_request", 7)),
        (b'{"jsonrpc":"2.0","id":{},"method":"x"}', {}, (400, "invalid_request", None)),
        (message("ping"), {"Content_Type": "text/plain"}, (400, "invalid_request", None)),
        (message("ping"), {}, (400, "invalid_request", 1)),
        (message("tools/list"), {SESSION: "forged"}, (404, "session_not_found", 1)),
        (message("tools/list"), {VERSION: "1999-01-01"}, (400, "unsupported_version", 1)),
        (message("initialize"), {}, (400, "invalid_params", 1)),
    ],
)
def test_what_is_refused_and_how(body: Any, headers: dict[str, str], expected: tuple[int, str, Any]) -> None:
    async def run(_: RunningCell, client: Client) -> None:
        assert await client.refusal("POST", body, **headers) == expected

    on_cell(run)


# ---- sessions


@pytest.mark.parametrize("revision", LEGACY)
def test_a_session_from_its_start_to_its_end(revision: str) -> None:
    """Source: MCP 2025-11-25, basic/transports, "Session Management"."""

    async def run(cell: RunningCell, client: Client) -> None:
        # 1. It is opened under an id of visible ASCII characters, and acknowledged.
        session_id = await client.open(revision)
        assert session_id.isascii()
        assert session_id.isprintable()
        status, _, answer = await client.send("POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (status, answer) == (202, None)
        # 2. Requests are answered under their own ids, of both kinds.
        for request_id in (0, "x"):
            status, _, answer = await client.send("POST", message("tools/call", ECHO, request_id))
            assert (status, answer["id"]) == (200, request_id)
            assert "hello" in json.dumps(answer["result"])
        assert (await client.send("POST", message("ping")))[2] == {"jsonrpc": "2.0", "id": 1, "result": {}}
        # 3. After its end it is not known any more, by any of the verbs.
        status, _, _ = await client.send("DELETE")
        assert status in (200, 202, 204)
        assert await client.refusal("POST", message("ping")) == (404, "session_not_found", 1)
        assert await client.refusal("GET", Accept="text/event-stream") == (404, "session_not_found", None)
        assert await client.refusal("DELETE") == (404, "session_not_found", None)
        assert "mcp.session.ended" in cell.link.topics()

    on_cell(run)


def test_an_unknown_revision_is_answered_with_the_newest_that_has_sessions() -> None:
    async def run(_: RunningCell, client: Client) -> None:
        for asked in ("1999-01-01", "2099-01-01", MODERN):
            _, _, answer = await client.send("POST", initialize(asked))
            assert answer["result"]["protocolVersion"] == "2025-11-25"

    on_cell(run)


def test_a_form_that_the_client_refuses_is_not_sent() -> None:
    """Source: RFC 9110, section 12.5.1: q=0 is "not acceptable"."""

    async def run(_: RunningCell, client: Client) -> None:
        _, headers, _ = await client.send("POST", initialize("2025-11-25"), Accept="application/json, text/event-stream;q=0")
        assert headers["Content-Type"] == "application/json"
        status, headers, answer = await client.send("POST", initialize("2025-11-25"), Accept="application/json;q=0, */*")
        assert (status, headers["Content-Type"]) == (200, "text/event-stream")
        assert answer[0]["result"]["protocolVersion"] == "2025-11-25"
        client.headers = {SESSION: headers[SESSION]}
        ping = message("ping")
        answer = (await client.send("POST", ping, Accept="application/json;q=0, */*"))[2]
        assert answer == [{"jsonrpc": "2.0", "id": 1, "result": {}}]
        for body in (ping, message("tools/call", ECHO), message("tools/list")):
            status, headers, answer = await client.send("POST", body, Accept="text/event-stream, application/*;q=0")
            assert (status, headers["Content-Type"], answer[-1]["id"]) == (200, "text/event-stream", 1)
            status, _, answer = await client.send("POST", body, Accept="*/*;q=0")
            assert (status, answer["id"]) == (406, 1)
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await client.send("POST", told, Accept="*/*;q=0"))[0] == 202  # nothing is sent in any form
        assert (await client.send("GET", Accept="text/event-stream;q=0"))[0] == 406
        assert (await client.send("GET", path="/mcp/sse/connect", Accept="text/event-stream;q=0"))[0] == 406
        assert (await client.send("GET", path="/mcp/sse/events/all", Accept="*/*;q=0"))[0] == 406

    on_cell(run)


def test_an_address_of_one_backend_may_end_in_mcp() -> None:
    """Ours: clients that tell transports by the end of the path take it for Streamable HTTP. A backend may be called mcp."""

    async def run(_: RunningCell, client: Client) -> None:
        for path, same in (("/mcp/servers/demo/mcp", "/mcp/servers/demo"), ("/mcp/servers/mcp", "/mcp/servers/mcp/mcp/")):
            client.headers = {}
            await client.open(path=path)
            assert (await client.send("POST", message("tools/call", ECHO), same))[0] == 200

    on_cell(run, {"name": "demo", "builtin": "demo"}, {"name": "mcp", "builtin": "demo"})


def test_a_session_belongs_to_the_endpoint_that_opened_it() -> None:
    async def run(_: RunningCell, client: Client) -> None:
        await client.open(path="/mcp/servers/demo")
        assert (await client.send("POST", message("tools/call", ECHO), "/mcp/servers/demo"))[0] == 200
        assert (await client.refusal("POST", message("tools/call", ECHO)))[:2] == (404, "session_not_found")
        assert (await client.refusal("POST", initialize("2025-11-25"), path="/mcp/servers/nobody"))[:2] == (503, "no_backend")

    on_cell(run)


def test_a_client_that_reads_no_event_streams_gets_json() -> None:
    async def run(_: RunningCell, client: Client) -> None:
        await client.open()
        slow = message("tools/call", {"name": "slow", "arguments": {"seconds": 0.1}, "_meta": {"progressToken": "p"}})
        _, headers, answer = await client.send("POST", slow, Accept="application/json")
        assert headers["Content-Type"] == "application/json"
        assert answer["id"] == 1
        _, headers, messages = await client.send("POST", slow)
        assert headers["Content-Type"] == "text/event-stream"
        assert [each.get("method") for each in messages].count("notifications/progress") >= 1
        assert messages[-1]["id"] == 1

    on_cell(run)


# ---- stateless


def test_a_stateless_request_needs_no_session_and_its_headers_must_agree() -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Request Metadata"."""

    async def run(_: RunningCell, client: Client) -> None:
        agreeing = {VERSION: MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
        status, headers, answer = await client.send("POST", modern("tools/call", ECHO), **agreeing)
        assert status == 200
        assert "hello" in json.dumps(answer["result"])
        assert SESSION not in headers
        for wrong in ({"Mcp-Method": "tools/list"}, {"Mcp-Name": "time"}):
            found = await client.refusal("POST", modern("tools/call", ECHO), **{**agreeing, **wrong})
            assert found == (400, "header_mismatch", 1)
        other = modern("tools/call", ECHO)
        other["params"]["_meta"][f"{PREFIX}protocolVersion"] = "2025-11-25"
        assert await client.refusal("POST", other, **agreeing) == (400, "header_mismatch", 1)
        unknown = {VERSION: MODERN, "Mcp-Method": "no/such"}
        status, _, answer = await client.send("POST", modern("no/such"), **unknown)
        assert (status, answer["error"]["code"]) == (404, -32601)  # the only server's own answer

    on_cell(run)


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_the_stateless_revision_has_no_other_verbs(verb: str) -> None:
    async def run(_: RunningCell, client: Client) -> None:
        status, headers, _ = await client.send(verb, None, **{VERSION: MODERN, "Accept": "text/event-stream"})
        assert (status, headers["Allow"]) == (405, "POST")

    on_cell(run)


# ---- limits


def test_pings_count_against_the_rate_limit() -> None:
    async def run() -> None:
        settings = cell_settings((DEMO,), limits={"requests_per_second": 0.01, "burst": 1})
        async with running_cell(settings) as cell, patience(), aiohttp.ClientSession() as http:
            client = Client(cell, http)
            await client.open()
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            assert (await client.send("POST", ping))[0] == 200
            assert await client.refusal("POST", ping) == (429, "rate_limited", 1)

    asyncio.run(run())


def test_pings_cost_nothing_of_the_day_and_what_is_past_it_is_refused_until_it_ends() -> None:
    async def run() -> None:
        settings = cell_settings((DEMO,), limits={"requests_per_day": 1})
        async with running_cell(settings) as cell, patience(), aiohttp.ClientSession() as http:
            client = Client(cell, http)
            await client.open()
            for method in ("ping", "ping"):
                assert (await client.send("POST", {"jsonrpc": "2.0", "id": 1, "method": method}))[0] == 200
            assert await client.refusal("POST", {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}) == (429, "rate_limited", 2)

    asyncio.run(run())
