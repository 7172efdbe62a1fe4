"""One request of a client, byte by byte: which page sent it, how large and slow its body may be, how its answer is written."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib

import pytest

from mcp_gateway.transports.downstream.server import message_deadline
from mcp_gateway.transports.downstream.server import server as server_module
from mcp_gateway.transports.downstream.server.buffered_bytes import IN
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.patience import until
from tests.doubles.raw_http_client import INITIALIZE, MAX_BYTES, PING, RawClient, on_cell
from tests.doubles.running_cell import RunningCell

pytestmark = pytest.mark.usefixtures("each_http_parser")

# ---- pages


@pytest.mark.parametrize("path", ["/mcp", "/mcp/servers/demo", "/health", "/metrics", "/nowhere"])
def test_a_foreign_page_reaches_no_endpoint(path: str) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
                answer = await client.ask("POST", path, PING, Content_Type="application/json", **headers)
                assert (answer.status, answer.reason) == (403, "origin_forbidden")
                assert "access-control-allow-origin" not in answer.headers

    on_cell(body)


def test_refusals_are_counted_by_reason_also_of_what_was_no_request_of_mcp_yet() -> None:
    def count(reason: str) -> float:
        return float(metrics.refusals_total.labels(reason)._value.get())

    async def body(cell: RunningCell) -> None:
        before = {reason: count(reason) for reason in ("origin_forbidden", "parse_error", "invalid_request")}
        async with RawClient(cell) as client:
            for _ in range(2):
                await client.ask("GET", "/mcp/ws", Origin="https://evil.example")
            await client.ask("POST", "/mcp", b"oops", Content_Type="application/json")
            assert (await client.ask("POST", "/mcp", INITIALIZE)).status == 200
            assert (await client.ask("GET", "/mcp/ws")).reason == "invalid_request"
        assert {reason: count(reason) - once for reason, once in before.items()} == {
            "origin_forbidden": 2,
            "parse_error": 1,
            "invalid_request": 1,
        }

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
            assert (await client.ask("GET", f"http://127.0.0.1:{port}")).status == 200
            assert (await client.ask("GET", "http://evil.example/health/live")).status == 403

    on_cell(body)


@pytest.mark.parametrize("trusted", [[], ["127.0.0.1"]])
def test_clients_behind_a_proxy_have_limits_of_their_own_where_it_is_trusted(trusted: list[str]) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            opened = [await client.ask("POST", "/mcp", INITIALIZE, X_Forwarded_For=f"9.9.9.9, 1.2.3.{each}") for each in (1, 2)]
            assert [each.status for each in opened] == ([200, 200] if trusted else [200, 429])
            again = await client.ask("POST", "/mcp", INITIALIZE, X_Forwarded_For="8.8.8.8, 1.2.3.1")  # forged, but for the last
            assert again.status == 429

    on_cell(body, gateway={"trusted_proxies": trusted}, limits={"requests_per_second": 0.01, "burst": 1, "key": "ip"})


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
    monkeypatch.setattr(message_deadline, "MESSAGE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as slow, RawClient(cell) as idle:
            assert (await idle.ask("GET", "/health/live")).status == 200
            started_s = time.monotonic()
            slow.start("POST", "/mcp", 100)
            slow.writer.write(b"{")
            answer = await slow.answer()
            assert (answer.status, answer.reason, answer.headers["connection"]) == (408, "invalid_request", "close")
            assert await slow.is_closed()
            assert 0.25 < time.monotonic() - started_s < 3
            assert cell.cell._server.reading == set()
            assert (await idle.ask("GET", "/health/live")).status == 200

    on_cell(body)


def test_a_large_body_that_comes_steadily_has_the_time_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_deadline, "MESSAGE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(message_deadline, "_SLOWEST_BYTES_PER_S", 10)
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


def test_a_compressed_body_is_decoded_within_the_limit() -> None:
    """Source: RFC 9110, sections 8.4 and 15.5.16."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for encoding, encoded in {"gzip": gzip.compress(INITIALIZE), "deflate": zlib.compress(INITIALIZE)}.items():
                assert (await client.ask("POST", "/mcp", encoded, Content_Encoding=encoding)).status == 200
            for size, status in ((MAX_BYTES, 400), (MAX_BYTES + 1, 413), (1_000_000, 413)):
                answer = await client.ask("POST", "/mcp", gzip.compress(padded(size)), Content_Encoding="gzip")
                assert answer.status == status
                assert answer.reason == ("too_large" if status == 413 else "invalid_request")  # a ping needs a session
            other = await client.ask("POST", "/mcp", INITIALIZE, Content_Encoding="br")
            assert (other.status, other.headers["accept-encoding"]) == (415, "gzip, deflate, identity")
            damaged = await client.ask("POST", "/mcp", INITIALIZE, Content_Encoding="gzip")
            assert (damaged.status, damaged.reason) == (400, "parse_error")
            assert (await client.ask("GET", "/health/live", Content_Encoding="br")).status == 200  # of no body

    on_cell(body)


