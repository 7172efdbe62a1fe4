"""One connection and what its client sees of it, the same over both forms: order, what is read ahead, framing, how it ends."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from tornado.iostream import IOStream

from mcp_gateway.transports.downstream.server.http1_connection import Http1Connection
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.read_turns import ReadTurns
from tests.doubles.patience import until
from tests.doubles.raw_http_client import INITIALIZE, RawClient, on_cell
from tests.doubles.raw_websocket import TEXT, frame
from tests.doubles.running_cell import RunningCell
from tests.doubles.tls_relay import self_signed

pytestmark = pytest.mark.usefixtures("each_http_parser")

ONE_READ = 65_536
ONE_BYTE, NO_BYTES = b"1\r\nx\r\n", b"0\r\n\r\n"
"""Chunks."""


class Kept:
    """An endpoint that answers when the test says so."""

    def __init__(self, cell: RunningCell) -> None:
        self.incomings: list[Incoming] = []
        self.gone: list[Incoming] = []
        cell.cell._server.add_endpoint("/kept", self)

    def handle(self, incoming: Incoming) -> None:
        incoming.on_client_gone(lambda: self.gone.append(incoming))
        self.incomings.append(incoming)


def get(path: str, *lines: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: 127.0.0.1", *lines, "", ""]).encode()


def connections(cell: RunningCell) -> list[Any]:
    return list(cell.cell._server._server._connections)


def read_ahead(cell: RunningCell) -> int:
    return sum(each.stream._read_buffer_size for each in connections(cell))


# ---- one request after the other


def test_requests_that_come_together_are_served_and_answered_one_after_the_other() -> None:
    """Source: RFC 9112, section 9.3.2."""

    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.writer.write(b"".join(get(f"/kept?{number}") for number in range(5)) + get("/health/live"))
            for number in range(5):
                await until(lambda: len(kept.incomings) > number)  # noqa: B023
                await asyncio.sleep(0.02)
                assert [each.query for each in kept.incomings] == [str(each) for each in range(number + 1)]
                kept.incomings[-1].respond(200, str(number).encode(), {})
                assert (await client.answer()).body == str(number).encode()
            assert (await client.answer()).body == b'{"status":"live"}'
        assert kept.gone == []

    on_cell(body)


def test_while_an_answer_is_open_no_more_is_read_than_one_read_brings_and_nothing_is_lost() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        count, padding = 600, "X-Padding: " + "x" * 1_000
        async with RawClient(cell) as client:
            client.writer.write(get("/kept") + get("/health/live", padding) * count)
            await until(lambda: kept.incomings and read_ahead(cell))
            await asyncio.sleep(0.2)
            assert 0 < read_ahead(cell) <= 2 * ONE_READ
            kept.incomings[0].respond(200, b"", {})
            assert (await client.answer()).status == 200
            most = 0
            for _ in range(count):
                assert (await client.answer()).status == 200
                most = max(most, read_ahead(cell))
            assert most <= 2 * ONE_READ
            await until(lambda: read_ahead(cell) == 0)

    on_cell(body)


def test_the_next_request_is_served_once_the_answer_before_it_has_left() -> None:
    """What a client that does not read asks for must not pile up here."""

    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        large = bytes(range(256)) * 40_000
        async with RawClient(cell) as client:
            client.writer.write(get("/kept?1") + get("/kept?2"))
            await until(lambda: kept.incomings)
            kept.incomings[0].respond(200, large, {})
            await asyncio.sleep(0.1)
            assert len(kept.incomings) == 1
            assert (await client.answer()).body == large
            await until(lambda: len(kept.incomings) == 2)

    on_cell(body)


def test_what_is_written_for_a_request_that_is_over_goes_into_no_other_answer() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.writer.write(get("/kept") + get("/kept"))
            await until(lambda: kept.incomings)
            first = kept.incomings[0]
            first.respond(200, b"1", {})
            await until(lambda: len(kept.incomings) == 2)
            first.respond(200, b"again", {})
            if any(isinstance(each, Http1Connection) for each in connections(cell)):
                late = first.write(b"late")
                assert late.exception() is not None
                first.end()
            kept.incomings[1].respond(200, b"2", {})
            assert [(await client.answer()).body for _ in range(2)] == [b"1", b"2"]

    on_cell(body)


def test_bytes_behind_a_request_are_refused_when_it_has_been_answered() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.writer.write(get("/kept") + b"what is this?\r\n\r\n")
            await until(lambda: kept.incomings)
            kept.incomings[0].respond(200, b"1", {})
            assert (await client.answer()).body == b"1"
            assert (await client.answer()).status == 400
            assert await client.is_closed()

    on_cell(body)


# ---- framing


def test_a_client_that_waits_for_100_continue_is_told_to_go_on() -> None:
    """Source: RFC 9110, section 10.1.1."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            for _ in range(2):
                client.start("POST", "/mcp", len(INITIALIZE), Expect="100-continue")
                assert (await client.answer()).status == 100
                client.writer.write(INITIALIZE)
                assert (await client.answer()).status == 200
            client.start("POST", "/mcp", 10**9, Expect="100-continue")  # far too large: it has its answer
            assert (await client.answer()).status == 413
            assert await client.is_closed()

    on_cell(body)


