"""What the server does for every endpoint: preflights, how many at once, streams kept alive, what is not there."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import AsyncExitStack
from typing import Any

import pytest

from mcp_gateway.transports.downstream.http.http_sse import HttpSseTransport
from mcp_gateway.transports.downstream.http.streamable_http import StreamableHttpTransport
from mcp_gateway.transports.downstream.server import server as server_module
from mcp_gateway.transports.downstream.websocket.websocket_endpoint import WebSocketTransport
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.calling_client import CallingClient
from tests.doubles.raw_http_client import INITIALIZE, Answer, RawClient, on_cell
from tests.doubles.running_cell import RunningCell

pytestmark = pytest.mark.usefixtures("each_http_parser")


def test_preflights_tell_what_pages_may_send() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("OPTIONS", "/mcp", Origin="http://localhost:3000", Access_Control_Request_Method="POST")
            assert (answer.status, answer.body) == (204, b"")
            assert answer.headers["access-control-allow-methods"] == "GET, POST, DELETE"
            allowed = answer.headers["access-control-allow-headers"].lower()
            for name in ("content-type", "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "authorization"):
                assert name in allowed
            asked = "content-type, mcp-param-region,Mcp-Param-Size,X-Tenant, mcp-param-, mcp-param-a(b), "
            answer = await client.ask("OPTIONS", "/mcp", Origin="http://localhost:3000", Access_Control_Request_Headers=asked)
            more = answer.headers["access-control-allow-headers"].lower().removeprefix(allowed)
            assert more == ", content-type, mcp-param-region, mcp-param-size, x-tenant, mcp-param-"
            assert (await client.ask("OPTIONS", "/mcp", Origin="https://evil.example")).status == 403
            plain = await client.ask("OPTIONS", "/mcp")
            assert (plain.status, plain.headers["allow"]) == (204, "GET, POST, DELETE, OPTIONS")

    on_cell(body)


# ---- other sites

EMBEDDED = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}
LINK = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": "A" * 22 + "=="}


@pytest.mark.parametrize(
    "path",
    [
        *("/mcp", "/mcp/servers/demo", "/mcp/sse/connect", "/sse", "/mcp/servers/demo/sse", "/mcp/sse/events/all", "/mcp/ws"),
        *("/mcp/websocket", "/metrics", "/health", "/health/live", "/metrics/dashboard/state", "/metrics/dashboard", "/"),
    ],
)
def test_nothing_is_embedded_in_another_site_and_links_lead_to_pages_only(path: str) -> None:
    async def body(cell: RunningCell) -> None:
        for headers in (EMBEDDED, LINK, {**EMBEDDED, **UPGRADE}, {**EMBEDDED, "Accept": "text/event-stream"}):
            async with RawClient(cell) as client:
                answer = await client.ask("GET", path, **headers)
                if headers is LINK and path in ("/", "/metrics/dashboard"):
                    assert answer.status == 200
                else:
                    assert (answer.status, answer.reason) == (403, "origin_forbidden")
        assert not any(cell.cell._server.connection_counts().values())

    on_cell(body)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/sse/messages", "/mcp/ws", "/mcp/sse/events/all", "/metrics", "/health", "/"])
def test_a_name_that_nobody_configured_is_refused_wherever_the_gateway_listens(path: str) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for method in ("GET", "POST"):
                rebound = await client.ask(method, path, Host="evil.example:4000", Origin="http://evil.example:4000")
                assert (rebound.status, rebound.reason) == (403, "origin_forbidden")
            assert "allowed_hosts" in json.loads(rebound.body)["error"]["message"]
            assert (await client.ask("GET", "/health/live", Host="10.1.2.3")).status == 200  # as a load balancer asks
            assert (await client.ask("GET", "/health/live", Host="gateway.example")).status == 200

    on_cell(body, gateway={"host": "0.0.0.0", "allowed_hosts": ["gateway.example"]})


# ---- streams and limits


async def opened_stream(cell: RunningCell, client: RawClient) -> Answer:
    """A session, and its GET stream on the raw client's connection."""
    opener = await CallingClient(cell.url, "legacy").open()
    await opener.close()
    client.start("GET", "/mcp", 0, Accept="text/event-stream", Mcp_Session_Id=opener.session_id)
    return await client.answer()


