"""HTTP+SSE for clients, as bytes on a connection. Source: MCP 2024-11-05, basic/transports, "HTTP with SSE"."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest

from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, ServerSentEvent
from tests.doubles.patience import patience, until
from tests.doubles.running_cell import DEMO, RunningCell, cell_settings, running_cell

CONNECT = "/mcp/sse/connect"
INITIALIZE = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}


class Stream:
    """One client's event stream, and the POSTs beside it."""

    def __init__(self, http: aiohttp.ClientSession, response: aiohttp.ClientResponse) -> None:
        self._http = http
        self.response = response
        self._parser = EventStreamParser(10_000_000)
        self._events: list[ServerSentEvent] = []
        self.uri = ""

    async def event(self) -> tuple[str, Any]:
        """(name, data) of the next event; data is JSON, except that of `endpoint`."""
        while not self._events:
            chunk = await self.response.content.readany()
            if not chunk:
                raise EOFError
            self._events += self._parser.feed(chunk)
        event = self._events.pop(0)
        return event.event, event.data.decode() if event.event == "endpoint" else json.loads(event.data)

    async def message(self) -> Any:
        """The next message; what the demo server logs is passed over."""
        while True:
            name, data = await self.event()
            assert name == "message", name
            if data.get("method") != "notifications/message":
                return data

    def posts_to(self, uri: str | None = None) -> str:
        """The URI of the endpoint event, or another one, as clients resolve it: against the address of the stream."""
        return urljoin(str(self.response.url), self.uri if uri is None else uri)

    async def post(self, body: Any, uri: str | None = None, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps({"jsonrpc": "2.0", **body}).encode()
        shown = {"Content-Type": "application/json", **headers}
        async with self._http.post(self.posts_to(uri), data=data, headers=shown) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def ask(self, method: str, params: dict[str, Any] | None = None, request_id: Any = 1) -> Any:
        """The message that follows the request on the stream."""
        assert await self.post({"id": request_id, "method": method, "params": params or {}}) == (202, None)
        return await self.message()

    async def opens_session(self) -> Any:
        opened = await self.ask("initialize", INITIALIZE, 0)
        assert await self.post({"method": "notifications/initialized"}) == (202, None)
        return opened["result"]


class Client:
    def __init__(self, cell: RunningCell, http: aiohttp.ClientSession) -> None:
        self.cell = cell
        self.http = http

    async def connect(self, query: str = "", path: str = CONNECT) -> Stream:
        response = await self.http.get(self.cell.url + path + query)
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        stream = Stream(self.http, response)
        name, stream.uri = await stream.event()
        assert name == "endpoint"
        return stream

    async def refusal(self, verb: str, path: str, **how: Any) -> tuple[int, str]:
        async with self.http.request(verb, self.cell.url + path, **how) as response:
            return response.status, json.loads(await response.text())["error"]["data"]["reason"]


def on_cell(body: Callable[[Client], Awaitable[None]], **tables: Any) -> None:
    async def run() -> None:
        async with running_cell(cell_settings((DEMO,), **tables)) as cell, patience():
            async with aiohttp.ClientSession() as http:
                await body(Client(cell, http))

    asyncio.run(run())


# ---- a session


def test_the_first_events_say_where_to_post_and_who_one_is() -> None:
    async def body(client: Client) -> None:
        stream = await client.connect()
        name, data = await stream.event()
        assert (name, stream.uri) == ("connected", f"messages?session_id={data['connection_id']}")

    on_cell(body)


def test_the_endpoint_leads_back_under_whatever_path_a_proxy_serves_the_gateway() -> None:
    """Source: RFC 3986, section 5.2, as `EventSource` clients and the SDKs resolve it; with a slash at the end as without."""

    async def body(client: Client) -> None:
        for path in (CONNECT, "/sse", "/mcp/sse", "/mcp/servers/demo/sse"):
            messages = f"{path.rpartition('/')[0]}/messages"
            for asked in (path, path + "/"):
                stream = await client.connect(path=asked)
                await stream.event()
                for before in ("", "/tools", "/a/b.c"):
                    found = urljoin(f"https://example.com{before}{asked}?backend=demo", stream.uri)
                    assert found.partition("?")[0] == f"https://example.com{before}{messages}", asked
                assert (await stream.ask("ping"))["result"] == {}
                stream.response.close()

    on_cell(body)


def test_a_session_of_the_oldest_revision_from_its_start_to_its_end() -> None:
    async def body(client: Client) -> None:
        stream = await client.connect()
        await stream.event()
        assert (await stream.opens_session())["protocolVersion"] == "2024-11-05"
        assert await stream.ask("ping", request_id="p") == {"jsonrpc": "2.0", "id": "p", "result": {}}
        called = await stream.ask("tools/call", {"name": "echo", "arguments": {"message": "hello"}}, 7)
        assert (called["id"], called["result"]["content"][0]["text"]) == (7, "hello")
        assert (await client.cell.cell.status())["connections"]["http_sse"] == 1
        stream.response.close()
        counts = client.cell.cell._server.connection_counts
        await until(lambda: counts()["http_sse"] == 0)
        await until(lambda: "mcp.session.ended" in client.cell.link.topics())
        status, refused = await stream.post({"id": 1, "method": "ping"})
        assert (status, refused["error"]["data"]["reason"], refused["id"]) == (404, "session_not_found", 1)

    on_cell(body)


def test_progress_comes_on_the_stream_before_the_answer_and_requests_do_not_wait_for_each_other() -> None:
    async def body(client: Client) -> None:
        stream = await client.connect()
        await stream.event()
        await stream.opens_session()
        slow = {"name": "slow", "arguments": {"seconds": 1.0, "steps": 2}, "_meta": {"progressToken": "t"}}
        assert (await stream.post({"id": "slow", "method": "tools/call", "params": slow}))[0] == 202
        assert (await stream.post({"id": "fast", "method": "ping"}))[0] == 202
        messages = [await stream.message() for _ in range(4)]
        read = [each.get("id") or each["params"]["progress"] for each in messages]
        assert [each for each in read if each != "fast"] == [1, 2, "slow"]
        assert read.index("fast") < read.index("slow")

    on_cell(body)


def test_an_address_that_ends_in_sse_names_its_backend_as_well() -> None:
    """Ours: clients that tell transports by the end of the path (MCP Inspector and others) reach one backend with it."""

    async def body(client: Client) -> None:
        for name, is_there in (("demo", True), ("sse", False), ("a%2Fb", False)):
            stream = await client.connect(path=f"/mcp/servers/{name}/sse")
            await stream.event()
            opened = await stream.ask("initialize", INITIALIZE, 0)
            assert ("result" in opened) is is_there, name
            assert is_there or opened["error"]["data"]["reason"] == "no_backend"
            stream.response.close()
        headers = {"Accept": "text/event-stream"}
        assert await client.refusal("GET", "/mcp/servers/sse", headers=headers) == (400, "invalid_request")  # no session

    on_cell(body)


def test_one_backend_can_be_chosen_when_the_stream_is_opened() -> None:
    async def body(client: Client) -> None:
        stream = await client.connect("?backend=demo")
        await stream.event()
        await stream.opens_session()
        missing = await client.connect("?backend=nobody")
        await missing.event()
        refused = await missing.ask("initialize", INITIALIZE)
        assert refused["error"]["data"]["reason"] == "no_backend"

    on_cell(body)


def test_a_client_that_goes_away_cancels_its_call() -> None:
    async def body(client: Client) -> None:
        stream = await client.connect()
        await stream.event()
        await stream.opens_session()
        slow = {"name": "slow", "arguments": {"seconds": 30}}
        assert (await stream.post({"id": 1, "method": "tools/call", "params": slow}))[0] == 202
        waiting = client.cell.cell._port.waiting
        await until(lambda: len(waiting) > 0)
        stream.response.close()
        await until(lambda: not waiting)

    on_cell(body)


# ---- heartbeats


def test_heartbeats_come_at_their_interval() -> None:
    async def body(client: Client) -> None:
        stream = await client.connect()
        await stream.event()
        assert [await stream.event() for _ in range(2)] == [("heartbeat", {})] * 2

    on_cell(body, transports={"http_sse": {"heartbeat_interval": 0.05}})


# ---- refusals


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "parse_error", None)),
        (b"{oops", (400, "parse_error", None)),
        (b"\xff", (400, "parse_error", None)),
        (b"[]", (400, "invalid_request", None)),
        ({"id": 7, "method": 5}, (400, "invalid_request", 7)),
        ({"id": 7, "method": "tools/list"}, (400, "invalid_request", 7)),
        ({"id": 7, "method": "initialize"}, (400, "invalid_params", 7)),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"x" * 2_000 + b'"}}', (413, "too_large", None)),
    ],
)
def test_a_message_that_is_refused_has_its_status_and_its_stream_lives_on(body: Any, expected: tuple[int, str, Any]) -> None:
    async def run(client: Client) -> None:
        stream = await client.connect()
        await stream.event()
        status, refused = await stream.post(body)
        assert (status, refused["error"]["data"]["reason"], refused["id"]) == expected
        if expected[2] is not None:  # whoever waits on the stream for its answer gets it there
            assert (await stream.message())["error"] == refused["error"]
        assert (await stream.ask("ping"))["result"] == {}

    on_cell(run, gateway={"max_message_bytes": 1024})