# ---- answers


def test_to_http_1_0_a_stream_ends_with_its_connection_and_whole_answers_keep_it_when_asked() -> None:
    """Source: RFC 9112, sections 6.1, 6.3 and 9.3."""

    async def body(cell: RunningCell) -> None:
        class Stream:
            def handle(self, incoming: Incoming) -> None:
                incoming.begin({})
                incoming.write(b"data: 1\n\n")
                incoming.end()

        cell.cell._server.add_endpoint("/stream", Stream())
        for kept in (b"", b"Connection: keep-alive\r\n"):
            async with RawClient(cell) as client:
                if kept:
                    client.writer.write(b"GET /health/live HTTP/1.0\r\n" + kept + b"\r\n")
                    assert (await client.answer()).headers["connection"] == "Keep-Alive"
                client.writer.write(b"GET /stream HTTP/1.0\r\n" + kept + b"\r\n")
                answer = await client.answer()
                assert "transfer-encoding" not in answer.headers
                assert answer.headers.get("connection", "close") == "close"
                async with asyncio.timeout(5):
                    assert await client.reader.read() == b"data: 1\n\n"
            async with RawClient(cell) as client:
                client.writer.write(b"GET /health/live HTTP/1.0\r\n\r\n")
                assert (await client.answer()).status == 200
                assert await client.is_closed()

    on_cell(body)


def test_head_is_answered_without_a_body_and_the_connection_goes_on() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("HEAD", "/health/live")
            assert answer.status == 200
            assert int(answer.headers["content-length"]) > 0
            assert (await client.ask("GET", "/health/live")).body == b'{"status":"live"}'

    on_cell(body)


def test_writes_that_overlap_are_each_reported_when_the_socket_has_taken_them() -> None:
    """Tornado's connection alone would end only the last one's future, and with the first bytes: whoever waits for credit would
    wait for ever.
    """

    async def body(cell: RunningCell) -> None:
        taken: list[int] = []
        started = asyncio.Event()

        class Flood:
            def handle(self, incoming: Incoming) -> None:
                incoming.begin({})
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


# ---- what is held of bodies
# A cell of 256 holds 4096 bytes here, of one address a whole message.

MANY_CELLS = {"cells": 256, "max_buffered_bytes": 1_048_576}


def held(cell: RunningCell) -> int:
    return cell.cell._server.buffered.held[IN]


async def until_held(cell: RunningCell, byte_count: int) -> None:
    await until(lambda: held(cell) == byte_count)


async def send_part(cell: RunningCell, client: RawClient, byte_count: int, length: int | None = MAX_BYTES) -> None:
    before = held(cell)
    client.start("POST", "/mcp", length)
    client.writer.write((b"" if length else b"%x\r\n" % byte_count) + b" " * byte_count)
    await until_held(cell, before + byte_count)


@pytest.mark.parametrize("length", [MAX_BYTES, None])
def test_bytes_of_bodies_are_counted_as_they_come_and_not_as_they_are_announced(length: int | None) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as announced, RawClient(cell) as sending:
            announced.start("POST", "/mcp", MAX_BYTES)
            await send_part(cell, sending, 10, length)
            sending.writer.write(b" " if length else b"\r\n1\r\n ")
            await until_held(cell, 11)
        await until_held(cell, 0)

    on_cell(body, gateway=MANY_CELLS)


def test_at_its_share_of_bytes_an_address_is_served_past_it_refused_and_others_notice_nothing() -> None:
    async def body(cell: RunningCell) -> None:
        before = metrics.bounds_reached_total.labels("buffered")._value.get()
        async with RawClient(cell) as first, RawClient(cell) as second, RawClient(cell, "127.0.0.2") as other:
            await send_part(cell, first, MAX_BYTES - 100)
            second.start("POST", "/mcp", 101)
            second.writer.write(b" " * 100)
            await until_held(cell, MAX_BYTES)
            second.writer.write(b" ")
            refused = await second.answer()
            assert (refused.status, refused.reason, refused.headers["retry-after"]) == (503, "too_many_connections", "1")
            assert f"the clients of one address may take {MAX_BYTES} bytes" in refused.text
            await until_held(cell, MAX_BYTES - 100)
            assert (await other.ask("POST", "/mcp", INITIALIZE)).status == 200
            first.writer.write(b" " * 100)
            assert (await first.answer()).reason == "parse_error"  # it was whole: nobody has taken its room
            assert (await second.ask("POST", "/mcp", INITIALIZE)).status == 200
        assert metrics.bounds_reached_total.labels("buffered")._value.get() == before + 1
        await until_held(cell, 0)

    on_cell(body, gateway=MANY_CELLS)


def test_what_all_addresses_hold_is_bounded_too() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as first, RawClient(cell, "127.0.0.2") as second, RawClient(cell, "127.0.0.3") as third:
            await send_part(cell, first, MAX_BYTES, MAX_BYTES + 1)
            await send_part(cell, second, MAX_BYTES, MAX_BYTES + 1)
            await send_part(cell, third, 4_096 - 2 * MAX_BYTES, 4_097 - 2 * MAX_BYTES)
            third.writer.write(b" ")
            refused = await third.answer()
            assert (refused.status, "all clients may take 4096 bytes" in refused.text) == (503, True)

    on_cell(body, gateway={**MANY_CELLS, "max_message_bytes": MAX_BYTES + 1})


def test_a_body_is_held_decoded_until_its_answer_is_there() -> None:
    """A small one becomes a large one, and a slow call holds it."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client, RawClient(cell) as late:
            opened = await client.ask("POST", "/mcp", INITIALIZE)
            session = opened.headers["mcp-session-id"]
            call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "slow", "arguments": {"seconds": 0.5}}}
            content = json.dumps(call).encode().ljust(MAX_BYTES)
            client.start("POST", "/mcp", len(small := gzip.compress(content)), Content_Encoding="gzip", Mcp_Session_Id=session)
            client.writer.write(small)
            await until_held(cell, MAX_BYTES)
            late.start("POST", "/mcp", len(small), Content_Encoding="gzip", Mcp_Session_Id=session)
            late.writer.write(small)
            assert (await late.answer()).reason == "too_many_connections"
            assert (await client.answer()).status == 200
            await until_held(cell, 0)

    on_cell(body, gateway=MANY_CELLS)


def test_a_client_that_leaves_while_its_call_runs_holds_nothing() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            session = (await client.ask("POST", "/mcp", INITIALIZE)).headers["mcp-session-id"]
            call = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow","arguments":{"seconds":30}}}'
            client.start("POST", "/mcp", len(call), Mcp_Session_Id=session)
            client.writer.write(call)
            await until_held(cell, len(call))
        await until_held(cell, 0)

    on_cell(body, gateway=MANY_CELLS)
