"""Modern clients that listen at a legacy server: one session for all who can share it, every change told to who asked."""

from __future__ import annotations

import json

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification
from mcp_gateway.transports.protocol.sealed.call_state import CallState, sealed_state
from tests.doubles.legacy_bridge import SEAL, Bridge, refusal
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import settle


def lost() -> UpstreamError:
    return UpstreamError(Fate.SESSION_LOST, "gone")


def test_a_subscription_is_acknowledged_with_what_the_server_can_tell() -> None:
    """Source: MCP 2026-07-28, basic/patterns/subscriptions, "Acknowledgment"."""

    async def body() -> None:
        bridge = Bridge()
        wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["a:1"]}
        listening = bridge.send("subscriptions/listen", params={"notifications": wanted}, kind=RequestKind.STREAM)
        await settle()
        stream = bridge.running
        assert stream.request.message is None
        assert stream.request.on_open is not None
        stream.request.on_open()
        await settle()
        await stream.event(Notification("notifications/tools/list_changed", b""))
        await stream.event(Notification("notifications/prompts/list_changed", b""))
        await stream.event(Notification("notifications/resources/updated", b'{"uri":"a:1/part"}'))
        await stream.event(Notification("notifications/resources/updated", b'{"uri":"b:1"}'))
        await settle()
        told = [(event.method, json.loads(event.params)) for event in bridge.events if isinstance(event, Notification)]
        meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": "mine"}}
        honoured = {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]}
        assert told == [
            ("notifications/subscriptions/acknowledged", {**meta, "notifications": honoured}),
            ("notifications/tools/list_changed", meta),
            ("notifications/resources/updated", {**meta, "uri": "a:1/part"}),
        ]
        listening.cancel()
        await settle()
        assert stream.is_cancelled
        assert bridge.wire.told_methods()[-1] == "resources/unsubscribe"

    on_loop(body)


def test_a_change_that_a_server_tells_during_a_call_reaches_who_listens_with_that_session() -> None:
    async def body() -> None:
        bridge = Bridge()
        listening = await bridge.listening(toolsListChanged=True)
        call = bridge.send()
        await settle()
        assert bridge.running.request.session_id == "s1"
        await bridge.running.event(Notification("notifications/tools/list_changed", b""))
        bridge.running.answer()
        await call
        methods = [event.method for event in bridge.events if isinstance(event, Notification)]
        assert methods == ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"]
        listening.cancel()

    on_loop(body)


def test_a_subscription_outlives_the_loss_of_its_session() -> None:
    async def body() -> None:
        bridge = Bridge()
        listening = await bridge.listening(toolsListChanged=True, resourceSubscriptions=["a:1"])
        bridge.running.fail(lost())
        await settle()
        assert bridge.running.request.session_id == "s2"
        assert bridge.wire.told_methods() == [
            "notifications/initialized", "resources/subscribe", "notifications/initialized", "resources/subscribe",
        ]  # fmt: skip
        methods = [event.method for event in bridge.events if isinstance(event, Notification)]
        assert methods[1:] == ["notifications/tools/list_changed", "notifications/resources/updated"]
        listening.cancel()
        await settle()

    on_loop(body)


@pytest.mark.parametrize("way", ["the last listener leaves", "the server does not answer"])
def test_a_renewal_that_fails_leaves_the_session_to_the_calls_that_run_on_it(way: str) -> None:
    async def body() -> None:
        bridge = Bridge()
        listening = await bridge.listening(resourceSubscriptions=["a:1"])
        bridge.wire.takes_facts.clear()  # the server is slow to subscribe
        bridge.running.fail(lost())
        await settle()
        call = bridge.send()
        await settle()
        running = bridge.running
        assert (running.request.kind, running.request.session_id) == (RequestKind.REQUEST, "s2")
        if way == "the last listener leaves":
            listening.cancel()
        else:
            bridge.wire.fails_facts = UpstreamError(Fate.TIMED_OUT, "no answer")
            bridge.wire.takes_facts.set()
        await settle()
        assert bridge.wire.ended == []
        running.answer()
        await call
        listening.cancel()

    on_loop(body)


def test_a_server_that_opens_sessions_and_knows_none_of_them_is_not_asked_without_a_pause() -> None:
    """A route that serves POST alone answers GET with 404, which says that the session is lost."""

    async def body() -> None:
        bridge = Bridge()
        listening = bridge.send(
            "subscriptions/listen", params={"notifications": {"toolsListChanged": True}}, kind=RequestKind.STREAM
        )
        await settle()
        for _ in range(5):
            if bridge.running.request.kind is RequestKind.STREAM:
                bridge.running.fail(lost())
            await settle()
            if not bridge.wire.open:
                break
        assert len(bridge.wire.initialized) == 2, "once at once, and then after a pause"
        listening.cancel()
        await settle()

    on_loop(body)


