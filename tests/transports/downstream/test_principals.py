"""What belongs to a principal is nobody else's, and ends with its login, over every transport.

Source: MCP 2025-11-25, basic/security_best_practices, "Session Hijacking"; issue of the gateway: streams end when the token does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.doubles.known_clients import ADA, BOB, KnownClients, bearer, on_guarded_cell
from tests.doubles.patience import until
from tests.doubles.phoenix_client import phoenix_client
from tests.doubles.raw_http_client import INITIALIZE, PING, Answer, RawClient
from tests.doubles.raw_websocket import CLOSE, TEXT, RawWebSocket
from tests.doubles.running_cell import RunningCell
from tests.doubles.topic_reader import read_topic

STREAM = {"Accept": "text/event-stream"}
PREFIX = "io.modelcontextprotocol/"


def message(method: str, params: dict[str, Any] | None = None, request_id: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}).encode()


def modern(method: str, params: dict[str, Any], request_id: Any = 1) -> bytes:
    who = {"name": "n", "version": "1"}
    meta = {f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientInfo": who, f"{PREFIX}clientCapabilities": {}}
    return message(method, {**params, "_meta": meta}, request_id)


SLOW = {"name": "slow", "arguments": {"seconds": 0.4}}
LISTEN = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, "listen")


async def opened_session(client: RawClient, token: str) -> str:
    answer = await client.ask("POST", "/mcp", INITIALIZE, **bearer(token))
    assert answer.status == 200
    return answer.headers["mcp-session-id"]


# ---- sessions


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("POST", PING),
        ("POST", message("tools/list")),
        ("POST", b'{"jsonrpc":"2.0","method":"notifications/initialized"}'),
        ("GET", b""),
        ("DELETE", b""),
    ],
)
@pytest.mark.parametrize("thief", ["bob", ""])
def test_the_session_of_another_principal_is_not_found(method: str, body: bytes, thief: str) -> None:
    async def run(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            session = {"Mcp_Session_Id": await opened_session(client, "ada")}
            accept = {} if method == "POST" else STREAM
            shown = bearer(thief) if thief else {}
            answer = await client.ask(method, "/mcp", body, **session, **accept, **shown)
            assert (answer.status, answer.reason) == (404, "session_not_found")
            assert (await client.ask("POST", "/mcp", PING, **session, **bearer("ada"))).status == 200

    on_guarded_cell(run, auth={"mode": "optional"})


def test_a_batch_finds_no_session_of_another_principal() -> None:
    async def run(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            opening = INITIALIZE.replace(b"2025-11-25", b"2025-03-26")
            opened = await client.ask("POST", "/mcp", opening, **bearer("ada"))
            session = {"Mcp_Session_Id": opened.headers["mcp-session-id"]}
            assert (await client.ask("POST", "/mcp", b"[%b]" % PING, **session, **bearer("ada"))).status == 200
            stolen = await client.ask("POST", "/mcp", b"[%b]" % PING, **session, **bearer("bob"))
            assert (stolen.status, stolen.reason) == (404, "session_not_found")

    on_guarded_cell(run)


def test_a_session_outlives_the_token_it_was_opened_with() -> None:
    """Clients refresh their tokens; who they are stays."""

    async def run(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            session = {"Mcp_Session_Id": await opened_session(client, "ada")}
            assert (await client.ask("POST", "/mcp", PING, **session, **bearer("ada-later"))).status == 200

    on_guarded_cell(run)


async def sse_stream(cell: RunningCell, client: RawClient, token: str) -> str:
    """Open a stream of HTTP+SSE; where to post."""
    client.start("GET", "/mcp/sse/connect", 0, **bearer(token))
    assert (await client.answer()).status == 200
    async with asyncio.timeout(5):
        told = await client.reader.readuntil(b'"}\n\n')
    return "/mcp/sse/" + told.partition(b"data: ")[2].partition(b"\n")[0].decode().strip()


def test_only_the_principal_of_a_stream_posts_to_it() -> None:
    async def run(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as stream, RawClient(cell) as client:
            path = await sse_stream(cell, stream, "ada")
            for headers in (bearer("bob"), {}):
                answer = await client.ask("POST", path, INITIALIZE, **headers)
                assert (answer.status, answer.reason, json.loads(answer.body)["id"]) == (404, "session_not_found", 1)
            assert (await client.ask("POST", path, INITIALIZE, **bearer("ada-later"))).status == 202
            async with asyncio.timeout(5):
                assert b"protocolVersion" in await stream.reader.readuntil(b"protocolVersion")

    on_guarded_cell(run, auth={"mode": "optional"})


# ---- topics


@pytest.mark.parametrize("topic", ["all", "mcp.*", "vsm.*", "vsm.algedonic.pain", "mcp.session.ended", "client"])
def test_topics_of_the_gateway_are_for_operators(topic: str) -> None:
    async def run(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("GET", f"/mcp/sse/events/{topic}", **bearer("bob"))
            assert (answer.status, answer.reason) == (403, "insufficient_scope")
            assert 'scope="mcp-gateway:operate' in answer.headers["www-authenticate"]
        async with read_topic(cell.settings.gateway.port, topic, **bearer("ops")) as reader:
            await reader.next("connected")
        async with phoenix_client(cell.url, headers=bearer("bob")) as phoenix:
            reply = await phoenix.ask("j1", f"mcp:{topic}", "phx_join", {})
            assert (reply.status, reply.response["reason"]) == ("error", "insufficient_scope")
            assert reply.response["scopes"] == ["mcp-gateway:operate"]
        async with phoenix_client(cell.url, headers=bearer("ops")) as phoenix:
            await phoenix.join(f"mcp:{topic}")

    on_guarded_cell(run)


def test_topics_of_clients_are_for_everybody_who_is_known() -> None:
    async def run(cell: RunningCell, _: KnownClients) -> None:
        async with phoenix_client(cell.url, headers=bearer("bob")) as phoenix:
            await phoenix.join("mcp:client.*")
            async with read_topic(cell.settings.gateway.port, "client.*", **bearer("ada")) as reader:
                await reader.next("connected")
                assert (await phoenix.ask("j1", "mcp:client.*", "event", {"event": "hello", "data": {}})).status == "ok"
                assert (await reader.next("vsm_event")).topic == "client.hello"

    on_guarded_cell(run)


# ---- the end of a login


def idle(cell: RunningCell, clients: KnownClients) -> Callable[[], bool]:
    """Whether nothing is left of anybody's connections."""
    counts = cell.cell._server.connection_counts
    return lambda: not any(counts().values()) and not cell.cell._port.waiting and not clients.watched_count


