"""The client against servers that write their answers byte by byte: what is taken, what is refused, what is kept open."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.http.counted_body import Frame
from mcp_gateway.transports.upstream.http.http1_client import CannotConnect, ExchangeCut, Http1Client
from tests.doubles.patience import on_loop, until
from tests.doubles.ports import free_port
from tests.doubles.tls_relay import self_signed

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Origin:
    """Answers each request with the next of `answers`, and keeps what was asked. None closes the connection."""

    def __init__(self, *answers: bytes | None, closes: bool = False) -> None:
        self._answers = list(answers)
        self._closes = closes
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self.port = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
                self.requests.append(head + await reader.readexactly(length))
                answer = self._answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if self._closes:
                    break
            else:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def asking(origin: Origin, **headers: str) -> AsyncIterator[Http1Client]:
    server = await asyncio.start_server(origin.converse, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    client = Http1Client(f"http://127.0.0.1:{origin.port}/mcp", headers)
    try:
        yield client
    finally:
        await client.close()
        server.close()


async def get(
    client: Http1Client, origin: Origin, timeout_s: float = 5.0, *, may_repeat: bool = False
) -> tuple[int, dict[str, str], bytes]:
    url = f"http://127.0.0.1:{origin.port}/mcp"
    async with client.request("GET", url, {}, timeout_s=timeout_s, may_repeat=may_repeat) as answer:
        return answer.status, answer.headers, await answer.read()


async def cut(client: Http1Client, origin: Origin) -> ExchangeCut:
    with pytest.raises(ExchangeCut) as caught:
        await get(client, origin)
    return caught.value


# ---- what is sent


def test_a_request_is_written_as_http_with_the_headers_of_both() -> None:
    async def body() -> None:
        origin = Origin(OK, OK)
        async with asking(origin, Accept="a/b", **{"User-Agent": "gateway"}) as client:
            url = f"http://127.0.0.1:{origin.port}/other%20path?x=1#part"
            async with client.request("POST", url, {"accept": "c/d"}, b"{}") as answer:
                assert (answer.status, answer.content_length, await answer.read()) == (200, 2, b"ok")
            await get(client, origin)
        expected = (
            f"POST /other%20path?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{origin.port}\r\n"
            "accept: c/d\r\nUser-Agent: gateway\r\nContent-Length: 2\r\n\r\n{}"
        )
        assert origin.requests[0].decode() == expected
        assert b"Content-Length" not in origin.requests[1]

    on_loop(body)


@pytest.mark.parametrize(
    ("name", "value"), [("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "\x00"), ("X: y", "a"), ("X\r\nY", "a"), ("Ä", "a")]
)
def test_a_header_that_would_end_the_line_is_not_sent(name: str, value: str) -> None:
    async def body() -> None:
        origin = Origin(OK)
        async with asking(origin) as client:
            with pytest.raises(ValueError, match="header"):
                async with client.request("GET", f"http://127.0.0.1:{origin.port}/", {name: value}):
                    pass
        assert origin.connections == 0

    on_loop(body)


def test_a_user_in_the_address_is_told_as_basic_credentials() -> None:
    async def body() -> None:
        origin = Origin(OK)
        async with asking(origin):
            client = Http1Client(f"http://me:p%40ss@127.0.0.1:{origin.port}/mcp", {})
            await get(client, origin)
            await client.close()
        assert b"Authorization: Basic bWU6cEBzcw==\r\n" in origin.requests[0]
        assert b"me:" not in origin.requests[0]

    on_loop(body)


# ---- connections


def test_exchanges_in_a_row_use_one_connection_and_at_once_one_each() -> None:
    async def body() -> None:
        origin = Origin(*[OK] * 6)
        async with asking(origin) as client:
            for _ in range(3):
                assert await get(client, origin) == (200, {"content-length": "2"}, b"ok")
            assert origin.connections == 1
            await asyncio.gather(*(get(client, origin) for _ in range(3)))
            assert origin.connections == 3

    on_loop(body)


def test_what_may_not_be_repeated_goes_over_connections_of_its_own() -> None:
    """A server that fails after its 202 to a notification closes the connection when the next exchange may be on it."""

    async def body() -> None:
        origin = Origin(*[OK] * 6)
        async with asking(origin) as client:
            for number in range(6):
                await get(client, origin, may_repeat=number % 2 == 0)
            assert origin.connections == 2

    on_loop(body)


def test_who_asks_again_after_a_cut_meets_no_other_connection_of_before() -> None:
    async def body() -> None:
        origin = Origin(*[OK] * 3, None, OK)
        async with asking(origin) as client:
            await asyncio.gather(*(get(client, origin, may_repeat=True) for _ in range(3)))
            with pytest.raises(ExchangeCut) as caught:
                await get(client, origin, may_repeat=True)
            assert caught.value.before_answer
            assert (await get(client, origin, may_repeat=True))[0] == 200
            assert origin.connections == 4

    on_loop(body)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + OK,  # a second answer, which would be taken for that of the next request
        OK + b"rubbish",
    ],
)
def test_a_connection_that_cannot_be_trusted_with_another_exchange_is_not_kept(answer: bytes) -> None:
    async def body() -> None:
        origin = Origin(answer, OK.replace(b"ok", b"no"))
        async with asking(origin) as client:
            assert (await get(client, origin))[2] == b"ok"
            assert (await get(client, origin))[2] == b"no"
            assert origin.connections == 2

    on_loop(body)


def test_a_connection_on_which_something_comes_unasked_is_dropped() -> None:
    async def body() -> None:
        origin = Origin(OK, OK)
        writers: list[asyncio.StreamWriter] = []

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await origin.converse(reader, writer)

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        origin.port = server.sockets[0].getsockname()[1]
        client = Http1Client(f"http://127.0.0.1:{origin.port}/", {})
        await get(client, origin)
        writers[0].write(OK.replace(b"ok", b"xx"))
        await until(lambda: origin.ended == 1)
        assert (await get(client, origin))[2] == b"ok"
        assert len(writers) == 2
        await client.close()
        server.close()

    on_loop(body)


def test_idle_connections_are_closed_before_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_gateway.transports.upstream.http.http1_client._KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr("mcp_gateway.transports.upstream.http.http1_client._SWEEP_S", 0.01)

    async def body() -> None:
        origin = Origin(OK, OK)
        async with asking(origin) as client:
            await get(client, origin)
            await until(lambda: origin.ended == 1)
            assert (await get(client, origin))[0] == 200

    on_loop(body)


def test_a_connection_whose_answer_was_not_read_to_its_end_is_not_kept() -> None:
    async def body() -> None:
        origin = Origin(CHUNKED + b"2\r\nok\r\n", OK)
        async with asking(origin) as client:
            async with client.request("GET", f"http://127.0.0.1:{origin.port}/", {}) as answer:
                assert await anext(answer.parts()) == b"ok"
            await until(lambda: origin.ended == 1)

    on_loop(body)


def test_nothing_listens_and_nothing_was_sent() -> None:
    async def body() -> None:
        client = Http1Client(f"http://localhost:{free_port()}/", {})
        with pytest.raises(CannotConnect) as caught:
            async with client.request("GET", "http://localhost/", {}):
                pass
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        await client.close()

    on_loop(body)


def test_a_certificate_that_nobody_vouches_for_is_no_connection(tmp_path: Path) -> None:
    async def body() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate, key = self_signed(tmp_path)
        context.load_cert_chain(certificate, key)
        origin = Origin(OK)
        server = await asyncio.start_server(origin.converse, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        client = Http1Client(f"https://localhost:{port}/", {})
        with pytest.raises(CannotConnect) as caught:
            async with client.request("GET", f"https://localhost:{port}/", {}):
                pass
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        await client.close()
        server.close()

    on_loop(body)


# ---- answers


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