def test_an_answer_in_pieces_is_whole_also_where_the_socket_takes_a_part_of_it() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        pieces = (b"[", bytes(range(256)) * 20_000, b"]")
        async with RawClient(cell) as client:
            client.writer.write(get("/kept") + get("/kept"))
            for answered, each in enumerate((pieces, (b"a", b"", b"b"))):
                await until(lambda: len(kept.incomings) > answered)  # noqa: B023
                kept.incomings[-1].respond(200, each, {})
                assert (await client.answer()).body == b"".join(each)

    on_cell(body)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_stream_has_begun_for_its_client_before_there_is_anything_to_say(version: str) -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.writer.write(get("/kept", version=version))
            await until(lambda: kept.incomings)
            incoming = kept.incomings[0]
            incoming.begin({})
            assert (await client.answer()).status == 200
            await incoming.write(b"data: 1\n\n")
            incoming.end()
            expected = b"data: 1\n\n" if version == "1.0" else b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
            assert await client.reader.readexactly(len(expected)) == expected

    on_cell(body)


def test_a_stream_that_ends_as_it_begins_is_an_empty_one() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.writer.write(get("/kept") + get("/health/live"))
            await until(lambda: kept.incomings)
            kept.incomings[0].begin({})
            kept.incomings[0].end()
            assert (await client.answer()).status == 200
            assert await client.reader.readexactly(5) == b"0\r\n\r\n"
            assert (await client.answer()).body == b'{"status":"live"}'

    on_cell(body)


def test_a_stream_comes_in_chunks_and_the_connection_goes_on() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.writer.write(get("/kept") + get("/health/live"))
            await until(lambda: kept.incomings)
            incoming = kept.incomings[0]
            incoming.begin({"X-More": "yes"})
            for part in (b"data: 1\n\n", b"", b"x" * 100_000):
                await incoming.write(part)
            incoming.end()
            answer = await client.answer()
            assert answer.headers["transfer-encoding"] == "chunked"
            assert (answer.headers["content-type"], answer.headers["x-more"]) == ("text/event-stream", "yes")
            expected = b"9\r\ndata: 1\n\n\r\n186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n"
            assert await client.reader.readexactly(len(expected)) == expected
            assert (await client.answer()).status == 200

    on_cell(body)


def test_others_have_their_turn_between_the_chunks_of_a_body_that_has_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    took = ReadTurns.took

    def noted(self: ReadTurns, part_count: int) -> None:
        turns.append(part_count)
        took(self, part_count)

    monkeypatch.setattr(ReadTurns, "took", noted)

    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.start("POST", "/kept", None)
            client.writer.write(ONE_BYTE * 4_000 + NO_BYTES)
            await until(lambda: kept.incomings)
            assert kept.incomings[0].body == b"x" * 4_000
            assert isinstance(connections(cell)[0], Http1Connection) is bool(turns), "Tornado's own has turns of its own"

    on_cell(body, gateway={"max_message_bytes": 100_000})
    assert max(turns, default=0) < 700
    assert all(count < 180 for count in sorted(turns)[:-2])


