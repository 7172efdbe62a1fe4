"""Tests of WebSockets towards servers that behave badly; good ones are in the end-to-end tests."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mcp_gateway.transports.ports.upstream_port import CredentialRefused
from mcp_gateway.transports.upstream.pipes.message_pipe import PipeClosed
from mcp_gateway.transports.upstream.pipes.pipe_target import PipeTarget
from mcp_gateway.transports.upstream.pipes.websocket import WebSocketPipe
from tests.doubles.odd_http_server import Handler, answer, odd_http_server
from tests.doubles.patience import on_loop
from tests.doubles.shown_tokens import ShownTokens, takes_from


async def opened(url: str, max_message_bytes: int = 10_000) -> WebSocketPipe:
    pipe = WebSocketPipe(PipeTarget(url.replace("http:", "ws:"), {"Authorization": "Bearer secret"}, max_message_bytes))
    try:
        await pipe.open()
    except BaseException:
        await pipe.close()
        raise
    return pipe


Play = Callable[[web.WebSocketResponse, web.Request], Awaitable[Any]]


def socket(play: Play, protocols: tuple[str, ...] = ("mcp",)) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse(protocols=protocols)
        await response.prepare(request)
        await play(response, request)
        return response

    return handle


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (answer(404), "the handshake with status 404"),
        (answer(401, WWW_Authenticate="Bearer"), "the handshake with status 401"),
        (answer(200), "the handshake with status 200"),
        (answer(302, Location="http://127.0.0.1:1/ws"), "an address of another origin"),
    ],
)
def test_a_server_that_opens_no_socket_is_told_of_as_what_it_is(handler: Handler, why: str) -> None:
    async def check() -> None:
        async with odd_http_server(ws=handler) as url:
            with pytest.raises(PipeClosed, match=why):
                await opened(f"{url}/ws")
        with pytest.raises(PipeClosed) as caught:
            await opened("http://127.0.0.1:1/ws")
        assert str(caught.value) == "cannot connect: Connection refused"

    on_loop(check)


def test_messages_go_both_ways_as_text_with_subprotocol_and_headers_and_binary_is_understood() -> None:
    async def check() -> None:
        seen: list[Any] = []

        async def play(peer: web.WebSocketResponse, request: web.Request) -> None:
            seen.append((request.headers["Authorization"], request.headers["Sec-WebSocket-Protocol"]))
            frame = await peer.receive()
            seen.append((frame.type, frame.data))
            await peer.send_str('{"a":"é"}')
            await peer.send_bytes('{"b":"é"}'.encode())
            await peer.close(code=4001)

        async with odd_http_server(ws=socket(play)) as url:
            pipe = await opened(f"{url}/ws")
            await pipe.send('{"x":"é"}'.encode(), lambda: None)
            assert [await pipe.receive(), await pipe.receive()] == ['{"a":"é"}'.encode(), '{"b":"é"}'.encode()]
            with pytest.raises(PipeClosed, match="with code 4001"):
                await pipe.receive()
            begun: list[int] = []
            with pytest.raises(PipeClosed, match="with code 4001"):
                await pipe.send(b"{}", lambda: begun.append(1))
            assert begun == [], "the server cannot have seen it"
            await pipe.close()
            assert seen == [("Bearer secret", "mcp"), (aiohttp.WSMsgType.TEXT, '{"x":"é"}')]

    on_loop(check)


@pytest.mark.parametrize("end", ["too large", "not UTF-8", "gone"])
def test_a_connection_that_breaks_is_closed_with_a_reason(end: str) -> None:
    async def check() -> None:
        async def play(peer: web.WebSocketResponse, request: web.Request) -> None:
            await peer.send_str("{}")
            if end == "too large":
                await peer.send_str("x" * 20_000)
                await peer.receive()
            elif end == "not UTF-8":
                assert peer._writer is not None
                await peer._writer.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
                await peer.receive()
            else:
                assert request.transport is not None
                request.transport.abort()

        async with odd_http_server(ws=socket(play, protocols=())) as url:
            pipe = await opened(f"{url}/ws")
            assert await pipe.receive() == b"{}"
            with pytest.raises(PipeClosed) as caught:
                await pipe.receive()
            assert str(caught.value)
            await pipe.close()

    on_loop(check)


def test_the_handshake_shows_a_token_and_a_fresh_one_where_the_server_refuses_it() -> None:
    async def check() -> None:
        async def play(peer: web.WebSocketResponse, _request: web.Request) -> None:
            await peer.send_str("{}")

        async with odd_http_server(ws=takes_from(1, socket(play)), never=takes_from(9, socket(play))) as url:
            show = ShownTokens()
            pipe = WebSocketPipe(PipeTarget(f"{url}/ws".replace("http:", "ws:"), {}, 10_000, show=show))
            await pipe.open()
            assert await pipe.receive() == b"{}"
            assert (show.number, show.refusals) == (1, [(401, "Bearer")])
            await pipe.close()
            pipe = WebSocketPipe(PipeTarget(f"{url}/never".replace("http:", "ws:"), {}, 10_000, show=show))
            with pytest.raises(CredentialRefused):
                await pipe.open()
            await pipe.close()

    on_loop(check)
