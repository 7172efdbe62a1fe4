"""Modern clients of a scripted legacy server: every call runs once, whatever its client, its server or its state does."""

from __future__ import annotations

import asyncio
import json

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import META_LOG_LEVEL, META_SERVER_INFO
from mcp_gateway.transports.upstream.bridge import server_sessions
from tests.doubles.legacy_bridge import ASKING, Bridge, refusal, shown
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import settle

# ---- one call


def test_a_call_runs_on_a_session_opened_for_its_client() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send(traceparent="t")
        await settle()
        assert bridge.wire.initialized == [
            {"protocolVersion": "2025-11-25", "capabilities": ASKING, "clientInfo": {"name": "c", "version": "1"}}
        ]
        request = bridge.running.request
        assert (request.session_id, request.revision) == ("s1", "2025-11-25")
        assert isinstance(request.message, Request)
        assert json.loads(request.message.params) == {"name": "x", "_meta": {"traceparent": "t"}}
        bridge.running.answer(b'{"content":[]}')
        assert shown(await call) == {
            "content": [],
            "resultType": "complete",
            "_meta": {META_SERVER_INFO: {"name": "scripted", "version": "1"}},
        }
        assert bridge.wire.told_methods() == ["notifications/initialized"]

    on_loop(body)


def test_clients_that_a_server_can_tell_apart_never_share_a_session() -> None:
    async def body() -> None:
        bridge = Bridge()
        for how in ({}, {"user": "ada"}, {"info": "d"}, {"capabilities": {}}, {META_LOG_LEVEL: "error"}, {}):
            bridge.send(**how)
            await settle()
        ids = [exchange.request.session_id for exchange in bridge.wire.exchanges]
        assert ids == ["s1", "s2", "s3", "s4", "s5", "s1"]
        assert bridge.wire.told_methods().count("logging/setLevel") == 1

    on_loop(body)


def test_what_nobody_acts_on_of_a_client_opens_no_session_of_its_own_where_it_is_long() -> None:
    """Sessions are kept for the next call, and what a client says of itself with them: for each that says something else."""

    async def body() -> None:
        bridge = Bridge()
        for number in range(3):
            bridge.send(capabilities={"sampling": {}, "experimental": {"x": str(number) + "A" * 100_000}})
            await settle()
        assert [exchange.request.session_id for exchange in bridge.wire.exchanges] == ["s1"] * 3
        refused = await refusal(bridge.send(capabilities={"sampling": {"x": "A" * 100_000}}))
        assert refused.failure.reason == "too_large"

    on_loop(body)


def test_where_calls_share_a_channel_a_call_that_can_be_asked_has_it_for_itself() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        first, _ = bridge.send(), bridge.send()
        await settle()
        assert [each.request.session_id for each in bridge.wire.open] == ["s1", "s2"]
        bridge.wire.open[0].answer()
        await first
        bridge.send()
        await settle()
        assert bridge.running.request.session_id == "s1"
        for _ in range(2):
            bridge.send(capabilities={})
            await settle()
        assert [each.request.session_id for each in bridge.wire.open[-2:]] == ["s3", "s3"]

    on_loop(body)