def test_who_asks_for_the_end_of_the_connection_is_told_of_it_and_it_ends() -> None:
    """Source: RFC 9112, section 9.6."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            client.writer.write(get("/health/live", "Connection: close") + get("/health/live"))
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.is_closed()
        assert connections(cell) == []

    on_cell(body)


def test_no_header_of_an_answer_can_hold_another() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as client:
            client.writer.write(get("/kept"))
            await until(lambda: kept.incomings)
            with pytest.raises(ValueError, match="header"):
                kept.incomings[0].respond(200, b"", {"X": "a\r\nSet-Cookie: b"})

    on_cell(body)


# ---- the end


def test_a_client_that_leaves_is_noticed_while_its_answer_is_open_and_not_after_it() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        for number in (1, 2):
            async with RawClient(cell) as client:
                client.writer.write(get("/kept"))
                await until(lambda: len(kept.incomings) == number)  # noqa: B023
                if number == 2:
                    kept.incomings[-1].respond(200, b"", {})
                    await client.answer()
            await until(lambda: not connections(cell))
        assert kept.gone == kept.incomings[:1]
        for each in kept.incomings:  # nobody is there any more
            each.respond(200, b"", {})
            each.end()

    on_cell(body)


def test_a_server_that_closes_ends_every_connection_whatever_it_is_about() -> None:
    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        async with RawClient(cell) as open_one, RawClient(cell) as idle, RawClient(cell) as sending:
            open_one.writer.write(get("/kept"))
            sending.start("POST", "/mcp", 100)
            await until(lambda: kept.incomings and len(connections(cell)) == 3 and cell.cell._server.reading)
            await cell.cell._server._server.close_all_connections()
            assert [await each.is_closed() for each in (open_one, idle, sending)] == [True] * 3
        assert (kept.gone, cell.cell._server.reading, cell.cell._server._server.waiting_count) == (kept.incomings, set(), 0)

    on_cell(body)


def test_a_defect_in_what_takes_a_request_ends_its_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client, RawClient(cell) as other:
            with monkeypatch.context() as patch:
                patch.setattr(Incoming, "finish", lambda _: 1 / 0)
                client.writer.write(get("/health/live"))
                assert await client.is_closed()
            assert (await other.ask("GET", "/health/live")).status == 200
        assert cell.cell._server.reading == set()

    on_cell(body)


@pytest.mark.parametrize("is_late", [False, True])
def test_who_takes_the_connection_over_reads_what_came_behind_the_request(is_late: bool) -> None:
    """Late is after its client was asked about, say: then more may have come."""

    async def body(cell: RunningCell) -> None:
        taken: list[IOStream] = []

        class Taking(Kept):
            def handle(self, incoming: Incoming) -> None:
                super().handle(incoming)
                if not is_late:
                    taken.append(incoming.detach())

        kept = Taking(cell)
        async with RawClient(cell) as client:
            client.writer.write(get("/kept") + b"behind ")
            await until(lambda: kept.incomings)
            client.writer.write(b"it")
            if is_late:
                await asyncio.sleep(0.05)
                taken.append(kept.incomings[0].detach())
            async with asyncio.timeout(5):
                assert await taken[0].read_bytes(len(b"behind it")) == b"behind it"
                await taken[0].write(b"back")
                assert await client.reader.readexactly(4) == b"back"
            await until(lambda: not connections(cell))
            assert not taken[0].closed()
            assert kept.gone == []
            taken[0].close()

    on_cell(body)


# ---- TLS


def test_over_tls_clients_are_served_and_refused_as_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = self_signed(tmp_path)
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.create_default_context(cafile=str(certificate))

    async def body(cell: RunningCell) -> None:
        kept = Kept(cell)
        cell.cell._server._server.ssl_options = ours
        large = bytes(range(256)) * 40_000

        class Secure(RawClient):
            async def __aenter__(self) -> RawClient:
                self.reader, self.writer = await asyncio.open_connection(
                    "127.0.0.1", self.port, ssl=theirs, server_hostname="localhost"
                )
                return self

        async with Secure(cell) as client:
            for _ in range(2):
                assert (await client.ask("POST", "/mcp", INITIALIZE)).status == 200
            client.start("POST", "/kept", 300_000)
            client.writer.write(b"x" * 300_000 + get("/health/live"))
            await until(lambda: kept.incomings)
            assert len(kept.incomings[0].body) == 300_000
            kept.incomings[0].respond(200, large, {})
            assert (await client.answer()).body == large
            assert (await client.answer()).status == 200
            assert connections(cell)[0].has_served
            client.start("POST", "/kept", None)
            client.writer.write(ONE_BYTE * 4_000 + NO_BYTES)
            await until(lambda: len(kept.incomings) == 2)
            assert kept.incomings[1].body == b"x" * 4_000
        async with Secure(cell) as client:
            asks = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
            upgrade = get("/mcp/ws", *asks, "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==")
            client.writer.write(upgrade + frame(TEXT, INITIALIZE))
            assert (await client.answer()).status == 101
            async with asyncio.timeout(5):
                assert b"serverInfo" in await client.reader.read(65_536)
        async with Secure(cell) as malformed, Secure(cell) as slow:
            malformed.writer.write(b"what is this?\r\n\r\n")
            slow.writer.write(b"GET /")
            assert [(await each.answer()).status for each in (malformed, slow)] == [400, 408]
        await until(lambda: not connections(cell))

    on_cell(body, gateway={"max_message_bytes": 1_000_000, "header_timeout": 1.0})
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []
