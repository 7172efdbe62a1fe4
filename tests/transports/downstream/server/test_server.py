"""What holds for every request: who may connect, how large and slow a body may be, how many at once, what is not there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from mcp_gateway.config.settings import GatewaySettings, Settings
from mcp_gateway.transports.downstream.server import server as server_module
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.calling_client import CallingClient
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

MAX_BYTES = 2_000


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["error"]["data"]["reason"])


class RawClient:
    """One TCP connection, and bytes on it."""

    def __init__(self, cell: RunningCell) -> None:
        self.port = cell.settings.gateway.port

    async def __aenter__(self) -> RawClient:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"", length: int | None = None, **headers: str) -> Answer:
        self.start(method, path, len(body) if length is None else length, **headers)
        self.writer.write(body)
        return await self.answer(is_head=method == "HEAD")

    def start(self, method: str, path: str, length: int | None, **headers: str) -> None:
        headers = {"Host": f"127.0.0.1:{self.port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        framing = ["Transfer-Encoding: chunked"] if length is None else [f"Content-Length: {length}"]
        lines = [f"{method} {path} HTTP/1.1", *framing, *(f"{name}: {value}" for name, value in headers.items() if value)]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def answer(self, *, is_head: bool = False) -> Answer:
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = 0 if is_head else int(headers.get("content-length", 0))
            return Answer(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def is_closed(self) -> bool:
        """Whether the server closes the connection now."""
        async with asyncio.timeout(5):
            return await self.reader.read(1) == b""


def on_cell(body: Callable[[RunningCell], Awaitable[None]], **tables: dict[str, Any]) -> None:
    settings = cell_settings(**{**tables, "gateway": {"max_message_bytes": MAX_BYTES, **tables.get("gateway", {})}})

    async def run() -> None:
        async with running_cell(settings) as cell, asyncio.timeout(30):
            await body(cell)

    asyncio.run(run())


PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}},
    }
).encode()  # fmt: skip


# ---- who may connect


@pytest.mark.parametrize(
    ("host", "shown_host", "origin", "may_connect"),
    [
        # Loopback: the name in Host must be this machine's, so that no other site's name can be bound to it.
        ("127.0.0.1", "127.0.0.1:4000", None, True),
        ("127.0.0.1", "localhost:4000", None, True),
        ("127.0.0.1", "LOCALHOST", None, True),
        ("127.0.0.1", "[::1]:4000", None, True),
        ("::1", "[::1]:4000", None, True),
        ("localhost", "localhost:4000", None, True),
        ("127.0.0.1", "", None, True),
        ("127.0.0.1", "evil.example:4000", None, False),
        ("127.0.0.1", "localhost.evil.example", None, False),
        ("127.0.0.1", "127.0.0.1.evil.example:4000", None, False),
        ("127.0.0.1", "evil.example:4000", "http://evil.example:4000", False),
        # Not on loopback, it has names that it does not know.
        ("192.0.2.1", "gateway.example:4000", None, True),
        # Origin: pages of this machine, of the gateway's own name, and of those allowed.
        ("127.0.0.1", "127.0.0.1:4000", "http://localhost:3000", True),
        ("127.0.0.1", "127.0.0.1:4000", "https://127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1:4000", "http://[::1]:9", True),
        ("127.0.0.1", "127.0.0.1:4000", "https://app.example", True),
        ("127.0.0.1", "127.0.0.1:4000", "http://app.example", False),
        ("127.0.0.1", "127.0.0.1:4000", "https://app.example:8443", False),
        ("127.0.0.1", "127.0.0.1:4000", "https://evil.example", False),
        ("127.0.0.1", "127.0.0.1:4000", "http://localhost.evil.example", False),
        ("127.0.0.1", "127.0.0.1:4000", "ftp://localhost", False),
        ("127.0.0.1", "127.0.0.1:4000", "null", False),
        ("127.0.0.1", "127.0.0.1:4000", "", False),
        ("127.0.0.1", "127.0.0.1:4000", "http://[oops", False),
        ("127.0.0.1", "app.example", "https://app.example", True),
        ("192.0.2.1", "gateway.example:4000", "http://gateway.example:4000", True),
        ("192.0.2.1", "gateway.example:4000", "http://other.example:4000", False),
    ],
)
def test_host_and_origin(host: str, shown_host: str, origin: str | None, may_connect: bool) -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Security & Endpoint"; the rule for Host is ours."""
    settings = Settings(gateway=GatewaySettings(host=host, allowed_origins=("https://app.example",)))
    headers = {name: value for name, value in (("Host", shown_host), ("Origin", origin)) if value is not None}

    async def check() -> None:
        port = SimpleNamespace(is_draining=False, enabled_transports=frozenset(), publish=lambda topic, payload: None)
        GatewayServer(settings, port).check(SimpleNamespace(headers=headers))  # type: ignore[arg-type]

    if may_connect:
        asyncio.run(check())
    else:
        with pytest.raises(Refused) as refused:
            asyncio.run(check())
        assert (refused.value.reason, refused.value.status) == ("origin_forbidden", 403)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/servers/demo", "/health", "/metrics", "/nowhere"])
