"""Which bridge an exchange takes: none at all within one revision; the era of a server found out once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import scheme_of
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import LEGACY_REVISIONS, NEWEST, NEWEST_LEGACY, REVISIONS
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION, SessionState, UpstreamSession
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.era_bridge import EraBridge
from tests.doubles.legacy_bridge import SEAL, refusal, shown
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import Exchange, ScriptedWire, settle

REPLICA = "http://127.0.0.1:1/mcp"
UNSUPPORTED = UpstreamError(Fate.UNSUPPORTED, "legacy")


class Bridge:
    def __init__(self, protocol: str = "auto", replica: str = REPLICA) -> None:
        self.wire = ScriptedWire()
        site = BridgeSite(cell_name="cell/0", seal=SEAL)
        era = ServerEra(protocol)
        is_http = scheme_of(replica) == "http"
        self.bridge = EraBridge(
            self.wire,
            site,
            replica=ReplicaId("b", replica),
            protocol=protocol,
            is_http=is_http,
            era=era,
            uncached=self.wire,
        )
        self.events: list[Message | None] = []

    async def on_event(self, event: Message | None, event_id: str | None) -> None:
        self.events.append(event)

    def exchange(self, request: UpstreamRequest) -> asyncio.Future[UpstreamAnswer]:
        return asyncio.ensure_future(self.bridge.exchange(request, self.on_event))

    def modern(self, method: str = "tools/list", timeout_s: float | None = None) -> asyncio.Future[UpstreamAnswer]:
        message = Request(b"1", method, b'{"_meta":{}}')
        return self.exchange(UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision=NEWEST, timeout_s=timeout_s))

    def initialize(self, revision: str = NEWEST_LEGACY) -> asyncio.Future[UpstreamAnswer]:
        params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        message = Request(b"1", "initialize", json.dumps(params).encode())
        return self.exchange(UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision=revision))

    @property
    def running(self) -> Exchange:
        return self.wire.open[-1]

    @property
    def methods(self) -> list[str]:
        return [each.request.message.method for each in self.wire.exchanges if isinstance(each.request.message, Request)]

    def fail(self, code: int, status: int = 200) -> None:
        error = Response(b"1", b"", json.dumps({"code": code, "message": "m"}).encode())
        self.running.result.set_result(UpstreamAnswer(status, error))


def session(client: str, server: str) -> SessionState:
    return SessionState("key", "", client, "", b"{}", (UpstreamSession("b", REPLICA, "s", server),))


def in_session(client: str, server: str, method: str = "tools/call") -> UpstreamRequest:
    return UpstreamRequest(
        kind=RequestKind.REQUEST,
        message=Request(b"1", method, b"{}"),
        revision=server,
        session_id="s",
        session=session(client, server),
    )


def test_within_one_revision_the_wire_gets_the_very_request_and_nothing_lies_between() -> None:
    async def body() -> None:
        bridge = Bridge(protocol=NEWEST)
        request = UpstreamRequest(
            kind=RequestKind.REQUEST, message=Request(b"1", "tools/call", b"{}"), revision=NEWEST, has_headers=True
        )
        coroutine = bridge.bridge.exchange(request, bridge.on_event)
        assert coroutine.__qualname__ == "ScriptedWire.exchange"
        running = asyncio.ensure_future(coroutine)
        await settle()
        assert bridge.running.request is request
        legacy = in_session("2025-06-18", "2025-06-18")
        coroutine = bridge.bridge.exchange(legacy, bridge.on_event)
        assert coroutine.__qualname__ == "ScriptedWire.exchange"
        in_session_too = asyncio.ensure_future(coroutine)
        await settle()
        assert bridge.running.request is legacy
        assert bridge.running.on_event == bridge.on_event
        for task in (running, in_session_too):
            task.cancel()

    on_loop(body)


def test_a_call_from_a_socket_gets_the_headers_that_its_tool_wants() -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters"."""

    async def body() -> None:
        bridge = Bridge(protocol=NEWEST)
        message = Request(b"1", "tools/call", b'{"name":"t","arguments":{"region":"eu"},"_meta":{}}')
        called = bridge.exchange(
            UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision=NEWEST, headers={"traceparent": "x"})
        )
        await settle()
        bridge.running.answer(tools_list("Zone"))
        await settle()
        assert bridge.running.request.message is message
        assert bridge.running.request.headers == {"traceparent": "x", "mcp-param-zone": "eu"}
        bridge.fail(-32020, 400)  # the server has changed its mind: its tools are read again, and the call is made once more
        await settle()
        bridge.running.answer(tools_list("Region"))
        await settle()
        assert bridge.running.request.headers == {"traceparent": "x", "mcp-param-region": "eu"}
        bridge.fail(-32020, 400)
        answer = await called
        assert answer.response is not None
        assert json.loads(answer.response.error)["code"] == -32020
        assert bridge.methods == ["tools/list", "tools/call", "tools/list", "tools/call"]

    on_loop(body)


