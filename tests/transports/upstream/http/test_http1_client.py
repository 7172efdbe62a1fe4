"""The client and its connections, against servers that write their answers byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from mcp_gateway.transports.upstream.http.http1_client import CannotConnect, Http1Client
from mcp_gateway.transports.upstream.http.server_connection import ExchangeCut
from tests.doubles.http_origin import CHUNKED, OK, Origin, asking, get
from tests.doubles.patience import on_loop, until
from tests.doubles.ports import free_port
from tests.doubles.tls_relay import self_signed

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
