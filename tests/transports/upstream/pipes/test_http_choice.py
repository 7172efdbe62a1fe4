"""Which HTTP transport a server speaks, by what it says to a POST and a GET."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.pipes import http_choice
from mcp_gateway.transports.upstream.pipes.http_choice import speaks_sse
from tests.doubles.odd_http_server import answer, event_stream, odd_http_server
from tests.doubles.patience import on_loop
from tests.doubles.ports import free_port

ENDPOINT = b"event: endpoint\ndata: /post?id=1\n\n"
HEADERS = {"Authorization": "Bearer secret"}
MODERN_REFUSAL = '{"jsonrpc": "2.0", "id": null, "error": {"code": -32022, "message": "no"}}'


def by_verb(post: Any, get: Any) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer secret"
        handler = {"POST": post, "GET": get}[request.method]
        response: web.StreamResponse = await handler(request)
        return response

    return handle


def refusal(status: int, body: str) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type="application/json")

    return handle


@pytest.mark.parametrize(
    ("post", "get", "is_sse"),
    [
        (answer(200), answer(405), False),
        (event_stream(b"data: {}\n\n"), answer(405), False),
        (answer(401), event_stream(ENDPOINT), False),
        (answer(405), event_stream(ENDPOINT), True),
        (answer(404), event_stream(ENDPOINT), True),
        (refusal(400, '{"detail": "Method Not Allowed"}'), event_stream(b": hello\n\n", ENDPOINT), True),
        (refusal(400, MODERN_REFUSAL), answer(405), False),
        (answer(405), answer(404), None),
        (answer(404), answer(200), None),
        (answer(400), event_stream(stays_open=False), None),
    ],
)
def test_the_answers_of_a_server_tell_its_transport(post: Any, get: Any, is_sse: bool | None) -> None:
    """Source: MCP 2025-11-25, basic/transports, "Backwards Compatibility"."""

    async def test() -> None:
        async with odd_http_server(mcp=by_verb(post, get)) as url:
            assert await speaks_sse(f"{url}/mcp", HEADERS) is is_sse

    on_loop(test)


def test_a_stream_without_an_endpoint_is_waited_for_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_choice, "_ENDPOINT_S", 0.05)

    async def test() -> None:
        async with odd_http_server(mcp=by_verb(answer(405), event_stream(b"data: {}\n\n"))) as url:
            assert await speaks_sse(f"{url}/mcp", HEADERS) is None

    on_loop(test)


def test_a_session_that_was_opened_for_the_question_is_ended() -> None:
    async def test() -> None:
        ended = []

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.method == "DELETE":
                ended.append(request.headers["Mcp-Session-Id"])
                return web.Response(status=204)
            body = await request.json()
            assert body["method"] == "initialize"
            return web.json_response({"jsonrpc": "2.0", "id": body["id"], "result": {}}, headers={"Mcp-Session-Id": "s1"})

        async with odd_http_server(mcp=handle) as url:
            assert await speaks_sse(f"{url}/mcp", HEADERS) is False
        assert ended == ["s1"]

    on_loop(test)


def test_a_redirect_within_the_origin_is_followed_and_no_other() -> None:
    async def test() -> None:
        moved, away = answer(307, Location="/mcp"), answer(307, Location="http://127.0.0.1:1/mcp")
        async with odd_http_server(moved=moved, away=away, mcp=by_verb(answer(200), answer(405))) as url:
            assert await speaks_sse(f"{url}/moved", HEADERS) is False
            with pytest.raises(UpstreamError, match="another origin"):
                await speaks_sse(f"{url}/away", HEADERS)

    on_loop(test)


def test_a_server_that_is_not_there_or_unwell_is_an_error_and_no_choice() -> None:
    async def test() -> None:
        with pytest.raises(UpstreamError, match="cannot connect") as away:
            await speaks_sse(f"http://127.0.0.1:{free_port()}/mcp", {})
        async with odd_http_server(mcp=by_verb(answer(503), event_stream(ENDPOINT))) as url:
            with pytest.raises(UpstreamError, match="status 503") as unwell:
                await speaks_sse(f"{url}/mcp", HEADERS)
        assert not away.value.fate.was_sent
        assert not unwell.value.fate.was_sent

    on_loop(test)