def test_a_server_that_is_spoken_to_on_a_pipe_gets_no_headers() -> None:
    async def body() -> None:
        bridge = Bridge(protocol=NEWEST, replica="ws://127.0.0.1:1/")
        call = bridge.modern("tools/call")
        await settle()
        assert bridge.methods == ["tools/call"]
        bridge.running.answer()
        await call

    on_loop(body)


def tools_list(header: str) -> bytes:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": header}}}
    return json.dumps({"tools": [{"name": "t", "inputSchema": schema}], "ttlMs": 0}).encode()


@pytest.mark.parametrize("protocol", [NEWEST, "auto"])
def test_discovery_of_a_modern_server_lists_the_versions_that_can_be_spoken_here(protocol: str) -> None:
    """Source: MCP 2026-07-28, basic/versioning: what a refused version is told to choose from is in the discovery as well."""

    async def body() -> None:
        bridge = Bridge(protocol=protocol)
        asked = bridge.modern("server/discover")
        await settle()
        if protocol == "auto":
            bridge.running.answer(json.dumps({"supportedVersions": [NEWEST]}).encode())
            await settle()
        told = {"supportedVersions": [NEWEST, "2099-01-01"], "capabilities": {"tools": {}}, "_meta": {"a/b": 1.0}, "ttlMs": 7}
        bridge.running.answer(json.dumps(told).encode())
        answer = await asked
        assert answer.response is not None
        capabilities = {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}
        assert json.loads(answer.response.result) == {**told, "supportedVersions": list(REVISIONS), "capabilities": capabilities}

    on_loop(body)


@pytest.mark.parametrize("result", [b"", b"[]", b"7"])
def test_a_discovery_that_is_no_object_is_passed_on_as_it_is(result: bytes) -> None:
    async def body() -> None:
        bridge = Bridge(protocol=NEWEST)
        asked = bridge.modern("server/discover")
        await settle()
        error = b"" if result else b'{"code":-32603,"message":"m"}'
        bridge.running.result.set_result(UpstreamAnswer(200, Response(b"1", result, error)))
        answer = await asked
        assert answer.response == Response(b"1", result, error)

    on_loop(body)


# ---- the server's era


@pytest.mark.parametrize(
    ("outcome", "is_modern"),
    [
        ({"supportedVersions": [NEWEST]}, True),
        ({"supportedVersions": ["2025-11-25", NEWEST]}, True),
        ({"supportedVersions": ["2025-11-25"]}, False),
        ({}, True),
        (-32601, False),
        (-32600, False),
        (-32022, True),
        (-32020, True),
        (UNSUPPORTED, False),
    ],
)
def test_the_era_is_found_out_once_by_asking(outcome: Any, is_modern: bool) -> None:
    """Source: MCP 2026-07-28, basic/transports/stdio and streamable-http, "Backward Compatibility"."""

    async def body() -> None:
        bridge = Bridge()
        bridge.modern()
        bridge.modern()
        await settle()
        assert bridge.methods == ["server/discover"]
        if isinstance(outcome, int):
            bridge.fail(outcome)
        elif isinstance(outcome, Exception):
            bridge.running.fail(outcome)
        else:
            bridge.running.answer(json.dumps(outcome).encode())
        await settle()
        expected = ["tools/list", "tools/list"] if is_modern else ["initialize"]
        assert bridge.methods[1:] == expected
        bridge.modern()
        await settle()
        assert bridge.methods.count("server/discover") == 1

    on_loop(body)