def test_the_stream_of_a_session_ends_with_the_login() -> None:
    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as client, RawClient(cell) as stream, RawClient(cell) as other:
            session = {"Mcp_Session_Id": await opened_session(client, "ada")}
            others = {"Mcp_Session_Id": await opened_session(client, "bob")}
            assert (await stream.ask("GET", "/mcp", length=0, **session, **STREAM, **bearer("ada"))).status == 200
            assert (await other.ask("GET", "/mcp", length=0, **others, **STREAM, **bearer("bob"))).status == 200
            clients.end(ADA)
            async with asyncio.timeout(5):
                assert (await stream.reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n"), "the stream ends in good order"
            again = await stream.ask("GET", "/mcp", **session, **STREAM, **bearer("ada"))
            assert again.status == 401
            assert len(cell.cell._port.waiting) == 1, "that of the other principal stays"
        await until(idle(cell, clients))

    on_guarded_cell(run)


def test_a_subscription_ends_with_the_login() -> None:
    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as stream:
            answer = await stream.ask("POST", "/mcp", LISTEN, **STREAM, **bearer("ada"), **MODERN)
            assert answer.status == 200
            await until(lambda: cell.cell._port.waiting)
            clients.end(ADA)
            async with asyncio.timeout(5):
                assert b'"unauthorized"' in await stream.reader.readuntil(b"0\r\n\r\n")
        await until(idle(cell, clients))

    on_guarded_cell(run)


MODERN = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": "subscriptions/listen"}


def test_a_call_that_runs_when_the_login_ends_is_answered() -> None:
    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as client, RawClient(cell) as caller:
            session = {"Mcp_Session_Id": await opened_session(client, "ada")}
            call = asyncio.create_task(caller.ask("POST", "/mcp", message("tools/call", SLOW), **session, **bearer("ada")))
            await until(lambda: cell.cell._port.waiting)
            clients.end(ADA)
            assert (await client.ask("POST", "/mcp", PING, **session, **bearer("ada"))).status == 401
            answer: Answer = await call
            assert answer.status == 200

    on_guarded_cell(run)


def test_a_topic_stream_ends_with_the_login() -> None:
    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with read_topic(cell.settings.gateway.port, "client.*", **bearer("ada")) as reader:
            await reader.next("connected")
            clients.end(ADA)
            assert await reader.ends()
        await until(idle(cell, clients))

    on_guarded_cell(run)


def test_a_stream_of_http_sse_ends_with_the_login_once_its_call_is_answered() -> None:
    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as stream, RawClient(cell) as client:
            path = await sse_stream(cell, stream, "ada")
            assert (await client.ask("POST", path, modern("tools/call", SLOW), **bearer("ada"))).status == 202
            await until(lambda: cell.cell._port.waiting)
            clients.end(ADA)
            clients.tokens["new"] = ADA
            late = await client.ask("POST", path, modern("tools/list", {}, "late"), **bearer("new"))
            assert (late.status, late.reason) == (401, "unauthorized")
            async with asyncio.timeout(5):
                told = await stream.reader.readuntil(b"0\r\n\r\n")
            assert b'"result"' in told
        await until(idle(cell, clients))

    on_guarded_cell(run)


def test_a_websocket_ends_with_the_login_once_its_call_is_answered() -> None:
    """Source: RFC 6455, section 7.4.1: 1008 is for what no more fitting code is there for."""

    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with RawWebSocket(cell.settings.gateway.port, "/mcp/ws", bearer("ada")) as socket:
            socket.send(TEXT, LISTEN)
            socket.send(TEXT, modern("tools/call", SLOW, "slow"))
            await until(lambda: len(cell.cell._port.waiting) == 2)
            clients.end(ADA)
            socket.send(TEXT, modern("tools/list", {}, "late"))
            answers: dict[str, Any] = {}
            while (frame := await socket.receive()).opcode != CLOSE:
                told = json.loads(frame.payload)
                if "id" in told:
                    answers[told["id"]] = told
            assert answers["listen"]["error"]["data"]["reason"] == "unauthorized"
            assert answers["late"]["error"]["data"]["reason"] == "unauthorized"
            assert "result" in answers["slow"]
            assert (frame.code, b"log in again" in frame.payload) == (1008, True)
        await until(idle(cell, clients))

    on_guarded_cell(run)


def test_the_channels_of_a_phoenix_socket_end_with_the_login() -> None:
    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with phoenix_client(cell.url, headers=bearer("ada")) as phoenix:
            await phoenix.join("mcp:client.*")
            request = {"method": "tools/call", "params": SLOW, "id": "slow"}
            ref = await phoenix.push("j1", "mcp:client.*", "request", request)
            await until(lambda: cell.cell._port.waiting)
            clients.end(ADA)
            cell.cell._port.publish("client.secret", {})
            late = await phoenix.ask("j1", "mcp:client.*", "request", {"method": "echo", "params": {}, "id": "late"})
            assert (late.status, late.response["reason"]) == ("error", "unauthorized")
            joined = await phoenix.ask("j2", "mcp:client.more", "phx_join", {})
            assert (joined.status, joined.response["reason"]) == ("error", "unauthorized")
            assert (await phoenix.find(event="phx_reply", ref=ref)).status == "ok"
            await phoenix.connection.wait_closed()
            assert phoenix.connection.close_code == 1008
            assert not [told for told in phoenix.told if told.payload.get("event") == "client.secret"]
        await until(idle(cell, clients))

    on_guarded_cell(run)


def test_the_connections_of_others_stay() -> None:
    async def run(cell: RunningCell, clients: KnownClients) -> None:
        async with RawWebSocket(cell.settings.gateway.port, "/mcp/ws", bearer("bob")) as socket:
            clients.end(ADA)
            socket.send(TEXT, modern("tools/list", {}))
            assert "result" in json.loads((await socket.receive()).payload)
            clients.end(BOB)
            assert (await socket.receive()).code == 1008

    on_guarded_cell(run)
