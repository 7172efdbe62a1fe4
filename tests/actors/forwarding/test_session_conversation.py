"""What a session says to a server whose connection is its own goes to the node where it lives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from mcp_gateway.actors.forwarding.forwarding import UNREACHABLE_AGAIN_S
from mcp_gateway.actors.forwarding.session_conversation import SessionConversation
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import SessionState
from tests.doubles.joined_cells import JoinedCells
from tests.doubles.patience import patience

A, B = "a/cell/0", "b/cell/0"
STDIO = ReplicaId("files", "stdio:files#0")
SEAL = Seal(b"the secret of these tests")


def request_of(node: str) -> UpstreamRequest:
    session = SessionState("key", "", "2025-11-25", "", b"{}", (), node=node)
    message = Request(b"7", "tools/call", b'{"name":"x"}')
    return UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision="2025-11-25", timeout_s=30, session=session)


class AnsweringWire:
    """requests: all that came, each of which has been answered."""

    def __init__(self) -> None:
        self.requests: list[UpstreamRequest] = []
        self.result = b""
        self.probe_count = 0

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        self.requests.append(request)
        return UpstreamAnswer(200, Response(b"7", self.result, b"") if self.result else None)

    async def probe(self, timeout_s: float) -> None:
        self.probe_count += 1

    async def close(self) -> None:
        """Nothing is held."""


class TwoNodes:
    """Of one cell each; `wires` answer, `conversations` are spoken to."""

    def __init__(self) -> None:
        self.joined = JoinedCells(A, B, cells_of_a_node=1)
        self.wires = {name: AnsweringWire() for name in (A, B)}
        for name, cell in self.joined.cells.items():
            cell.serve(STDIO, self.wires[name])
            cell.nodes_changed({other.partition("/")[0]: 1 for other in (A, B) if other != name}, is_member=True)
        self.conversation = SessionConversation(self.joined.cells[A], STDIO, self.wires[A], SEAL)

    async def say(self, node: str) -> None:
        await self.conversation.exchange(request_of(node), ignore_events)

    def heard(self) -> dict[str, int]:
        return {name: len(wire.requests) for name, wire in self.wires.items()}


def on_loop(body: Callable[[TwoNodes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with patience():
            await body(TwoNodes())

    asyncio.run(run())


def test_a_session_of_this_node_and_one_of_nobody_stay_here() -> None:
    async def body(nodes: TwoNodes) -> None:
        await nodes.say("a")
        await nodes.say("")
        assert nodes.heard() == {A: 2, B: 0}

    on_loop(body)


def test_a_session_of_another_node_is_spoken_for_there() -> None:
    async def body(nodes: TwoNodes) -> None:
        await nodes.say("b")
        assert nodes.heard() == {A: 0, B: 1}

    on_loop(body)


def test_a_session_whose_node_is_gone_is_opened_again_by_who_is_there() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.joined.cells[A].nodes_changed({}, is_member=True)
        await nodes.say("b")
        assert nodes.heard() == {A: 1, B: 0}

    on_loop(body)


def test_a_node_that_is_cut_off_says_so_at_once_and_when_to_come_back() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.joined.cells[A].nodes_changed({}, is_member=False)
        with pytest.raises(UpstreamError) as caught:
            await nodes.say("b")
        failure = caught.value.failure
        assert (failure.fate, failure.reason) == (Fate.TURNED_AWAY, "owner_unreachable")
        assert failure.retry_after_s == UNREACHABLE_AGAIN_S
        await nodes.say("a")
        assert nodes.heard() == {A: 1, B: 0}

    on_loop(body)


@pytest.mark.parametrize(("is_unsent", "reason"), [(True, "owner_unreachable"), (False, "upstream_failed")])
def test_a_request_that_has_not_reached_its_node_may_be_tried_again_only_where_that_is_certain(
    is_unsent: bool, reason: str
) -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.joined.hung.add(B)
        nodes.joined.is_unsent = is_unsent
        with pytest.raises(UpstreamError) as caught:
            await nodes.say("b")
        assert caught.value.failure.reason == reason
        assert caught.value.fate.was_sent is not is_unsent

    on_loop(body)


def test_a_call_that_another_node_holds_dies_with_it() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.joined.cells[A].nodes_changed({}, is_member=True)
        with pytest.raises(UpstreamError) as caught:
            await nodes.joined.cells[A].exchange_at(B, replica=STDIO, request=request_of("b"), on_event=ignore_events)
        assert caught.value.fate is Fate.CELL_LOST

    on_loop(body)


@pytest.mark.parametrize(
    ("replica", "others", "heard"),
    [
        (STDIO, {"b": 1}, {A: 1, B: 1}),
        (STDIO, {}, {A: 2, B: 0}),  # the other one has left, and its process with it
        (ReplicaId("chat", "ws://127.0.0.1:1/mcp"), {"b": 1}, {A: 2, B: 0}),  # one server, whichever node speaks to it
    ],
)
def test_a_client_without_a_session_finds_the_process_that_has_asked_it(
    replica: ReplicaId, others: dict[str, int], heard: dict[str, int]
) -> None:
    async def body(nodes: TwoNodes) -> None:
        conversations = {}
        for name, cell in nodes.joined.cells.items():
            nodes.wires[name].result = b'{"resultType":"input_required","requestState":"of the server"}'
            cell.serve(replica, nodes.wires[name])
            conversations[name] = SessionConversation(cell, replica, nodes.wires[name], SEAL)
        asked = request_of("")
        at_b = await conversations[B].exchange(replace(asked, session=None), ignore_events)
        assert at_b.response is not None
        state = json.loads(at_b.response.result)["requestState"]
        nodes.wires[B].requests.clear()
        nodes.joined.cells[A].nodes_changed(others, is_member=True)
        retry = Request(b"8", "tools/call", json.dumps({"name": "x", "requestState": state}).encode())
        for message in (asked.message, retry):
            await conversations[A].exchange(replace(asked, session=None, message=message), ignore_events)
        assert nodes.heard() == heard
        last = nodes.wires[B if heard[B] else A].requests[-1].message
        assert isinstance(last, Request)
        assert json.loads(last.params)["requestState"] == "of the server"

    on_loop(body)


def test_probes_are_for_the_node_itself() -> None:
    async def body(nodes: TwoNodes) -> None:
        await nodes.conversation.probe(1.0)
        assert {name: wire.probe_count for name, wire in nodes.wires.items()} == {A: 1, B: 0}
        assert not nodes.joined.sent

    on_loop(body)
