"""A server that was replaced by one of the other era at the same address: wire and bridge find it out together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamConversation, UpstreamError, UpstreamRequest, ignore_events
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.era_bridge import BridgeTransport
from mcp_gateway.transports.upstream.http.streamable_http import StreamableHttpUpstream
from mcp_gateway.transports.upstream.pipes.pipe_conversation import PipeConversation
from tests.doubles.legacy_bridge import SEAL, shown
from tests.doubles.patience import on_loop
from tests.doubles.running_cell import cell_settings
from tests.doubles.scripted_http import LEGACY, MAX_BYTES, MODERN, Seen, Server, reply
from tests.doubles.scripted_pipe import ScriptedServer
from tests.doubles.scripted_wire import settle

DISCOVERED = {"supportedVersions": [MODERN], "capabilities": {"tools": {}}, "ttlMs": 600_000, "cacheScope": "public"}
INITIALIZED = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}


class HttpServer:
    """One address. era: of the server that listens there now; incarnation: which one it is. seen: (method, is modern).

    refusal: what it says to sessions that it does not know.
    """

    refusal = staticmethod(reply(b"", "404 Not Found", ""))

    def __init__(self, era: str) -> None:
        self.era, self.incarnation = era, 1
        self.seen: list[tuple[str, bool]] = []

    def replace(self, era: str) -> None:
        self.era, self.incarnation = era, self.incarnation + 1
        self.seen.clear()

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        is_modern = seen.headers.get("mcp-protocol-version") == MODERN
        self.seen.append((seen.method, is_modern))
        await (self._modern(seen, is_modern) if self.era == "modern" else self._legacy(seen, is_modern))(seen, writer)

    def _modern(self, seen: Seen, is_modern: bool) -> Any:
        if not is_modern:
            return reply({"error": {"code": -32022, "message": "?", "data": {"supported": [MODERN]}}}, "400 Bad Request")
        results = {"server/discover": DISCOVERED, "tools/list": {"tools": [], "resultType": "complete"}}
        if seen.method not in results:
            return reply({"error": {"code": -32601, "message": "?"}}, "404 Not Found")
        return reply({"result": results[seen.method]})

    def _legacy(self, seen: Seen, is_modern: bool) -> Any:
        session = f"s{self.incarnation}"
        if seen.method == "initialize":
            return reply({"result": INITIALIZED}, Mcp_Session_Id=session)
        if is_modern:
            return reply(b"Bad Request: no valid session", "400 Bad Request", "text/plain")
        if seen.headers.get("mcp-session-id") != session:
            return self.refusal
        if "id" not in seen.body:
            return reply(b"", "202 Accepted", "")
        return reply({"result": {"tools": []} if seen.method == "tools/list" else {}})


def bridged(transport: Any, url: str) -> UpstreamConversation:
    (backend,) = cell_settings([{"name": "b", "replicas": [url]}]).backends
    return BridgeTransport(transport, BridgeSite(cell_name="cell/0", seal=SEAL)).connect(ReplicaTarget(backend, 0, MAX_BYTES))


@asynccontextmanager
async def listening(server: HttpServer) -> AsyncIterator[UpstreamConversation]:
    listener = await asyncio.start_server(Server(server).converse, "127.0.0.1", 0)
    bridge = bridged(StreamableHttpUpstream(), f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/mcp")
    try:
        yield bridge
    finally:
        await bridge.close()
        listener.close()


async def ask(bridge: UpstreamConversation, method: str, revision: str, **params: Any) -> dict[str, Any]:
    message = Request(b"7", method, json.dumps({"_meta": {}, **params}).encode())
    request = UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision=revision, timeout_s=5.0)
    answer = await bridge.exchange(request, ignore_events)
    assert answer.response is not None
    assert answer.response.result, answer.response.error
    return shown(answer)


async def lists_tools(bridge: UpstreamConversation) -> None:
    """As a modern client."""
    assert (await ask(bridge, "tools/list", MODERN))["tools"] == []


async def opens_session(bridge: UpstreamConversation) -> None:
    """As a legacy client."""
    opened = await ask(
        bridge, "initialize", LEGACY, protocolVersion=LEGACY, capabilities={}, clientInfo={"name": "c", "version": "1"}
    )
    assert opened["protocolVersion"] == LEGACY


@pytest.mark.parametrize(
    "refusal",
    [
        reply(b"", "400 Bad Request", ""),
        reply(b"", "410 Gone", ""),
        reply({"error": {"code": -32000, "message": "No valid session ID provided"}}, "400 Bad Request"),
        reply({"error": {"code": -32602, "message": "Invalid request parameters"}}),
    ],
)
def test_a_session_that_the_gateway_keeps_for_modern_clients_is_opened_again_however_it_was_lost(refusal: Any) -> None:
    async def body() -> None:
        server = HttpServer("legacy")
        server.refusal = refusal
        async with listening(server) as bridge:
            await lists_tools(bridge)
            server.replace("legacy")
            await lists_tools(bridge)
            methods = [method for method, _ in server.seen]
            assert methods == ["tools/list", "ping", "initialize", "notifications/initialized", "tools/list"]

    on_loop(body)


async def is_probed(bridge: UpstreamConversation) -> None:
    await bridge.probe(2.0)


async def at_second_attempt(bridge: UpstreamConversation, does: Any) -> None:
    """Whoever comes first after the change may be told that the server has failed, or be served at once."""
    try:
        await does(bridge)
    except (UpstreamError, AssertionError):
        await does(bridge)


COMERS = pytest.mark.parametrize("comes_first", [lists_tools, opens_session, is_probed])


@COMERS
def test_a_legacy_server_over_http_that_became_a_modern_one_is_spoken_to_as_such(comes_first: Any) -> None:
    async def body() -> None:
        server = HttpServer("legacy")
        async with listening(server) as bridge:
            for does in (is_probed, lists_tools, opens_session):
                await does(bridge)
            server.replace("modern")
            await at_second_attempt(bridge, comes_first)
            for does in (is_probed, lists_tools, opens_session):
                await does(bridge)
            assert ("tools/list", True) in server.seen
            server.seen.clear()
            await is_probed(bridge)
            assert server.seen[-1] == ("server/discover", True)

    on_loop(body)


@COMERS
def test_a_modern_server_over_http_that_became_a_legacy_one_is_spoken_to_as_such(comes_first: Any) -> None:
    """Its discovery may be remembered for long: whoever asks for the era asks the server."""

    async def body() -> None:
        server = HttpServer("modern")
        async with listening(server) as bridge:
            await ask(bridge, "server/discover", MODERN)
            for does in (is_probed, lists_tools, opens_session):
                await does(bridge)
            server.replace("legacy")
            await at_second_attempt(bridge, comes_first)
            for does in (is_probed, lists_tools, opens_session):
                await does(bridge)
            assert ("tools/list", False) in server.seen
            server.seen.clear()
            await is_probed(bridge)
            assert server.seen[-1] == ("ping", False)

    on_loop(body)


class PipeTransport:
    """Strategy towards a scripted server."""

    name = "scripted"
    schemes = frozenset({"ws"})

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def connect(self, target: ReplicaTarget, era: ServerEra) -> UpstreamConversation:
        return PipeConversation("ws://x#0", self._server, backend="x", max_pipes=5, era=era, longest_call_s=60.0)


MODERN_ANSWERS = {
    "server/discover": json.dumps(DISCOVERED).encode(),
    "tools/list": b'{"tools":[],"resultType":"complete"}',
    "initialize": b'{"code":-32022,"message":"?"}',
    "ping": b'{"code":-32601,"message":"?"}',
}
LEGACY_ANSWERS = {
    "server/discover": b'{"code":-32601,"message":"?"}',
    "tools/list": b'{"tools":[]}',
    "initialize": json.dumps(INITIALIZED).encode(),
    "ping": b"{}",
}


@COMERS
@pytest.mark.parametrize(("before", "after"), [(LEGACY_ANSWERS, MODERN_ANSWERS), (MODERN_ANSWERS, LEGACY_ANSWERS)])
def test_a_server_on_pipes_that_is_started_again_in_the_other_era_is_spoken_to_as_such(
    before: dict[str, bytes], after: dict[str, bytes], comes_first: Any
) -> None:
    async def body() -> None:
        server = ScriptedServer(**before)
        bridge = bridged(PipeTransport(server), "ws://127.0.0.1:1/")
        for does in (is_probed, lists_tools, opens_session):
            await does(bridge)
        server.answers = {**after}
        earlier = list(server.pipes)
        for pipe in earlier:
            pipe.end()
        await settle()
        await at_second_attempt(bridge, comes_first)
        for does in (lists_tools, opens_session, is_probed):
            await does(bridge)
        initialized = [pipe for pipe in server.pipes[len(earlier) :] if pipe.notifications("notifications/initialized")]
        listed = [pipe for pipe in server.pipes[len(earlier) :] if pipe.requests("tools/list")]
        assert listed
        assert (listed[0] in initialized) == (after is LEGACY_ANSWERS)
        await bridge.close()

    on_loop(body)
