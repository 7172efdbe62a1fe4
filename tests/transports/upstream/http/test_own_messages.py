"""What comes before an answer reaches the client only where it belongs to the exchange that carries it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.upstream.http.dropped_messages import DroppedMessages
from mcp_gateway.transports.upstream.http.own_messages import OwnMessages

LEGACY, MODERN = "2025-11-25", "2026-07-28"


def progress(token: Any) -> Notification:
    return Notification("notifications/progress", json.dumps({"progressToken": token, "progress": 1}).encode())


def called(token: Any, revision: str = LEGACY, session_id: str | None = "s") -> UpstreamRequest:
    params = json.dumps({"name": "x", "_meta": {"progressToken": token} if token is not None else {}}).encode()
    message = Request(b"1", "tools/call", params)
    return UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision=revision, session_id=session_id)


def listening(*backends: str, session_id: str = "s") -> UpstreamRequest:
    upstreams = tuple(UpstreamSession(name, "r", session_id, LEGACY) for name in backends)
    session = SessionState("key", "", LEGACY, "", b"{}", upstreams)
    return UpstreamRequest(kind=RequestKind.STREAM, revision=LEGACY, session_id=session_id, session=session)


class Listener:
    """Everything that one exchange was told. own: of the wire that it runs on."""

    def __init__(self) -> None:
        self.own = OwnMessages(DroppedMessages("b", "r"))
        self.heard: list[tuple[Message | None, str | None]] = []

    async def take(self, message: Message | None, event_id: str | None) -> None:
        self.heard.append((message, event_id))

    def tell(self, request: UpstreamRequest, message: Message | None, event_id: str | None = None) -> bool:
        """Whether the client hears it as it is."""
        self.heard.clear()

        async def play() -> None:
            with self.own.of(request, self.take) as hear:
                await hear(message, event_id)

        asyncio.run(play())
        return self.heard == [(message, event_id)]


@pytest.mark.parametrize(
    ("own", "shown", "is_heard"),
    [
        (5, 5, True),
        ("a", "a", True),
        (5, 6, False),
        (5, "5", False),
        (None, 5, False),
        (5, 5.5, False),
        (5, [5], False),
        (5, {}, False),
    ],
)
def test_a_call_hears_progress_of_itself_alone(own: Any, shown: Any, is_heard: bool) -> None:
    assert Listener().tell(called(own), progress(shown)) is is_heard


def test_a_token_is_one_value_however_it_is_spelled() -> None:
    params = rb'{"_meta":{"progress\u0054oken":"\u0061"}}'
    request = UpstreamRequest(kind=RequestKind.REQUEST, message=Request(b"1", "tools/call", params), revision=LEGACY)
    assert Listener().tell(request, progress("a"))
    for shown in (rb'{"progress\u0054oken":"\u0061"}', rb'{"progressToken":"b","progressToken":"a"}'):
        assert Listener().tell(request, Notification("notifications/progress", shown))
    for shown in (rb'{"progress\u0054oken":"b"}', rb'{"progressToken":"a","progressToken":"b"}', rb'{"progressToken":null}'):
        assert not Listener().tell(request, Notification("notifications/progress", shown))


def test_progress_without_a_token_names_nobodys_call() -> None:
    assert Listener().tell(called(5), Notification("notifications/progress", b'{"progress":1}'))
    assert Listener().tell(called(5), Notification("notifications/progress", b""))


def test_what_is_dropped_leaves_the_id_at_which_the_stream_resumes() -> None:
    listener = Listener()
    assert not listener.tell(called(5), progress(6), "e7")
    assert listener.heard == [(None, "e7")]


def test_a_session_hears_on_its_stream_of_its_own_calls_while_they_run() -> None:
    async def body() -> None:
        listener = Listener()
        stream = listening("a", "b")
        with listener.own.of(called(5), listener.take), listener.own.of(stream, listener.take) as hear:
            with listener.own.of(called(5), listener.take):
                pass  # another one with the same token has ended
            await hear(progress(5), None)
            await hear(progress(6), None)
            assert listener.heard == [(progress(5), None)]
        await hear(progress(5), None)
        assert listener.heard == [(progress(5), None)]
        assert not listener.own.tokens
        with listener.own.of(called(5, session_id="other"), listener.take):
            await hear(progress(5), None)
        assert listener.heard == [(progress(5), None)]

    asyncio.run(body())


def test_a_session_of_one_server_hears_all_of_its_progress() -> None:
    """There is nobody else whose progress it could be."""
    assert Listener().tell(listening("a"), progress(6))
    assert not Listener().tell(listening("a", "b"), progress(6))


def test_a_stateless_server_asks_nothing() -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr."""
    question = Request(b"9", "roots/list", b"")
    assert not Listener().tell(called(5, MODERN), question)
    assert Listener().tell(called(5), question)