def test_where_calls_share_a_channel_a_cancelled_call_takes_its_session_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server need not obey, and what it asks then would be taken for a question of the next call."""
    monkeypatch.setattr(server_sessions, "_GRACE_S", 0.5)

    async def body() -> None:
        bridge = Bridge(has_streams=False)
        call = bridge.send()
        await settle()
        call.cancel()
        await settle()
        assert bridge.wire.told_methods()[-1] == "notifications/cancelled"
        bridge.send()
        await settle()
        assert bridge.running.request.session_id == "s2"
        assert bridge.wire.ended == [], "the server has a moment to take the cancellation"
        while not bridge.wire.ended:
            await asyncio.sleep(0.01)
        assert bridge.wire.ended == ["s1"]

    on_loop(body)


def test_a_session_whose_call_was_cancelled_ends_with_the_bridge() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        call = bridge.send()
        await settle()
        call.cancel()
        await settle()
        await bridge.bridge.close()
        assert bridge.wire.ended == ["s1"]

    on_loop(body)


def test_where_each_call_has_a_stream_a_cancelled_one_leaves_its_session_to_the_next() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        await settle()
        call.cancel()
        await settle()
        bridge.send()
        await settle()
        assert (bridge.running.request.session_id, bridge.wire.ended) == ("s1", [])

    on_loop(body)


def test_where_calls_share_a_channel_a_session_changes_its_log_level_with_the_call_that_it_is_lent_to() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        for level, told_count in ((None, 0), ("error", 1), ("error", 1), ("debug", 2), (None, 2)):
            call = bridge.send(**({META_LOG_LEVEL: level} if level else {}))
            await settle()
            assert bridge.running.request.session_id == "s1"
            assert bridge.wire.told_methods().count("logging/setLevel") == told_count
            bridge.running.answer()
            await call

    on_loop(body)


def test_where_calls_share_a_channel_a_call_runs_on_the_session_that_its_client_listens_with() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        bridge.send("subscriptions/listen", params={"notifications": {"toolsListChanged": True}}, kind=RequestKind.STREAM)
        await settle()
        stream = bridge.running
        assert stream.request.kind is RequestKind.STREAM
        bridge.send(**{META_LOG_LEVEL: "error"})
        await settle()
        assert bridge.running.request.session_id == stream.request.session_id

    on_loop(body)


def test_where_calls_share_a_channel_a_call_with_log_messages_has_none_that_shares_its_session() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        first = bridge.send(capabilities={})
        await settle()
        bridge.running.answer()
        await first  # its session idles, and is the one that calls of this kind share
        bridge.send(capabilities={}, **{META_LOG_LEVEL: "error"})
        await settle()
        bridge.send(capabilities={})
        await settle()
        assert [each.request.session_id for each in bridge.wire.open] == ["s2", "s1"]

    on_loop(body)


def test_where_calls_share_a_channel_every_session_tells_what_its_own_calls_change() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        listening = await bridge.listening(resourceSubscriptions=["a:1"])
        bridge.send()  # on the session that listens
        await settle()
        assert bridge.wire.told_methods() == ["notifications/initialized", "resources/subscribe"]
        other = bridge.send()
        await settle()
        assert bridge.running.request.session_id == "s2"
        assert bridge.wire.told_methods()[2:] == ["notifications/initialized", "resources/subscribe"]
        await bridge.running.event(Notification("notifications/resources/updated", b'{"uri":"a:1"}'))
        await settle()
        assert isinstance(bridge.events[-1], Notification)
        assert bridge.events[-1].method == "notifications/resources/updated"
        bridge.running.answer()
        await other
        bridge.send()
        await settle()
        assert bridge.running.request.session_id == "s2"
        assert len(bridge.wire.told_methods()) == 4, "once is enough"
        listening.cancel()
        await settle()

    on_loop(body)


def test_a_session_that_was_listened_with_watches_again_when_somebody_else_listens() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)

        async def two_calls() -> None:
            calls = [bridge.send(), bridge.send()]
            await settle()
            for each in [each for each in bridge.wire.open if each.request.kind is RequestKind.REQUEST]:
                each.answer()
            await asyncio.gather(*calls)

        listened_with = []
        for _ in range(4):
            listening = await bridge.listening(resourceSubscriptions=["a:1"])
            listened_with.append(bridge.running.request.session_id)
            await two_calls()
            assert bridge.wire.watching("a:1") == {"s1", "s2"}
            listening.cancel()
            await settle()
            await two_calls()  # the session used last is the one that is listened with next
        assert set(listened_with) == {"s1", "s2"}

    on_loop(body)


def test_progress_comes_under_the_clients_own_token_and_only_where_it_was_asked_for() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send(progressToken="mine")
        await settle()
        message = bridge.running.request.message
        assert isinstance(message, Request)
        token = json.loads(message.params)["_meta"]["progressToken"]
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":%d,"progress":1}' % token))
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":99,"progress":1}'))
        bridge.send()
        await settle()
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":%d,"progress":1}' % (token + 1)))
        assert bridge.events == [Notification("notifications/progress", b'{"progressToken":"mine","progress":1}')]

    on_loop(body)


@pytest.mark.parametrize(("wanted", "heard"), [(None, []), ("error", ["error", "alert"]), ("debug", ["debug", "error", "alert"])])
def test_log_messages_come_only_from_the_level_that_the_request_asks_for(wanted: str | None, heard: list[str]) -> None:
    """Source: MCP 2026-07-28, server/utilities/logging, "Per-request log level"."""

    async def body() -> None:
        bridge = Bridge()
        bridge.send(**({} if wanted is None else {META_LOG_LEVEL: wanted}))
        await settle()
        for level in ("debug", "error", "alert", "loud"):
            await bridge.running.event(Notification("notifications/message", json.dumps({"level": level}).encode()))
        levels = [json.loads(event.params)["level"] for event in bridge.events if isinstance(event, Notification)]
        assert levels == heard

    on_loop(body)


def test_a_client_that_goes_cancels_its_call_on_the_server() -> None:
    """Source: MCP 2025-11-25, basic/utilities/cancellation: a closed connection alone cancels nothing."""

    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        await settle()
        exchange = bridge.running
        call.cancel()
        await settle()
        assert exchange.is_cancelled
        _, told = bridge.wire.told[-1]
        assert isinstance(told, Notification)
        assert told.method == "notifications/cancelled"
        assert isinstance(exchange.request.message, Request)
        assert json.loads(told.params)["requestId"] == json.loads(exchange.request.message.id)

    on_loop(body)


def test_a_call_past_its_deadline_is_cancelled_and_said_to_be_late() -> None:
    async def body() -> None:
        bridge = Bridge()
        late = await refusal(bridge.send(timeout_s=0.5))
        assert late.failure.reason == "upstream_timeout"
        await settle()
        assert bridge.wire.told_methods()[-1] == "notifications/cancelled"

    on_loop(body)


def test_a_server_that_has_lost_the_session_gets_the_call_once_more_in_a_new_one() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        lost = UpstreamError(Fate.SESSION_LOST, "gone")
        await settle()
        bridge.running.fail(lost)
        await settle()
        assert bridge.running.request.session_id == "s2"
        bridge.running.fail(lost)
        assert (await refusal(call)).failure.reason == "upstream_failed"
        assert len(bridge.wire.exchanges) == 2

    on_loop(body)


def test_an_error_has_the_code_of_the_modern_era() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send("resources/read")
        await settle()
        error = Response(b"1", b"", b'{"code":-32002,"message":"Resource not found"}')
        bridge.running.result.set_result(UpstreamAnswer(200, error))
        answer = await call
        assert (shown(answer)["code"], answer.status) == (-32602, 400)

    on_loop(body)


def test_discovery_is_answered_from_the_handshake() -> None:
    async def body() -> None:
        bridge = Bridge()
        told = shown(await bridge.send("server/discover"))
        assert (told["_meta"], told["capabilities"]) == (
            {META_SERVER_INFO: {"name": "scripted", "version": "1"}},
            {**bridge.wire.capabilities, "extensions": {"io.modelcontextprotocol/tasks": {}}},  # the gateway's own
        )
        assert bridge.wire.exchanges == []

    on_loop(body)


# ---- headers that repeat arguments


def test_headers_that_disagree_with_what_the_servers_list_has_announced_are_refused_before_the_server_is_asked() -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Server Behavior for Custom Headers": the server here is us."""

    async def body() -> None:
        bridge = Bridge()
        listed = bridge.send("tools/list")
        await settle()
        region = {"type": "string", "x-mcp-header": "Region"}
        tools = [{"name": "t", "inputSchema": {"type": "object", "properties": {"region": region}}}]
        bridge.running.answer(json.dumps({"tools": tools}).encode())
        await listed
        call = {"name": "t", "arguments": {"region": "eu"}}
        sent_before = len(bridge.wire.exchanges)
        for headers in ({}, {"mcp-param-region": "us"}, {"mcp-param-region": "=?base64?!?="}):
            refused = await refusal(bridge.send(params=call, headers=headers))
            assert (refused.failure.reason, refused.fate.is_fault, refused.fate.is_verdict) == ("header_mismatch", False, False)
        assert len(bridge.wire.exchanges) == sent_before
        for agreed in ({"mcp-param-region": "eu"}, None):  # on a socket there are no headers to compare
            bridge.send(params=call, headers=agreed)
        await settle()
        assert len(bridge.wire.exchanges) > sent_before

    on_loop(body)