def test_a_silent_stream_is_kept_alive_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_KEEP_ALIVE_EVENT_S", 0.1)
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await opened_stream(cell, client)
            assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
            assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
            for _ in range(2):
                async with asyncio.timeout(3):
                    assert b":" in await client.reader.readuntil(b"\n\n")
        while cell.cell._server.open_streams or cell.cell._port.waiting:  # the client has left
            await asyncio.sleep(0.01)
        assert cell.cell._server.connection_counts() == {"streamable_http": 0}

    on_cell(body)


@pytest.mark.parametrize(("cells", "share"), [(1, 3), (2, 2)])
def test_no_more_requests_and_streams_at_once_than_the_cells_share(cells: int, share: int) -> None:
    """The limit is the node's; each cell serves its part of it, rounded up."""

    async def body(cell: RunningCell) -> None:
        streams = [RawClient(cell) for _ in range(share)]
        for stream in streams:
            await stream.__aenter__()
            assert (await opened_stream(cell, stream)).status == 200
        async with RawClient(cell) as client:
            refused = await client.ask("POST", "/mcp", INITIALIZE)
            assert (refused.status, refused.reason) == (503, "too_many_connections")
            assert json.loads(refused.body)["id"] == 1
            assert refused.headers["retry-after"] == "1"
            assert (await client.ask("GET", "/health/live")).status == 200
            await streams[0].__aexit__()
            async with asyncio.timeout(5):
                while (await client.ask("POST", "/mcp", INITIALIZE)).status != 200:
                    await asyncio.sleep(0.01)
        for stream in streams[1:]:
            await stream.__aexit__()

    on_cell(body, gateway={"cells": cells}, transports={"streamable_http": {"max_connections": 3}})


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_one_address_has_its_share_of_a_transport_and_the_others_the_rest(share: float) -> None:
    """At the share all are served; past it the refusal says which bound it was, and other addresses notice nothing."""
    most = max(4, math.ceil(10 * share))

    async def body(cell: RunningCell) -> None:
        before = metrics.bounds_reached_total.labels("connections")._value.get()
        async with AsyncExitStack() as stack:

            async def follow(address: str) -> Answer:
                client = await stack.enter_async_context(RawClient(cell, address))
                client.start("GET", "/mcp/sse/events/all", 0)
                return await client.answer()

            assert [(await follow("127.0.0.1")).status for _ in range(most)] == [200] * most
            refused = await follow("127.0.0.1")
            assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "too_many_connections", "1")
            assert f"http_sse serves {most} connections of one address" in refused.text
            assert [(await follow("127.0.0.2")).status for _ in range(most)] == [200] * most
            left = 10 - 2 * most
            assert [(await follow("127.0.0.3")).status for _ in range(left)] == [200] * left
            refused = await follow("127.0.0.3")
            assert "http_sse serves 10 connections at once" in refused.text
        assert metrics.bounds_reached_total.labels("connections")._value.get() == before + 2
        async with asyncio.timeout(5):
            while cell.cell._server.connection_counts() != {"http_sse": 0}:
                await asyncio.sleep(0.01)

    tables: dict[str, dict[str, Any]] = {"transports": {"http_sse": {"max_connections": 10}}}
    on_cell(body, gateway={"max_share_per_address": share}, **tables)


@pytest.mark.parametrize("transport", ["streamable_http", "websocket"])
def test_the_address_is_that_of_the_client_behind_a_trusted_proxy(transport: str) -> None:
    async def body(cell: RunningCell) -> None:
        server = cell.cell._server
        taken: list[str] = []
        take = server.take_connection

        def noted(name: str, address: str) -> None:
            taken.append(address)
            take(name, address)

        server.take_connection = noted  # type: ignore[method-assign]
        async with RawClient(cell) as client:
            if transport == "websocket":
                key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13"}
                answer = await client.ask(
                    "GET", "/mcp/ws", Upgrade="websocket", Connection="Upgrade", X_Forwarded_For="10.1.2.3", **key
                )
                assert answer.status == 101
            else:
                assert (await client.ask("POST", "/mcp", INITIALIZE, X_Forwarded_For="10.1.2.3")).status == 200
        async with asyncio.timeout(5):
            while server.connection_counts() != {transport: 0}:
                await asyncio.sleep(0.01)
        assert taken == ["10.1.2.3"]

    on_cell(body, gateway={"trusted_proxies": ["127.0.0.1"]})


