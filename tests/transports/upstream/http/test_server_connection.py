"""What servers write as the answer to a request: what is taken, what is refused, what is kept open."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.http.counted_body import Frame
from mcp_gateway.transports.upstream.http.http1_client import Http1Client
from mcp_gateway.transports.upstream.http.server_connection import ExchangeCut
from tests.doubles.http_origin import CHUNKED, CLOSE_DELIMITED, OK, Origin, asking, cut, get
from tests.doubles.patience import on_loop, until


@pytest.mark.parametrize(
    ("sent", "closes", "expected"),
    [
        (CLOSE_DELIMITED + b"all of it", True, b"all of it"),
        (CHUNKED + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n", False, b"abcdefg"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, False, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, b""),
    ],
)
def test_a_body_ends_as_the_server_says(sent: bytes, closes: bool, expected: bytes) -> None:
    async def body() -> None:
        origin = Origin(sent, closes=closes)
        async with asking(origin) as client:
            _, headers, content = await get(client, origin)
            assert content == expected
            assert "link" not in headers
            assert "trailer" not in headers

    on_loop(body)


LARGE = bytes(range(256)) * 10_000
LARGE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE)


def test_a_large_body_is_whole_and_its_connection_serves_on() -> None:
    async def body() -> None:
        origin = Origin(LARGE_HEAD + LARGE, OK, LARGE_HEAD + LARGE)
        async with asking(origin) as client:
            assert [(await get(client, origin))[2] for _ in range(3)] == [LARGE, b"ok", LARGE]
            assert origin.connections == 1

    on_loop(body)


@pytest.mark.parametrize("first_bytes", [0, 1, 300_000, len(LARGE) - 1])
def test_a_large_body_is_whole_wherever_its_server_stops_for_a_while(first_bytes: int) -> None:
    async def body() -> None:
        may_go_on = asyncio.Event()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(LARGE_HEAD + LARGE[:first_bytes])
            await may_go_on.wait()
            writer.write(LARGE[first_bytes:])
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        client = Http1Client(url, {})
        async with client.request("GET", url, {}) as answer:
            reading = asyncio.ensure_future(answer.read())
            await asyncio.sleep(0)
            may_go_on.set()
            assert await reading == LARGE
        await client.close()
        server.close()

    on_loop(body)


def test_a_large_body_comes_in_the_pieces_of_its_frame_and_its_connection_serves_on() -> None:
    async def body() -> None:
        origin = Origin(LARGE_HEAD + LARGE, OK)
        async with asking(origin) as client:
            url = f"http://127.0.0.1:{origin.port}/"
            async with client.request("GET", url, {}) as answer:
                pieces = await answer.read_framed(Frame(before=lambda begun: 3, behind=lambda before, rest: 2))
            assert pieces == (LARGE[:3], LARGE[3:-2], LARGE[-2:])
            assert (await get(client, origin))[2] == b"ok"
            assert origin.connections == 1

    on_loop(body)


def test_who_has_read_enough_of_a_body_leaves_no_work_behind() -> None:
    async def body() -> None:
        origin = Origin(CHUNKED + b"3\r\nabc\r\n")
        async with asking(origin) as client:
            async with client.request("GET", f"http://127.0.0.1:{origin.port}/", {}) as answer:
                before = asyncio.all_tasks()
                async for part in answer.parts():
                    assert part == b"abc"
                    break
                await asyncio.sleep(0)
                assert asyncio.all_tasks() == before

    on_loop(body)


@pytest.mark.parametrize("more", [b"x", OK])
def test_a_connection_with_more_behind_a_large_body_is_not_kept(more: bytes) -> None:
    async def body() -> None:
        origin = Origin(LARGE_HEAD + LARGE + more, OK)
        async with asking(origin) as client:
            assert (await get(client, origin))[2] == LARGE
            await until(lambda: origin.ended == 1)
            assert (await get(client, origin))[2] == b"ok"

    on_loop(body)


def test_what_a_server_announces_and_does_not_send_takes_no_memory() -> None:
    async def body() -> None:
        origin = Origin(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 100_000)
        async with asking(origin) as client:
            tracemalloc.start()
            try:
                with pytest.raises(TimeoutError):
                    await get(client, origin, timeout_s=0.5)
                assert tracemalloc.get_traced_memory()[1] < 1_500_000
            finally:
                tracemalloc.stop()

    on_loop(body)


def test_a_large_body_that_breaks_off_is_a_cut() -> None:
    async def body() -> None:
        origin = Origin(LARGE_HEAD + LARGE[:-1], closes=True)
        async with asking(origin) as client:
            assert not (await cut(client, origin)).before_answer

    on_loop(body)


def test_values_of_a_header_that_comes_twice_are_joined() -> None:
    async def body() -> None:
        origin = Origin(b"HTTP/1.1 200 OK\r\nX: a\r\nx: b\r\nContent-Length: 0\r\n\r\n")
        async with asking(origin) as client:
            assert (await get(client, origin))[1]["x"] == "a, b"

    on_loop(body)


@pytest.mark.parametrize(
    ("sent", "closes", "before_answer"),
    [
        (None, True, True),
        (b"HTTP/1.1 200", True, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", True, False),
        (CHUNKED + b"5\r\nabc", True, False),
        (CHUNKED + b"3\r\nabc\r\n", True, False),
        (CHUNKED + b"zz\r\nabc\r\n", False, False),
        (b"220 ready\r\n", False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", False, False),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nxx", False, False),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", False, False),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 12\r\n\r\n" + gzip.compress(b"x" * 99, mtime=0)[:12],
            False,
            False,
        ),
    ],
)
def test_an_answer_that_is_none_is_an_exchange_cut(sent: bytes | None, closes: bool, before_answer: bool) -> None:
    async def body() -> None:
        origin = Origin(sent, closes=closes)
        async with asking(origin) as client:
            assert (await cut(client, origin)).before_answer is before_answer
            await until(lambda: origin.ended == 1)

    on_loop(body)


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
        CHUNKED + b"2;" + b"x" * 100_000,
        CHUNKED + b"2\r\nok\r\n0\r\n" + b"X: y\r\n" * 100_000,
    ],
)
def test_headers_without_end_are_not_kept(sent: bytes) -> None:
    async def body() -> None:
        origin = Origin(sent)
        async with asking(origin) as client:
            assert "65536 bytes of headers" in str(await cut(client, origin))

    on_loop(body)


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)])
def test_a_compressed_answer_is_read_in_bounded_parts(coding: str, encode: Callable[[bytes], bytes]) -> None:
    async def body() -> None:
        packed = encode(b"x" * 5_000_000)
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n"
        origin = Origin(head.encode() + packed)
        async with (
            asking(origin) as client,
            client.request("GET", f"http://127.0.0.1:{origin.port}/", {}) as answer,
        ):
            assert answer.content_length is None
            sizes = [len(part) async for part in answer.parts()]
            assert (sum(sizes), max(sizes) <= 262_144) == (5_000_000, True)

    on_loop(body)


def test_a_server_waits_for_a_reader_that_is_slow() -> None:
    async def body() -> None:
        size = 50_000_000
        written = 0

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            await reader.readuntil(b"\r\n\r\n")
            writer.write(CLOSE_DELIMITED)
            while written < size:
                writer.write(b"x" * 100_000)
                await writer.drain()
                written += 100_000
            writer.close()

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        client = Http1Client(url, {})
        async with client.request("GET", url, {}) as answer:
            before = -1
            while before != written:  # until the server is stopped by what nobody reads
                before = written
                await asyncio.sleep(0.1)
            assert written < size / 2
            assert sum([len(part) async for part in answer.parts()]) == size
        await client.close()
        server.close()

    on_loop(body)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED + b"2\r\nok\r\n"])
def test_an_exchange_ends_with_its_time_wherever_the_server_has_stopped(sent: bytes) -> None:
    async def body() -> None:
        origin = Origin(sent)
        async with asking(origin) as client:
            with pytest.raises(TimeoutError):
                await get(client, origin, timeout_s=0.3)
            await until(lambda: origin.ended == origin.connections)

    on_loop(body)


def test_an_answer_to_a_large_body_that_the_server_does_not_read_is_taken() -> None:
    async def body() -> None:
        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
            await reader.read(100_000_000)
            writer.close()

        server = await asyncio.start_server(converse, "127.0.0.1", 0, limit=1024)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        client = Http1Client(url, {})
        async with client.request("POST", url, {}, b"x" * 20_000_000) as answer:
            assert (answer.status, await answer.read()) == (413, b"no!")
        await client.close()
        server.close()

    on_loop(body)


@given(
    st.lists(
        st.sampled_from([b"HTTP/1.1 ", b"200 OK\r\n", b"Content-Length: ", b"2\r\n", b"\r\n", b"ok", OK, CHUNKED]) | st.binary()
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_a_server_sends_is_an_answer_or_a_cut(pieces: list[bytes]) -> None:
    async def body() -> None:
        origin = Origin(b"".join(pieces), closes=True)
        async with asking(origin) as client:
            try:
                status, _, content = await get(client, origin)
            except ExchangeCut:
                return
            assert 200 <= status <= 999
            sent = b"".join(pieces)
            assert content in sent or b"hunked" in sent

    on_loop(body)