@pytest.mark.parametrize(
    ("verb", "path", "headers", "expected"),
    [
        ("POST", "/mcp/sse/messages", {}, (404, "session_not_found")),
        ("POST", "/mcp/sse/messages?session_id=cell-0.forged", {}, (404, "session_not_found")),
        ("POST", "/mcp/sse/messages?session_id=cell-7.forged", {}, (404, "session_not_found")),
        ("POST", "/mcp/sse/messages?" + "x" * 5_000, {}, (404, "session_not_found")),
        ("POST", "/mcp/sse/messages?" + "&".join(f"a{n}=1" for n in range(50)), {}, (404, "session_not_found")),
        ("POST", "/mcp/sse/messages", {"Content-Type": "text/plain"}, (400, "invalid_request")),
        ("GET", "/mcp/sse/messages", {}, (405, "invalid_request")),
        ("POST", CONNECT, {}, (405, "invalid_request")),
        ("GET", CONNECT, {"Origin": "https://evil.example"}, (403, "origin_forbidden")),
        ("GET", CONNECT, {"Host": "evil.example"}, (403, "origin_forbidden")),
    ],
)
def test_what_is_no_session_is_refused(verb: str, path: str, headers: dict[str, str], expected: tuple[int, str]) -> None:
    async def body(client: Client) -> None:
        data = b'{"jsonrpc":"2.0","id":1,"method":"ping"}' if verb == "POST" else None
        shown = {"Content-Type": "application/json", **headers} if data else headers
        assert await client.refusal(verb, path, data=data, headers=shown) == expected

    on_cell(body)


def test_streams_at_the_limit_are_served_and_the_one_past_it_is_told_to_come_back() -> None:
    async def body(client: Client) -> None:
        streams = [await client.connect() for _ in range(2)]
        async with client.http.get(client.cell.url + CONNECT) as response:
            refused = await response.json()
            assert (response.status, refused["error"]["data"]["reason"]) == (503, "too_many_connections")
            assert int(response.headers["Retry-After"]) >= 1
        streams[0].response.close()
        counts = client.cell.cell._server.connection_counts
        await until(lambda: counts()["http_sse"] == 1)
        await client.connect()

    on_cell(body, transports={"http_sse": {"max_connections": 2}})


def test_addresses_of_one_ipv6_network_share_what_one_address_may_have() -> None:
    async def body(client: Client) -> None:
        async def status(address: str) -> int:
            response = await client.http.get(client.cell.url + CONNECT, headers={"X-Forwarded-For": address})
            return response.status

        assert [await status(f"2001:db8:1:2::{number}") for number in range(1, 6)] == [200] * 4 + [503]
        assert [await status(address) for address in ("2001:db8:1:3::1", "192.0.2.7")] == [200] * 2

    gateway = {"trusted_proxies": ["127.0.0.1"], "max_share_per_address": 0.25}
    on_cell(body, transports={"http_sse": {"max_connections": 16}}, gateway=gateway)


def test_a_client_past_its_rate_reads_so_in_the_status_and_on_its_stream() -> None:
    async def body(client: Client) -> None:
        stream = await client.connect("?user_id=ada")
        await stream.event()
        assert (await stream.ask("ping"))["result"] == {}
        status, refused = await stream.post({"id": 2, "method": "ping"})
        assert (status, refused["error"]["data"]["reason"]) == (429, "rate_limited")
        assert (await stream.message())["error"]["data"]["retry_after"] > 0
        other = await client.connect("?user_id=bob")
        await other.event()
        status, refused = await other.post({"id": 3, "method": "ping"})
        assert (status, refused["error"]["data"]["reason"]) == (429, "rate_limited"), "a name of its own makes it no other client"

    on_cell(body, limits={"requests_per_second": 0.01, "burst": 1})


def test_a_message_as_large_as_all_may_be_together_is_served_and_those_beside_it_are_refused() -> None:
    """Bytes count from the POST to the answer on the stream, and once."""

    async def body(client: Client) -> None:
        stream = await client.connect()
        await stream.event()
        await stream.opens_session()
        slow = {"name": "slow", "arguments": {"seconds": 0.5}, "_meta": {"x": "x" * (2**20 - 9_000)}}
        assert (await stream.post({"id": 1, "method": "tools/call", "params": slow}))[0] == 202
        echo = {"name": "echo", "arguments": {"message": "x" * 100_000}}
        status, refused = await stream.post({"id": 2, "method": "tools/call", "params": echo})
        assert (status, refused["error"]["data"]["reason"]) == (503, "too_many_connections")
        assert (await stream.message())["id"] == 1
        assert (await stream.ask("tools/call", echo, 3))["id"] == 3

    on_cell(body, gateway={"max_message_bytes": 2**20, "max_buffered_bytes": 2**20})


# ---- the end of the gateway


def test_a_drain_ends_idle_streams_at_once_and_busy_ones_with_their_answer() -> None:
    async def body(client: Client) -> None:
        idle, busy = await client.connect(), await client.connect()
        for stream in (idle, busy):
            await stream.event()
        await busy.opens_session()
        slow = {"name": "slow", "arguments": {"seconds": 2}}
        assert (await busy.post({"id": 1, "method": "tools/call", "params": slow}))[0] == 202
        waiting = client.cell.cell._port.waiting
        await until(lambda: any(exchange.target == "tools/call/slow" for exchange, _ in waiting.values()))
        draining = asyncio.ensure_future(client.cell.cell.drain(10.0))
        with pytest.raises(EOFError):
            await idle.event()
        assert (await busy.message())["id"] == 1
        with pytest.raises(EOFError):
            await busy.event()
        await draining

    on_cell(body)