@pytest.mark.parametrize("takes_handshake", [True, False])
@pytest.mark.parametrize("outcome", [404, 400, UpstreamError(Fate.BROKEN, "status 500")])
def test_where_the_answer_fits_either_era_the_handshake_decides(outcome: Any, takes_handshake: bool) -> None:
    """A modern server that lacks discovery says 404 and -32601; there are legacy ones that say so, or fail with 500."""

    async def body() -> None:
        bridge = Bridge()
        asking = bridge.modern()
        await settle()
        if isinstance(outcome, int):
            bridge.fail(-32601, outcome)
        else:
            bridge.running.fail(outcome)
        await settle()
        assert bridge.methods == ["server/discover", "initialize"]
        if takes_handshake:
            bridge.running.answer(b'{"protocolVersion":"2025-11-25"}', session_id="asked")
            await settle()
            end = bridge.running.request
            assert (end.kind, end.session_id) == (RequestKind.TERMINATE, "asked")
            bridge.running.answer(b"{}")
            await settle()
            assert bridge.methods[-1] == "initialize", "as for any legacy server"
        else:
            bridge.fail(-32601, 404)
            await settle()
            if isinstance(outcome, int):
                assert bridge.methods[2:] == ["tools/list"]
            else:
                assert (await refusal(asking)).failure.text.endswith("status 500")

    on_loop(body)


def test_a_server_that_does_not_answer_leaves_its_era_open() -> None:
    async def body() -> None:
        bridge = Bridge()
        failed = bridge.modern()
        await settle()
        bridge.running.fail(UpstreamError(Fate.UNREACHABLE, "refused"))
        assert (await refusal(failed)).fate.was_sent is False
        assert (await refusal(bridge.modern(timeout_s=0.02))).failure.reason == "upstream_timeout"
        bridge.running.answer(b'{"supportedVersions":["2026-07-28"]}')
        bridge.modern()
        await settle()
        assert bridge.methods == ["server/discover", "server/discover", "tools/list"]

    on_loop(body)


def test_a_pipe_that_stays_silent_is_a_legacy_one() -> None:
    async def body() -> None:
        bridge = Bridge(replica="stdio:b#0")
        bridge.modern()
        await settle()
        bridge.running.fail(UpstreamError(Fate.TIMED_OUT, "silent"))
        await settle()
        assert bridge.methods == ["server/discover", "initialize"]

    on_loop(body)


@pytest.mark.parametrize("protocol", ["2025-06-18", NEWEST])
def test_a_configured_protocol_is_believed(protocol: str) -> None:
    async def body() -> None:
        bridge = Bridge(protocol)
        bridge.modern()
        bridge.initialize()
        await settle()
        if protocol == NEWEST:
            assert bridge.methods == ["tools/list", "server/discover"]
        else:
            assert bridge.methods == ["initialize", "initialize"]
            messages = [each.request.message for each in bridge.wire.exchanges]
            versions = {json.loads(message.params)["protocolVersion"] for message in messages if isinstance(message, Request)}
            assert versions == {protocol, NEWEST_LEGACY}

    on_loop(body)