def test_a_subscription_finds_out_that_its_session_is_lost_where_there_is_no_stream_to_tell() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        await settle()
        bridge.running.answer()
        await call  # its session idles
        bridge.wire.lost_sessions.add("s1")
        wanted = {"notifications": {"resourceSubscriptions": ["a:1"]}}
        listening = bridge.send("subscriptions/listen", params=wanted, kind=RequestKind.STREAM)
        await settle()
        bridge.running.fail(UpstreamError(Fate.BROKEN, "no GET here", reason="unknown_method"))
        await settle()
        assert bridge.wire.watching("a:1") == {"s2"}
        assert not listening.done()
        listening.cancel()
        await settle()

    on_loop(body)


def test_who_listens_goes_on_with_another_session_when_a_second_subscription_finds_theirs_lost() -> None:
    """The server holds the old stream open, and would say nothing more on it."""

    async def body() -> None:
        bridge = Bridge()
        first = await bridge.listening(resourceSubscriptions=["a:1"])
        stream = bridge.running
        bridge.wire.lost_sessions.add("s1")
        second = bridge.send(
            "subscriptions/listen", params={"notifications": {"resourceSubscriptions": ["a:2"]}}, kind=RequestKind.STREAM
        )
        await settle()
        assert stream.is_cancelled
        assert [each.request.session_id for each in bridge.wire.open] == ["s2"]
        assert bridge.wire.watching("a:1") >= {"s2"} <= bridge.wire.watching("a:2")
        for listening in (first, second):
            listening.cancel()
        await settle()

    on_loop(body)


def test_who_listens_goes_on_with_another_session_when_a_call_finds_theirs_lost() -> None:
    async def body() -> None:
        bridge = Bridge()
        listening = await bridge.listening(resourceSubscriptions=["a:1"])
        stream = bridge.running
        call = bridge.send()
        await settle()
        bridge.running.fail(lost())
        await settle()
        assert stream.is_cancelled
        kinds = {each.request.kind: each.request.session_id for each in bridge.wire.open}
        assert kinds == {RequestKind.STREAM: "s2", RequestKind.REQUEST: "s2"}
        assert "s2" in bridge.wire.watching("a:1")
        next(each for each in bridge.wire.open if each.request.kind is RequestKind.REQUEST).answer()
        await call
        listening.cancel()
        await settle()

    on_loop(body)


def test_who_listens_goes_on_with_another_session_when_a_call_on_theirs_is_cancelled() -> None:
    async def body() -> None:
        bridge = Bridge(has_streams=False)
        listening = await bridge.listening(toolsListChanged=True, resourceSubscriptions=["a:1"])
        call = bridge.send()
        await settle()
        assert bridge.running.request.session_id == "s1"
        call.cancel()
        await settle()
        stream = bridge.running.request
        assert (stream.kind, stream.session_id) == (RequestKind.STREAM, "s2")
        assert bridge.wire.watching("a:1") == {"s1", "s2"}
        methods = [event.method for event in bridge.events if isinstance(event, Notification)]
        assert methods[1:] == ["notifications/tools/list_changed", "notifications/resources/updated"]
        bridge.send()
        await settle()
        assert bridge.running.request.session_id == "s2", "calls prefer the session that listens"
        listening.cancel()
        await settle()

    on_loop(body)


def test_a_change_that_a_call_tells_reaches_who_has_begun_to_listen_since_the_call_began() -> None:
    async def body() -> None:
        bridge = Bridge()
        call = bridge.send()
        await settle()
        running = bridge.running
        listening = await bridge.listening(toolsListChanged=True)
        await running.event(Notification("notifications/tools/list_changed", b""))
        await settle()
        methods = [event.method for event in bridge.events if isinstance(event, Notification)]
        assert methods[1:] == ["notifications/tools/list_changed"]
        running.answer()
        await call
        listening.cancel()

    on_loop(body)


def test_too_many_resources_in_one_subscription_are_refused() -> None:
    async def body() -> None:
        bridge = Bridge()
        wanted = {"resourceSubscriptions": [f"a:{number}" for number in range(1001)]}
        refused = await refusal(bridge.send("subscriptions/listen", params={"notifications": wanted}, kind=RequestKind.STREAM))
        assert refused.failure.reason == "invalid_params"
        assert bridge.wire.initialized == []

    on_loop(body)


def test_a_state_of_another_backend_is_refused() -> None:
    async def body() -> None:
        bridge = Bridge()
        state = CallState("cell/0", "i", "mail", "http://a", "", "call", 1, 4e9, b"d")
        refused = await refusal(bridge.retry({"requestState": sealed_state(SEAL, state)}))
        assert refused.failure.reason == "invalid_params"

    on_loop(body)