# ---- where there is nothing


def test_an_unknown_path_names_those_that_exist() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("GET", "/nowhere")
            assert answer.status == 404
            assert {"/mcp", "/health", "/metrics"} <= set(json.loads(answer.body)["endpoints"])

    on_cell(body)


def test_every_path_that_a_transport_names_is_served() -> None:
    """A strategy names what other modules serve as well, for people to read."""
    named = {path for strategy in (StreamableHttpTransport, HttpSseTransport, WebSocketTransport) for path in strategy.paths}

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            served = json.loads((await client.ask("GET", "/nowhere")).body)["endpoints"]
            assert {path.replace("{topic}", "…").replace("{backend}", "…") for path in named} <= set(served)

    on_cell(body)


def test_a_slash_at_the_end_of_a_path_changes_nothing_and_redirects_nobody() -> None:
    """Ours: a client that reads 404 falls back to HTTP+SSE and ends in a second, misleading error."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for path in ("/health/live/", "/health/live/?x=1", "/metrics/", "/metrics/dashboard/", "/health/ready/"):
                assert (await client.ask("GET", path)).status == 200, path
            for path in ("/mcp/", "/mcp/?user_id=a", "/mcp/servers/demo/"):
                opened = await client.ask("POST", path, INITIALIZE)
                assert opened.status == 200, path
                same = await client.ask("DELETE", path.partition("?")[0][:-1], Mcp_Session_Id=opened.headers["mcp-session-id"])
                assert same.status == 200
            for path in ("/mcp/ws/", "/mcp/websocket/"):
                answer = await client.ask("GET", path)
                assert answer.status == 426, path  # it serves upgrades
            assert (await client.ask("GET", "/mcp/sse/messages/")).status == 405
            assert (await client.ask("GET", "/nowhere/")).status == 404
        for path in ("/mcp/sse/connect/", "/mcp/sse/events/all/"):
            async with RawClient(cell) as client:
                client.start("GET", path, 0)
                assert (await client.answer()).status == 200, path

    on_cell(body)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/mcp", "GET, POST, DELETE"),
        ("PATCH", "/mcp/servers/demo", "GET, POST, DELETE"),
        ("POST", "/health", "GET"),
        ("DELETE", "/metrics", "GET"),
        ("GET", "/mcp", "POST"),  # without Accept: text/event-stream
    ],
)
def test_a_method_that_is_not_served_names_those_that_are(method: str, path: str, allowed: str) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask(method, path)
            assert (answer.status, answer.headers["allow"], answer.reason) == (405, allowed, "invalid_request")

    on_cell(body)


@pytest.mark.parametrize("size", [70_000, 300_000])
def test_headers_that_are_too_large_are_answered_before_the_connection_ends(size: int) -> None:
    """Source: RFC 6585, section 5. Tornado alone would close without a word."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("GET", "/health/live")).status == 200
            client.start("GET", "/health/live", 0, X_Large="x" * size)
            answer = await client.answer()
            assert (answer.status, answer.reason, answer.headers["connection"]) == (431, "too_large", "close")
            assert await client.is_closed()
        async with RawClient(cell) as client:
            assert (await client.ask("GET", "/health/live", X_Large="x" * 60_000)).status == 200
        async with RawClient(cell) as client:  # a chunk that never says how long it is
            client.start("POST", "/mcp", None)
            client.writer.write(b"1" * 100)
            answer = await client.answer()
            assert (answer.status, answer.reason, answer.headers["connection"]) == (400, "invalid_request", "close")
            assert await client.is_closed()

    on_cell(body)


def test_a_defect_in_a_handler_is_an_internal_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cell: RunningCell) -> None:
        class Defect:
            def handle(self, incoming: Any) -> None:
                raise ZeroDivisionError("a secret")

        cell.cell._server.add_endpoint("/defect", Defect())
        async with RawClient(cell) as client:
            answer = await client.ask("GET", "/defect")
            assert (answer.status, b"secret" in answer.body) == (500, False)
            assert (await client.ask("GET", "/health/live")).status == 200

    on_cell(body)
