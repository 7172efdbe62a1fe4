"""A server of tools made from something else: what it says to each request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamError, UpstreamRequest, ignore_events
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST
from mcp_gateway.transports.upstream.adapted.adapted_conversation import (
    AdaptedConversation,
    Report,
    ToolOutcome,
    WrongArguments,
)

TOOL = {"name": "add", "inputSchema": {"type": "object"}}


class Adder:
    """A source of one tool, which reports what it does."""

    name = "adder"
    is_closed = False

    async def instructions(self) -> str:
        return "Adds."

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        return [TOOL]

    async def call(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None, report: Report) -> ToolOutcome | None:
        if name != "add":
            return None
        if "a" not in arguments:
            raise WrongArguments("a is missing")
        await report(1, "adding")
        return ToolOutcome([{"type": "text", "text": "3"}], {"sum": 3})

    async def probe(self, timeout_s: float) -> None:
        """It is well."""

    async def close(self) -> None:
        self.is_closed = True


def asked(method: str, params: object = None, told: list[Any] | None = None) -> dict[str, Any]:
    """The result, or the error with the status of the answer."""

    async def hear(message: Message | None, _: str | None) -> None:
        assert isinstance(message, Notification)
        if told is not None:
            told.append(json.loads(message.params))

    async def exchange() -> dict[str, Any]:
        message = Request(b"1", method, json.dumps({} if params is None else params).encode())
        request = UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision=NEWEST)
        answer = await AdaptedConversation(Adder()).exchange(request, hear)
        assert answer.response is not None
        if answer.response.error:
            return {"status": answer.status, **json.loads(answer.response.error)}
        return dict(json.loads(answer.response.result))

    return asyncio.run(exchange())


def test_it_is_a_modern_server_of_tools() -> None:
    found = asked("server/discover")
    assert (found["supportedVersions"], found["capabilities"], found["instructions"]) == ([NEWEST], {"tools": {}}, "Adds.")
    assert asked("tools/list")["tools"] == [TOOL]
    assert asked("tools/list", {"cursor": "x"})["status"] == 400


def test_a_call_gives_content_and_progress_to_who_wants_it() -> None:
    told: list[Any] = []
    result = asked("tools/call", {"name": "add", "arguments": {"a": 1}, "_meta": {"progressToken": 7}}, told)
    assert (result["structuredContent"], result["isError"], result["resultType"]) == ({"sum": 3}, False, "complete")
    assert told == [{"progressToken": 7, "progress": 1, "message": "adding"}]
    asked("tools/call", {"name": "add", "arguments": {"a": 1}}, told)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("method", "params", "status"),
    [
        ("tools/call", {"name": "gone"}, 400),
        ("tools/call", {}, 400),
        ("tools/call", {"name": "add", "arguments": [1]}, 400),
        ("resources/list", {}, 404),
    ],
)
def test_what_it_does_not_have_is_an_error_of_the_protocol(method: str, params: object, status: int) -> None:
    assert asked(method, params)["status"] == status


def test_wrong_arguments_are_told_to_the_model() -> None:
    result = asked("tools/call", {"name": "add"})
    assert (result["isError"], result["content"]) == (True, [{"type": "text", "text": "a is missing"}])


def test_it_says_nothing_on_its_own_and_closes_its_source() -> None:
    async def quiet(_message: Message | None, _: str | None) -> None:
        raise AssertionError

    async def check() -> None:
        source = Adder()
        conversation = AdaptedConversation(source)
        with pytest.raises(UpstreamError, match="says nothing"):
            await conversation.exchange(UpstreamRequest(kind=RequestKind.STREAM, revision=NEWEST), quiet)
        for message in (None, Notification("notifications/cancelled", b"{}")):
            kind = RequestKind.TERMINATE if message is None else RequestKind.MESSAGE
            request = UpstreamRequest(kind=kind, message=message, revision=NEWEST)
            assert (await conversation.exchange(request, quiet)).response is None
        await conversation.probe(1.0)
        await conversation.close()
        assert source.is_closed

    asyncio.run(check())


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call"])
def test_a_source_that_never_says_what_it_has_costs_a_request_its_own_time_and_no_more(method: str) -> None:
    """One that is asked for its methods, or its description, piece by piece has a bound for each piece alone."""

    class Silent(Adder):
        async def instructions(self) -> str:
            await asyncio.Event().wait()
            return ""

        async def tools(self) -> Sequence[Mapping[str, Any]]:
            await asyncio.Event().wait()
            return []

        async def call(
            self, name: str, arguments: Mapping[str, Any], timeout_s: float | None, report: Report
        ) -> ToolOutcome | None:
            await asyncio.Event().wait()
            return None

    async def exchange() -> None:
        message = Request(b"1", method, b'{"name": "add"}')
        request = UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision=NEWEST, timeout_s=0.05)
        with pytest.raises(UpstreamError) as caught:
            await asyncio.wait_for(AdaptedConversation(Silent()).exchange(request, ignore_events), 10)
        assert caught.value.failure.fate is Fate.TIMED_OUT

    asyncio.run(exchange())