@pytest.mark.parametrize("refusal_of_server", [-32601, UpstreamError(Fate.REFUSED, "status 400")])
def test_a_server_that_refuses_the_handshake_is_asked_whether_it_is_a_modern_one(refusal_of_server: Any) -> None:
    async def body() -> None:
        bridge = Bridge()
        opening = bridge.initialize()
        await settle()
        if isinstance(refusal_of_server, int):
            bridge.fail(refusal_of_server, 400)
        else:
            bridge.running.fail(refusal_of_server)
        await settle()
        bridge.running.answer(b'{"supportedVersions":["2026-07-28"]}')
        await settle()
        bridge.running.answer(b'{"capabilities":{}}')
        answer = await opening
        assert (answer.session_id or "").startswith(BRIDGED_SESSION)
        bridge.initialize()
        await settle()
        assert bridge.methods == ["initialize", "server/discover", "server/discover", "server/discover"]

    on_loop(body)


def test_a_legacy_server_that_refuses_the_handshake_is_heard() -> None:
    async def body() -> None:
        bridge = Bridge()
        opening = bridge.initialize()
        await settle()
        bridge.fail(-1)
        await settle()
        bridge.fail(-32601)
        assert shown(await opening)["code"] == -1

    on_loop(body)


def test_a_server_that_is_down_is_not_asked_for_its_era() -> None:
    async def body() -> None:
        bridge = Bridge()
        opening = bridge.initialize()
        await settle()
        bridge.running.fail(UpstreamError(Fate.UNREACHABLE, "refused"))
        assert (await refusal(opening)).fate.was_sent is False
        assert bridge.methods == ["initialize"]

    on_loop(body)


def test_a_server_that_was_replaced_by_one_of_the_other_era_is_found_out() -> None:
    async def body() -> None:
        bridge = Bridge()
        first = bridge.modern()
        await settle()
        bridge.running.fail(UNSUPPORTED)
        await settle()
        bridge.fail(-32601)
        refused = await refusal(first)
        assert (refused.failure.reason, refused.fate is Fate.UNSUPPORTED) == ("upstream_failed", False)
        bridge.modern()
        await settle()
        bridge.running.answer(b'{"supportedVersions":["2026-07-28"]}')
        await settle()
        assert bridge.methods == ["server/discover", "initialize", "server/discover", "tools/list"]
        opening = bridge.initialize()
        await settle()
        bridge.fail(-32601, 400)
        await settle()
        bridge.fail(-32601)
        assert shown(await opening)["code"] == -32601
        bridge.initialize()
        await settle()
        assert bridge.methods[4:] == ["initialize", "server/discover", "initialize"]

    on_loop(body)


# ---- revisions with a handshake


@pytest.mark.parametrize("client", LEGACY_REVISIONS)
@pytest.mark.parametrize("server", LEGACY_REVISIONS)
def test_the_client_is_told_the_revision_it_asked_for_and_the_server_keeps_its_own(client: str, server: str) -> None:
    async def body() -> None:
        bridge = Bridge()
        opening = bridge.initialize(client)
        await settle()
        result = {"protocolVersion": server, "capabilities": {}, "serverInfo": {"name": "s", "version": "1", "title": "S"}}
        bridge.running.answer(json.dumps(result).encode(), session_id="s")
        answer = await opening
        assert (shown(answer)["protocolVersion"], answer.session_id) == (client, "s")
        assert answer.revision == (None if client == server else server)
        if client == server:
            assert shown(answer) == result

    on_loop(body)


def test_an_unknown_future_revision_is_answered_with_the_newest_one_that_has_a_handshake() -> None:
    async def body() -> None:
        bridge = Bridge()
        opening = bridge.initialize("2031-01-01")
        await settle()
        bridge.running.answer(b'{"protocolVersion":"2025-03-26","capabilities":{},"serverInfo":{"name":"s","version":"1"}}')
        assert shown(await opening)["protocolVersion"] == NEWEST_LEGACY

    on_loop(body)


def test_what_an_older_client_has_no_place_for_is_left_out() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.exchange(in_session("2024-11-05", "2025-11-25"))
        await settle()
        await bridge.running.event(Notification("notifications/progress", b'{"progress":1,"message":"m"}'))
        await bridge.running.event(Request(b"9", "roots/list", b""))
        bridge.running.answer(b'{"content":[{"type":"resource_link","uri":"a:1","name":"n"}],"structuredContent":{}}')
        assert shown(await call) == {"content": [{"type": "text", "text": "[resource n](a:1)"}]}
        assert bridge.events == [Notification("notifications/progress", b'{"progress":1}'), Request(b"9", "roots/list", b"")]

    on_loop(body)


def test_a_question_that_an_older_client_does_not_know_is_refused_for_it() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.exchange(in_session("2024-11-05", "2025-11-25"))
        await settle()
        hearing = asyncio.ensure_future(bridge.running.event(Request(b"10", "elicitation/create", b'{"message":"m"}')))
        await settle()
        refused = bridge.running.request
        assert (refused.kind, refused.session_id) == (RequestKind.MESSAGE, "s")
        assert isinstance(refused.message, Response)
        assert (refused.message.id, json.loads(refused.message.error)["code"]) == (b"10", -32601)
        assert bridge.events == []
        hearing.cancel()

    on_loop(body)


def test_an_older_server_says_nothing_that_a_newer_client_would_not_understand() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.exchange(in_session("2025-11-25", "2024-11-05"))
        await settle()
        assert bridge.running.request.revision == "2024-11-05"
        bridge.running.answer(b'{"content":  []}')
        answer = await call
        assert answer.response is not None
        assert answer.response.result == b'{"content":  []}'

    on_loop(body)


# ---- versions that nobody knows


@pytest.mark.parametrize("client", LEGACY_REVISIONS)
@pytest.mark.parametrize(("server", "spoken"), [("2024-10-07",) * 2, ("2030-01-01",) * 2, (NEWEST, NEWEST_LEGACY)])
def test_a_server_of_an_unknown_revision_is_spoken_to_in_it_and_the_client_reads_its_own(
    client: str, server: str, spoken: str
) -> None:
    """Source: MCP 2025-11-25, basic/transports, "Protocol Version Header": the server may refuse what it has not negotiated."""

    async def body() -> None:
        bridge = Bridge()
        opening = bridge.initialize(client)
        await settle()
        result = {"protocolVersion": server, "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
        bridge.running.answer(json.dumps(result).encode(), session_id="s")
        answer = await opening
        assert (shown(answer)["protocolVersion"], answer.revision) == (client, spoken)
        call = bridge.exchange(in_session(client, spoken))
        await settle()
        assert bridge.running.request.revision == spoken
        bridge.running.answer(b'{"content":[]}')
        assert shown(await call) == {"content": []}

    on_loop(body)


@pytest.mark.parametrize("version", ["5", "null", '""', '"a b"', '"2025\\r\\nX: y"'])
def test_a_server_whose_version_cannot_be_spoken_opens_no_session(version: str) -> None:
    async def body() -> None:
        bridge = Bridge()
        opening = bridge.initialize()
        await settle()
        bridge.running.answer(b'{"protocolVersion":%b,"capabilities":{},"serverInfo":{}}' % version.encode(), session_id="s")
        refused = await refusal(opening)
        assert refused.fate is Fate.REFUSED
        assert "protocolVersion that cannot be spoken" in refused.failure.text

    on_loop(body)


@pytest.mark.parametrize("client", ["legacy", "modern"])
def test_a_server_that_lists_only_unknown_revisions_and_takes_no_handshake_is_refused_by_their_names(client: str) -> None:
    async def body() -> None:
        bridge = Bridge()
        exchange = bridge.initialize() if client == "legacy" else bridge.modern()
        while not exchange.done():
            await settle()
            if bridge.wire.open and bridge.methods[-1] == "server/discover":
                bridge.running.answer(b'{"supportedVersions":["2030-01-01"]}')
            elif bridge.wire.open:
                bridge.fail(-32601)
        refused = await refusal(exchange)
        assert refused.fate is Fate.REFUSED
        assert refused.failure.text.endswith("unsupported here: 2030-01-01")

    on_loop(body)
