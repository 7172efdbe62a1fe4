"""A call on its client's own session that nobody waits for: who comes is asked, told and answered."""

from __future__ import annotations

import asyncio
import json

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.eras.questions import MOST_OPEN_QUESTIONS
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.upstream.bridge.session_call import SessionCall
from tests.doubles.handshake_wire import HandshakeWire
from tests.doubles.legacy_bridge import ELICIT
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import Exchange, settle


class Running:
    """The call, its server's wire, and what a client has heard that came for the result."""

    def __init__(self) -> None:
        self.wire = HandshakeWire()
        message = Request(b'"own.1"', "tools/call", b'{"name":"x"}')
        request = UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision="2025-11-25", session_id="s1")
        self.call = SessionCall(self.wire.exchange, request)
        self.heard: list[Message | None] = []

    async def on_event(self, event: Message | None, event_id: str | None) -> None:
        self.heard.append(event)

    async def attended(self) -> asyncio.Future[None]:
        attending = asyncio.ensure_future(self.call.attend(self.on_event, "TASK"))
        await settle()
        return attending

    @property
    def server(self) -> Exchange:
        return self.wire.open[-1]


def test_a_question_waits_for_who_comes_and_its_answer_goes_to_the_session() -> None:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Input Required Status" and "Associating Task-Related Messages"."""

    async def body() -> None:
        running = Running()
        await settle()
        await running.server.event(ELICIT)
        assert list(running.call.asked()) == ["elicitation-1"]
        attending = await running.attended()
        (question,) = running.heard
        assert isinstance(question, Request)
        assert question.id == b'"TASK/elicitation-1"'
        assert json.loads(question.params)["_meta"] == {"io.modelcontextprotocol/related-task": {"taskId": "TASK"}}
        for _ in range(2):  # the server hears the first answer, and no other
            await running.call.respond("elicitation-1", Response(question.id, b'{"action":"accept"}', b""))
        assert running.wire.told == [("s1", Response(ELICIT.id, b'{"action":"accept"}', b""))]
        assert running.call.asked() == {}
        running.server.answer()
        await attending

    on_loop(body)


def test_who_comes_again_is_asked_again() -> None:
    async def body() -> None:
        running = Running()
        await settle()
        await running.server.event(ELICIT)
        (await running.attended()).cancel()
        again = await running.attended()
        assert [event.id for event in running.heard if isinstance(event, Request)] == [b'"TASK/elicitation-1"'] * 2
        await running.call.answer({"elicitation-1": b"{}", "unknown": b"{}"})
        running.server.answer()
        await again

    on_loop(body)


def test_a_question_that_is_taken_back_is_taken_back_from_the_client() -> None:
    async def body() -> None:
        running = Running()
        await settle()
        await running.server.event(ELICIT)
        attending = await running.attended()
        await running.server.event(Notification("notifications/cancelled", b'{"requestId":"e1"}'))
        await settle()
        told = running.heard[-1]
        assert isinstance(told, Notification)
        assert (told.method, json.loads(told.params)["requestId"]) == ("notifications/cancelled", "TASK/elicitation-1")
        assert running.call.asked() == {}
        running.server.answer()
        await attending

    on_loop(body)


def test_what_the_server_tells_is_kept_for_who_comes_as_far_as_there_is_room() -> None:
    async def body() -> None:
        running = Running()
        await settle()
        for number in range(100):
            await running.server.event(Notification("notifications/message", b"%d" % number))
        running.server.answer()
        await settle()
        await (await running.attended())
        assert [event.params for event in running.heard if isinstance(event, Notification)] == [b"%d" % n for n in range(36, 100)]

    on_loop(body)


def test_a_question_too_many_or_one_that_cannot_be_read_is_answered_with_an_error() -> None:
    async def body() -> None:
        running = Running()
        await settle()
        for number in range(MOST_OPEN_QUESTIONS + 1):
            await running.server.event(Request(b"%d" % number, "roots/list", b""))
        await running.server.event(Request(b'"bad"', "elicitation/create", b"[1]"))
        await running.server.event(Request(b'"ping"', "ping", b""))
        await settle()
        assert len(running.call.asked()) == MOST_OPEN_QUESTIONS
        said = {message.id: bool(message.error) for _, message in running.wire.told if isinstance(message, Response)}
        assert said == {b"%d" % MOST_OPEN_QUESTIONS: True, b'"bad"': True, b'"ping"': False}

    on_loop(body)


def test_a_cancelled_call_is_cancelled_at_the_server() -> None:
    """Source: MCP 2025-11-25, basic/transports: to disconnect is no cancellation."""

    async def body() -> None:
        running = Running()
        await settle()
        running.call.cancel()
        await running.call.over()
        await settle()
        ((session_id, told),) = running.wire.told
        assert isinstance(told, Notification)
        assert (session_id, json.loads(told.params)["requestId"]) == ("s1", "own.1")
        assert isinstance(running.call.outcome, UpstreamError)
        running.call.cancel()
        assert len(running.wire.told) == 1

    on_loop(body)


@pytest.mark.parametrize(("fate", "is_refused"), [(Fate.SESSION_LOST, True), (Fate.UNREACHABLE, True), (Fate.CUT, False)])
def test_a_server_that_has_not_run_it_shows_at_once(fate: Fate, is_refused: bool) -> None:
    async def body() -> None:
        running = Running()
        await settle()
        running.server.fail(UpstreamError(fate, "gone"))
        refused = await running.call.refused(5.0)
        assert (refused is not None) == is_refused

    on_loop(body)


def test_how_it_ends_is_its_outcome() -> None:
    async def body() -> None:
        for ended, fate in ((UpstreamError(Fate.CUT, "cut"), Fate.CUT), (RuntimeError("ours"), Fate.BROKEN)):
            running = Running()
            await settle()
            running.server.fail(ended)
            await running.call.over()
            await settle()
            assert isinstance(running.call.outcome, UpstreamError)
            assert running.call.outcome.fate is fate
        running = Running()
        assert await running.call.refused(0.01) is None
        running.server.answer(b'{"content":[]}')
        await running.call.over()
        await settle()
        assert isinstance(running.call.outcome, UpstreamAnswer)

    on_loop(body)