def test_a_foreign_page_reaches_no_endpoint(path: str) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
                answer = await client.ask("POST", path, PING, Content_Type="application/json", **headers)
                assert (answer.status, answer.reason) == (403, "origin_forbidden")
                assert "access-control-allow-origin" not in answer.headers

    on_cell(body)


def test_a_page_that_is_allowed_may_read_answers_and_refusals() -> None:
    """Source: WHATWG Fetch, "CORS protocol"."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for status, message in ((200, INITIALIZE), (400, b"oops")):
                answer = await client.ask("POST", "/mcp", message, Origin="http://localhost:3000")
                assert answer.status == status
                assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
                assert answer.headers["vary"] == "Origin"
                assert "Mcp-Session-Id" in answer.headers["access-control-expose-headers"]

    on_cell(body)


def test_a_request_as_to_a_proxy_is_served_and_its_host_is_checked() -> None:
    """Source: RFC 9112, section 3.2.2: a server must accept the absolute form."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            port = cell.settings.gateway.port
            assert (await client.ask("GET", f"http://127.0.0.1:{port}/health/live")).status == 200
            assert (await client.ask("GET", f"http://127.0.0.1:{port}")).status == 404
            assert (await client.ask("GET", "http://evil.example/health/live")).status == 403

    on_cell(body)


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


# ---- bodies


def padded(size: int) -> bytes:
    """A ping of exactly this size."""
    return PING[:-1] + b" " * (size - len(PING)) + b"}"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_the_limit_is_read_and_one_byte_more_is_refused(is_chunked: bool) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for size, status in ((MAX_BYTES, 400), (MAX_BYTES + 1, 413), (MAX_BYTES, 400)):
                client.start("POST", "/mcp", None if is_chunked else size)
                content = padded(size)
                if is_chunked:
                    parts = (content[:1500], content[1500:])
                    content = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
                client.writer.write(content)
                answer = await client.answer()
                assert answer.status == status
                assert answer.reason == ("too_large" if status == 413 else "invalid_request")  # a ping needs a session

    on_cell(body)


def test_a_length_above_the_limit_is_refused_before_its_body_comes() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("POST", "/mcp", b"", length=10**9)
            assert (answer.status, answer.reason) == (413, "too_large")

    on_cell(body)


def test_a_body_that_comes_too_slowly_ends_its_connection_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_BODY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as slow, RawClient(cell) as idle:
            assert (await idle.ask("GET", "/health/live")).status == 200
            started_s = time.monotonic()
            slow.start("POST", "/mcp", 100)
            slow.writer.write(b"{")
            assert await slow.is_closed()
            assert 0.25 < time.monotonic() - started_s < 3
            assert cell.cell._server.reading == set()
            assert (await idle.ask("GET", "/health/live")).status == 200

    on_cell(body)


def test_a_large_body_that_comes_steadily_has_the_time_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_BODY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "_SLOWEST_BYTES_PER_S", 10)
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"text": "x" * 200}}).encode()
            client.start("POST", "/mcp", len(message))
            client.writer.write(message[:100])
            await asyncio.sleep(1.0)  # three times the time of a small one, a tenth of what so many bytes may take
            assert len(cell.cell._server.reading) == 1
            client.writer.write(message[100:])
            async with asyncio.timeout(5):
                while cell.cell._server.reading:
                    await asyncio.sleep(0.01)

    on_cell(body)


def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            client.start("POST", "/mcp", 100)
            client.writer.write(b"{")
            while not cell.cell._server.reading:
                await asyncio.sleep(0.005)
        while cell.cell._server.reading:
            await asyncio.sleep(0.005)
        assert cell.cell._port.waiting == {}

    on_cell(body)


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


# ---- where there is nothing


def test_an_unknown_path_names_those_that_exist() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("GET", "/nowhere")
            assert answer.status == 404
            assert {"/mcp", "/health", "/metrics"} <= set(json.loads(answer.body)["endpoints"])

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


def test_head_is_answered_without_a_body_and_the_connection_goes_on() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("HEAD", "/health/live")
            assert answer.status == 200
            assert int(answer.headers["content-length"]) > 0
            assert (await client.ask("GET", "/health/live")).body == b'{"status":"live"}'

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


def test_writes_that_overlap_are_each_reported_when_the_socket_has_taken_them() -> None:
    """Tornado's connection alone would end only the last one's future, and with the first bytes: whoever waits for credit would
    wait for ever.
    """

    async def body(cell: RunningCell) -> None:
        taken: list[int] = []
        started = asyncio.Event()

        class Flood:
            def handle(self, incoming: server_module.Incoming) -> None:
                incoming.begin({})
                incoming.limit_unsent(16_384)
                for number in range(40):
                    written = incoming.write(b"x" * 100_000)
                    written.add_done_callback(lambda _, number=number: taken.append(number))  # type: ignore[misc]
                started.set()

        cell.cell._server.add_endpoint("/flood", Flood())
        async with RawClient(cell) as client:
            client.start("GET", "/flood", 0)
            await started.wait()
            await asyncio.sleep(0)
            assert len(taken) < 40
            read = 0
            while read < 40 * 100_000:
                read += len(await client.reader.read(1 << 20))
            async with asyncio.timeout(5):
                while len(taken) < 40:
                    await asyncio.sleep(0.01)
        assert taken == list(range(40))

    on_cell(body)
