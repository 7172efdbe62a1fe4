"""A client whose user has not consented yet: asked in its own era, its session kept until then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest, ignore_events
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.upstream.credentials.consent_conversation import PENDING_SESSION, ConsentConversation
from tests.doubles.patience import patience
from tests.transports.upstream.credentials.scripted_servers import backend

URL = "https://mcp.example/mcp/oauth/connect?link=abc"


class Bridge:
    """Wants consent until it is given; then answers everything."""

    def __init__(self) -> None:
        self.has_consent = False
        self.asked: list[UpstreamRequest] = []

    async def exchange(self, request: UpstreamRequest, on_event: Any) -> UpstreamAnswer:
        self.asked.append(request)
        if not self.has_consent:
            failure = Failure(Fate.UNAUTHORIZED, "consent", reason="consent_required", consent_url=URL)
            raise UpstreamError.of(failure)
        message = request.message
        return UpstreamAnswer(200, Response(message.id, b"{}", b"") if isinstance(message, Request) else None, "s1")

    async def probe(self, timeout_s: float) -> None: ...

    async def close(self) -> None: ...


class Stage:
    def __init__(self) -> None:
        self.bridge = Bridge()
        self.conversation = ConsentConversation(self.bridge, backend(), lambda principal: self.bridge.has_consent)

    async def ask(self, method: str, params: Any = None, **more: Any) -> UpstreamAnswer:
        message = Request(b"1", method, json.dumps(params or {}).encode())
        request = UpstreamRequest(
            kind=RequestKind.REQUEST, message=message, revision="2025-11-25", hash_keys={PRINCIPAL: "iss ann"}, timeout_s=5.0
        )
        return await self.conversation.exchange(msgspec.structs.replace(request, **more), ignore_events)

    async def pending(self, method: str = "tools/call", **more: Any) -> UpstreamAnswer:
        return await self.ask(method, session_id=PENDING_SESSION, **more)


def on_loop(body: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        async with patience():
            await body(Stage())

    asyncio.run(run())


def test_a_session_begins_without_the_server_and_is_lost_as_soon_as_there_is_consent() -> None:
    """Then it is opened with the client's own parameters, as any session that its server has lost."""

    async def body(stage: Stage) -> None:
        opened = await stage.ask("initialize", {"protocolVersion": "2025-11-25"})
        assert opened.session_id == PENDING_SESSION
        assert (await stage.pending("ping")).status == 200
        listed = await stage.pending("tools/list")
        assert listed.response is not None
        assert b'"connect"' in listed.response.result
        told = await stage.pending(message=Notification("notifications/initialized", b""), kind=RequestKind.MESSAGE)
        assert told.status == 202
        with pytest.raises(UpstreamError) as raised:
            await stage.pending(kind=RequestKind.STREAM, message=None)
        assert raised.value.failure.reason == "unknown_method"
        stage.bridge.has_consent = True
        with pytest.raises(UpstreamError) as raised:
            await stage.pending()
        assert raised.value.fate is Fate.SESSION_LOST
        assert PENDING_SESSION not in [each.session_id for each in stage.bridge.asked], "the server never hears of it"

    on_loop(body)


def test_a_server_that_asks_for_nothing_any_more_is_left_without_a_session_of_ours() -> None:
    async def body(stage: Stage) -> None:
        stage.conversation = ConsentConversation(stage.bridge, backend(), lambda principal: False)
        stage.bridge.has_consent = True
        with pytest.raises(UpstreamError) as raised:
            await stage.pending()
        assert raised.value.fate is Fate.SESSION_LOST
        assert [each.kind for each in stage.bridge.asked] == [RequestKind.REQUEST, RequestKind.TERMINATE]

    on_loop(body)


def test_a_retry_waits_for_the_consent_that_its_user_has_agreed_to_give() -> None:
    async def body(stage: Stage) -> None:
        reply = {"name": "a", "inputResponses": {"mcp-gateway-consent": {"action": "accept"}}}
        retry = asyncio.ensure_future(stage.ask("tools/call", reply, revision="2026-07-28"))
        done, _ = await asyncio.wait({retry}, timeout=0.3)
        assert not done
        stage.bridge.has_consent = True
        assert (await retry).status == 200
        (asked,) = stage.bridge.asked
        assert isinstance(asked.message, Request)
        assert json.loads(asked.message.params) == {"name": "a"}

    on_loop(body)


def test_a_retry_does_not_wait_for_ever() -> None:
    async def body(stage: Stage) -> None:
        meta = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}}
        reply = {"_meta": meta, "inputResponses": {"mcp-gateway-consent": {"action": "accept"}}}
        again = await stage.ask("tools/call", reply, revision="2026-07-28", timeout_s=0.5)
        assert again.response is not None
        assert json.loads(again.response.result)["resultType"] == "input_required"
        with pytest.raises(UpstreamError) as raised:
            await stage.ask(
                "tools/call", {"inputResponses": {"mcp-gateway-consent": {"action": "cancel"}}}, revision="2026-07-28"
            )
        assert raised.value.failure.reason == "forbidden"

    on_loop(body)


def test_any_other_failure_is_told_as_it_is() -> None:
    async def body(stage: Stage) -> None:
        async def fail(request: UpstreamRequest, on_event: Any) -> UpstreamAnswer:
            raise UpstreamError(Fate.BROKEN, "broken")

        stage.bridge.exchange = fail  # type: ignore[method-assign]
        with pytest.raises(UpstreamError, match="broken"):
            await stage.ask("tools/call")

    on_loop(body)
