"""The demo server behind the strategy of a real one."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import UpstreamTransport
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.upstream.builtin.demo_conversation import BuiltinConversation, BuiltinUpstream
from tests.doubles.patience import on_loop

LEGACY, MODERN = "2025-11-25", "2026-07-28"


def request(method: str, params: dict[str, Any], revision: str = LEGACY, **fields: Any) -> UpstreamRequest:
    message = Request(fields.pop("request_id", b"1"), method, json.dumps(params).encode())
    return UpstreamRequest(**{"kind": RequestKind.REQUEST, "message": message, "revision": revision, "timeout_s": 5.0, **fields})


def slow(seconds: float, **fields: Any) -> UpstreamRequest:
    return request("tools/call", {"name": "slow", "arguments": {"seconds": seconds}}, **fields)


async def ignore(message: Message | None, event_id: str | None) -> None:
    """Take an event."""


def result_of(answer: UpstreamAnswer) -> dict[str, Any]:
    assert answer.response is not None
    found: dict[str, Any] = json.loads(answer.response.result)
    return found


def test_it_is_a_transport_for_its_own_scheme() -> None:
    strategy = BuiltinUpstream()
    assert isinstance(strategy, UpstreamTransport)
    assert strategy.schemes == {"builtin"}


def test_a_tool_is_answered_under_the_requests_own_id() -> None:
    async def body() -> None:
        wire = BuiltinConversation()
        answer = await wire.exchange(
            request("tools/call", {"name": "echo", "arguments": {"message": "hi"}}, request_id=b'"x"'), ignore
        )
        assert answer.response is not None
        assert (answer.status, answer.response.id) == (200, b'"x"')
        assert "hi" in json.dumps(result_of(answer))

    on_loop(body)


def test_initialize_gives_each_client_a_session_of_its_own() -> None:
    async def body() -> None:
        wire = BuiltinConversation()
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}}
        first, second = [await wire.exchange(request("initialize", params), ignore) for _ in range(2)]
        assert first.session_id != second.session_id
        assert first.session_id is not None

    on_loop(body)


@pytest.mark.parametrize(("revision", "status"), [(LEGACY, 200), (MODERN, 404)])
def test_an_unknown_method_has_the_status_of_its_revision(revision: str, status: int) -> None:
    async def body() -> None:
        answer = await BuiltinConversation().exchange(request("no/such", {}, revision), ignore)
        assert answer.status == status
        assert answer.response is not None
        assert json.loads(answer.response.error)["code"] == -32601

    on_loop(body)


def test_messages_are_acknowledged_a_session_stream_is_not_offered_and_an_end_is_accepted() -> None:
    async def body() -> None:
        wire = BuiltinConversation()
        told = UpstreamRequest(kind=RequestKind.MESSAGE, message=Notification("notifications/initialized", b""), revision=LEGACY)
        assert (await wire.exchange(told, ignore)).status == 202
        with pytest.raises(UpstreamError) as refused:
            await wire.exchange(UpstreamRequest(kind=RequestKind.STREAM, revision=LEGACY, session_id="s"), ignore)
        assert (refused.value.failure.reason, refused.value.fate.is_fault) == ("unknown_method", False)
        ended = await wire.exchange(UpstreamRequest(kind=RequestKind.TERMINATE, revision=LEGACY, session_id="s"), ignore)
        assert ended == UpstreamAnswer(200, None)

    on_loop(body)


def test_a_slow_tool_reports_progress_and_takes_its_time() -> None:
    async def body() -> None:
        events: list[Message | None] = []

        async def take(message: Message | None, event_id: str | None) -> None:
            events.append(message)

        started_s = time.monotonic()
        params = {"name": "slow", "arguments": {"seconds": 0.2}, "_meta": {"progressToken": "p"}}
        answer = await BuiltinConversation().exchange(request("tools/call", params), take)
        assert 0.15 < time.monotonic() - started_s < 2
        assert result_of(answer)["isError"] is False
        assert "notifications/progress" in {event.method for event in events if isinstance(event, Notification)}

    on_loop(body)


def test_a_timeout_ends_a_slow_tool() -> None:
    async def body() -> None:
        with pytest.raises(UpstreamError) as ended:
            await BuiltinConversation().exchange(slow(5, timeout_s=0.05), ignore)
        assert (ended.value.failure.reason, ended.value.fate.is_fault) == ("upstream_timeout", False)

    on_loop(body)


def test_a_cancellation_ends_the_request_of_its_own_session_only() -> None:
    async def body() -> None:
        wire = BuiltinConversation()
        mine, other = (
            asyncio.create_task(wire.exchange(slow(seconds, session_id=each), ignore))
            for each, seconds in (("mine", 5), ("other", 0.3))
        )
        await asyncio.sleep(0)
        cancelled = Notification("notifications/cancelled", b'{"requestId":1}')
        await wire.exchange(
            UpstreamRequest(kind=RequestKind.MESSAGE, message=cancelled, revision=LEGACY, session_id="mine"), ignore
        )
        with pytest.raises(UpstreamError) as ended:
            await mine
        assert (ended.value.failure.reason, ended.value.fate.is_fault, ended.value.fate.is_verdict) == (
            "upstream_failed",
            False,
            False,
        )
        assert (await other).status == 200

    on_loop(body)


def test_cancelling_the_task_ends_the_request_and_closing_ends_all() -> None:
    async def body() -> None:
        wire = BuiltinConversation()
        one, two = (asyncio.create_task(wire.exchange(slow(5, request_id=number), ignore)) for number in (b"1", b"2"))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        assert one.cancelled()
        await wire.close()
        await asyncio.gather(two, return_exceptions=True)
        assert two.cancelled()
        assert wire._playing == {}

    on_loop(body)


def test_it_is_always_well() -> None:
    on_loop(lambda: BuiltinConversation().probe(1.0))
