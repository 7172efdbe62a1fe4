"""What the gateway keeps of legacy clients of a modern server: their streams as subscriptions, and their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer
from mcp_gateway.transports.protocol.mcp.change_notifications import LIST_CHANGES, RESOURCE_UPDATED
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Response
from mcp_gateway.transports.protocol.mcp.revisions import META_SUBSCRIPTION_ID
from mcp_gateway.transports.protocol.sealed.session import SessionFacts
from mcp_gateway.transports.upstream.bridge.client_sessions import ClientSessions
from tests.doubles.legacy_bridge import refusal
from tests.doubles.modern_bridge import Bridge
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import Exchange, settle


def acknowledged(bridge: Bridge, exchange: Exchange, honoured: Mapping[str, Any] | None = None) -> Any:
    filter_ = bridge.asked(exchange)["notifications"] if honoured is None else honoured
    params = msgspec.json.encode({"notifications": filter_, "_meta": {META_SUBSCRIPTION_ID: 1}})
    return exchange.event(Notification("notifications/subscriptions/acknowledged", params))


def test_a_sessions_stream_is_a_subscription_that_follows_what_the_session_wants_without_a_gap() -> None:
    """Source: MCP 2026-07-28, basic/patterns/subscriptions."""

    async def body() -> None:
        bridge = Bridge()
        bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        first = bridge.running
        changes = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
        assert bridge.asked()["notifications"] == changes
        await acknowledged(bridge, first)
        await first.event(Notification("notifications/tools/list_changed", b'{"_meta":{"%b":1}}' % META_SUBSCRIPTION_ID.encode()))
        subscribing = bridge.send("resources/subscribe", uri="a:1")
        await settle()
        second = bridge.running
        assert bridge.asked(second)["notifications"] == {**changes, "resourceSubscriptions": ["a:1"]}
        assert not first.is_cancelled
        assert not subscribing.done()
        await acknowledged(bridge, second)
        await subscribing
        await settle()
        assert first.is_cancelled
        await second.event(Notification("notifications/resources/updated", b'{"uri":"a:1"}'))
        assert bridge.events == [
            Notification("notifications/tools/list_changed", b""),
            Notification("notifications/resources/updated", b'{"uri":"a:1"}'),
        ]

    on_loop(body)


def test_a_stream_begins_with_what_calls_before_it_may_have_changed() -> None:
    """A client opens its stream and makes its first call at the same time: here the call is first at the server."""

    async def body() -> None:
        bridge = Bridge(facts=SessionFacts(subscriptions=(("files", "a:1"), ("files", "a:2"))))
        call = bridge.send()
        await settle()
        bridge.answer({"resultType": "complete", "content": []})
        await call
        stream = bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        assert bridge.events == []
        await acknowledged(bridge, bridge.running, {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]})
        await settle()
        tools = Notification("notifications/tools/list_changed", b"")
        assert bridge.events == [tools, Notification("notifications/resources/updated", b'{"uri":"a:1"}')]
        bridge.running.answer(b'{"resultType":"complete"}')
        await stream
        bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        await acknowledged(bridge, bridge.running)
        await settle()
        assert len(bridge.events) == 2

    on_loop(body)


def test_a_stream_does_not_repeat_what_was_told_while_one_was_open() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.send("tools/list")
        bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        await acknowledged(bridge, bridge.running)
        bridge.send()
        await settle()
        bridge.answer({"resultType": "complete", "content": []})
        bridge.say(None, kind=RequestKind.STREAM, key="key")
        await settle()
        await acknowledged(bridge, bridge.running)
        await settle()
        assert bridge.events == []

    on_loop(body)


def test_a_stream_of_a_session_that_began_before_a_crash_begins_with_what_may_have_changed() -> None:
    """What it had called, and what its stream missed meanwhile, died with the cell."""

    async def body() -> None:
        bridge = Bridge(facts=SessionFacts(subscriptions=(("files", "a:1"),)))
        bridge.issued_ms -= 60_000
        for _ in range(2):
            bridge.say(None, kind=RequestKind.STREAM)
            await settle()
            await acknowledged(bridge, bridge.running)
            await settle()
            methods = [event.method for event in bridge.events if isinstance(event, Notification)]
            assert methods == [*LIST_CHANGES, RESOURCE_UPDATED], "once"

    on_loop(body)


@pytest.mark.parametrize("params", [b"", b"[]", b"{", b'{"notifications":[]}', b'{"notifications":{"resourceSubscriptions":1}}'])
def test_an_acknowledgement_that_names_nothing_readable_promises_nothing(params: bytes) -> None:
    async def body() -> None:
        bridge = Bridge(facts=SessionFacts(subscriptions=(("files", "a:1"),)))
        bridge.send()
        stream = bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        await bridge.running.event(Notification("notifications/subscriptions/acknowledged", params))
        await settle()
        assert (bridge.events, stream.done()) == ([], False)

    on_loop(body)


def test_a_stream_that_the_server_ends_ends_and_one_that_it_refuses_is_not_asked_for_again() -> None:
    async def body() -> None:
        bridge = Bridge()
        ended, refused = bridge.say(None, kind=RequestKind.STREAM), bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        one, two = bridge.wire.open
        await acknowledged(bridge, one)
        one.answer(b'{"resultType":"complete"}')
        assert (await ended).response is None
        error = Response(b"1", b"", b'{"code":-32601,"message":"m"}')
        two.result.set_result(UpstreamAnswer(404, error))
        assert (await refusal(refused)).failure.reason == "unknown_method"

    on_loop(body)


def test_a_session_that_ends_takes_its_streams_and_calls_with_it() -> None:
    async def body() -> None:
        bridge = Bridge()
        bridge.say(None, kind=RequestKind.STREAM)
        await settle()
        stream = bridge.running
        await acknowledged(bridge, stream)
        bridge.send()
        await settle()
        call = bridge.running
        assert (await bridge.say(None, kind=RequestKind.TERMINATE)).status == 200
        await settle()
        assert (stream.is_cancelled, call.is_cancelled) == (True, True)

    on_loop(body)


def test_sessions_are_bounded_and_the_least_recently_used_makes_room() -> None:
    async def body() -> None:
        sessions = ClientSessions(limit=2)
        bridge = Bridge()
        kept = sessions.use(bridge.state("a"), "files")
        sessions.use(bridge.state("b"), "files")
        assert sessions.use(bridge.state("a"), "files") is kept
        sessions.use(bridge.state("c"), "files")
        assert len(sessions) == 2
        assert sessions.use(bridge.state("a"), "files") is kept

    on_loop(body)
