"""Tests of HTTP+SSE towards servers that behave badly; good ones are in the end-to-end tests."""

from typing import Any

import pytest
from aiohttp import web

from mcp_gateway.transports.ports.upstream_port import CredentialRefused
from mcp_gateway.transports.upstream.pipes.http_sse import SsePipe
from mcp_gateway.transports.upstream.pipes.message_pipe import PipeClosed, SendFailed
from mcp_gateway.transports.upstream.pipes.pipe_target import PipeTarget
from tests.doubles.odd_http_server import answer, event_stream, odd_http_server
from tests.doubles.patience import on_loop
from tests.doubles.shown_tokens import ShownTokens, takes_from

ENDPOINT = b"event: endpoint\ndata: /post?id=1\n\n"
SECRET = {"Authorization": "Bearer secret"}


async def opened(url: str, max_message_bytes: int = 10_000) -> SsePipe:
    pipe = SsePipe(PipeTarget(url, SECRET, max_message_bytes))
    try:
        await pipe.open()
    except BaseException:
        await pipe.close()
        raise
    return pipe


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (answer(404), "status 404"),
        (answer(200, Content_Type="text/html"), "status 200 and text/html"),
        (event_stream(stays_open=False), "the server has ended its stream"),
        (event_stream(b"event: endpoint\ndata: http://127.0.0.1:1/post\n\n"), "an address of another origin"),
        (event_stream(b"event: endpoint\ndata: https://evil.example/post\n\n"), "an address of another origin"),
        (event_stream(b"data: " + b"x" * 20_000 + b"\n\n"), "the server sent too much"),
        (answer(302, Location="http://127.0.0.1:1/sse"), "an address of another origin"),
        (answer(302, Location="/sse"), "redirects too often"),
        (answer(302), "redirects too often"),
    ],
)
def test_a_server_that_opens_no_proper_stream_is_told_of_as_what_it_is(handler: Any, why: str) -> None:
    async def check() -> None:
        async with odd_http_server(sse=handler) as url:
            with pytest.raises(PipeClosed, match=why):
                await opened(f"{url}/sse")

    on_loop(check)


def test_a_server_that_is_not_there_is_told_of_without_its_address() -> None:
    async def check() -> None:
        with pytest.raises(PipeClosed) as caught:
            await opened("http://127.0.0.1:1/sse")
        assert str(caught.value) == "cannot connect: Connection refused"

    on_loop(check)


def test_messages_go_to_the_endpoint_with_the_headers_and_come_as_events_of_their_name() -> None:
    async def check() -> None:
        posted: list[Any] = []

        async def post(request: web.Request) -> web.Response:
            posted.append((request.query_string, request.headers["Authorization"], await request.read()))
            return web.Response(status=202)

        noise = b": comment\n\nevent: heartbeat\ndata: {}\n\nid: 1\n\n"
        async with odd_http_server(sse=event_stream(noise, ENDPOINT, noise, b'data: {"a":1}\n\n'), post=post) as url:
            pipe = await opened(f"{url}/sse")
            begun: list[int] = []
            await pipe.send(b'{"b":2}', lambda: begun.append(1))
            assert posted == [("id=1", "Bearer secret", b'{"b":2}')]
            assert begun == [1]
            assert await pipe.receive() == b'{"a":1}'
            await pipe.close()

    on_loop(check)


@pytest.mark.parametrize("status", [301, 400, 413, 500, 503])
def test_a_message_that_the_server_refuses_fails_alone(status: int) -> None:
    async def check() -> None:
        async with odd_http_server(sse=event_stream(ENDPOINT, b"data: {}\n\n"), post=answer(status)) as url:
            pipe = await opened(f"{url}/sse")
            with pytest.raises(SendFailed, match=f"status {status}"):
                await pipe.send(b"{}", lambda: None)
            assert await pipe.receive() == b"{}", "the connection goes on"
            await pipe.close()

    on_loop(check)


def test_a_server_that_has_forgotten_the_connection_has_ended_it() -> None:
    async def check() -> None:
        async with odd_http_server(sse=event_stream(ENDPOINT), post=answer(404)) as url:
            pipe = await opened(f"{url}/sse")
            with pytest.raises(PipeClosed, match="does not know the connection"):
                await pipe.send(b"{}", lambda: None)
            await pipe.close()

    on_loop(check)


def test_redirects_are_followed_within_the_origin_and_never_out_of_it() -> None:
    async def check() -> None:
        posted: list[bytes] = []

        async def post(request: web.Request) -> web.Response:
            posted.append(await request.read())
            return web.Response(status=202)

        routes = {"sse": answer(307, Location="/other"), "other": event_stream(ENDPOINT), "target": post}
        async with odd_http_server(**routes, post=answer(307, Location="/target")) as url:
            pipe = await opened(f"{url}/sse")
            await pipe.send(b'{"a":1}', lambda: None)
            assert posted == [b'{"a":1}']
            await pipe.close()
        async with odd_http_server(**routes, post=answer(307, Location="http://127.0.0.1:1/target")) as url:
            pipe = await opened(f"{url}/sse")
            with pytest.raises(SendFailed, match="another origin"):
                await pipe.send(b"{}", lambda: None)
            await pipe.close()

    on_loop(check)


def test_an_event_beyond_the_limit_and_the_end_of_the_stream_close_the_connection() -> None:
    async def check() -> None:
        for end, why in ((b"data: " + b"x" * 20_000, "the server sent too much"), (b"", "the server has ended its stream")):
            async with odd_http_server(sse=event_stream(ENDPOINT, b"data: {}\n\n", end, stays_open=False)) as url:
                with pytest.raises(PipeClosed, match=why):
                    pipe = await opened(f"{url}/sse")
                    try:
                        while True:
                            await pipe.receive()
                    finally:
                        await pipe.close()

    on_loop(check)


def test_the_stream_and_each_message_show_a_token_and_a_fresh_one_where_the_server_refuses_it() -> None:
    async def check() -> None:
        show = ShownTokens()
        lacking = 'Bearer error="insufficient_scope", scope="write"'
        routes = {"sse": takes_from(1, event_stream(ENDPOINT)), "post": takes_from(2, answer(202), 403, lacking)}
        async with odd_http_server(**routes) as url:
            pipe = SsePipe(PipeTarget(f"{url}/sse", {}, 10_000, show=show))
            await pipe.open()
            await pipe.send(b"{}", lambda: None)
            await pipe.send(b"{}", lambda: None)
            assert show.refusals == [(401, "Bearer"), (403, lacking)]
            await pipe.close()
        async with odd_http_server(sse=event_stream(ENDPOINT), post=takes_from(9, answer(202))) as url:
            pipe = SsePipe(PipeTarget(f"{url}/sse", {}, 10_000, show=show))
            await pipe.open()
            with pytest.raises(CredentialRefused):
                await pipe.send(b"{}", lambda: None)
            await pipe.close()

    on_loop(check)


def test_a_server_that_gets_no_tokens_and_refuses_who_asks_is_one_that_cannot_be_used() -> None:
    async def check() -> None:
        async with odd_http_server(sse=answer(401, WWW_Authenticate="Bearer")) as url:
            with pytest.raises(PipeClosed, match="status 401"):
                await opened(f"{url}/sse")

    on_loop(check)
