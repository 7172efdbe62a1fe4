"""A server that the cluster has once, as the cells of two nodes speak to it: one wire at a time, under the token of now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import attrs
import msgspec
import pytest

from mcp_gateway.actors.forwarding import holdings as holdings_module
from mcp_gateway.actors.forwarding.owned_conversation import OwnedConversation
from mcp_gateway.actors.messages.cluster import Ownership
from mcp_gateway.scripts.chaos_harness.ownership_history import broken_promises, read_history
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from tests.doubles.joined_cells import JoinedCells
from tests.doubles.patience import patience, until

A, B = "a/cell/0", "b/cell/0"
STDIO = ReplicaId("files", "stdio:files#0")
THING = str(STDIO)
CALL = UpstreamRequest(
    kind=RequestKind.REQUEST, message=Request(b"7", "tools/call", b'{"name":"x"}'), revision="2025-11-25", timeout_s=30
)
LONG_S = 3_600.0


@attrs.define(eq=False)
class Wire:
    """A process. may_close: what its end waits for."""

    node: str
    token: int
    heard: int = 0
    probed: int = 0
    is_closed: bool = False
    may_close: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        assert not self.is_closed
        self.heard += 1
        return UpstreamAnswer(200, None)

    async def probe(self, timeout_s: float) -> None:
        self.probed += 1

    async def close(self) -> None:
        await self.may_close.wait()
        self.is_closed = True


class TwoNodes:
    """Of one cell each, which want the same server. wires: all that were opened, in order."""

    def __init__(self) -> None:
        self.joined = JoinedCells(A, B, cells_of_a_node=1)
        self.wires: list[Wire] = []
        self.conversations: dict[str, OwnedConversation] = {}
        for name, cell in self.joined.cells.items():
            cell.nodes_changed({other.partition("/")[0]: 1 for other in (A, B) if other != name}, is_member=True)
            conversation = OwnedConversation(cell, STDIO, self.connect_of(cell.node))
            cell.serve_owned(STDIO, conversation, conversation.carry_out)
            self.conversations[name] = conversation

    def connect_of(self, node: str) -> Callable[[int], Wire]:
        def connect(token: int) -> Wire:
            wire = Wire(node, token)
            wire.may_close.set()
            self.wires.append(wire)
            return wire

        return connect

    def tell(self, cell: str, owner: str, token: int) -> None:
        owners = {THING: Ownership(owner, token)} if owner else {}
        self.joined.cells[cell].holdings.told(owners, lease_clock_s() + LONG_S)

    def tell_both(self, owner: str, token: int) -> None:
        for cell in (A, B):
            self.tell(cell, owner, token)

    def cut_off(self, cell: str) -> None:
        self.joined.cells[cell].holdings.told({}, 0.0)

    async def say(self, cell: str) -> UpstreamAnswer:
        return await self.conversations[cell].exchange(CALL, ignore_events)


def on_loop(body: Callable[[TwoNodes], Awaitable[None]]) -> None:
    async def run() -> None:
        async with patience():
            await body(TwoNodes())

    asyncio.run(run())


@pytest.fixture
def history(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What is wrong with what was used: tokens are given by the test, so that nobody has got them from an engine."""
    caplog.set_level(logging.INFO)
    return lambda: [text for text in broken_promises(read_history(caplog.messages)) if "never got" not in text]


def test_nobody_speaks_to_it_beside_the_owner() -> None:
    async def body(nodes: TwoNodes) -> None:
        for name, other in ((A, B), (B, A)):
            cell = nodes.joined.cells[name]
            assert cell.speakers_beside(STDIO) == frozenset()
            assert cell.speakers_beside(ReplicaId("notes", "stdio:notes#0")) == {other}

    on_loop(body)


def test_either_node_speaks_to_the_one_process_of_the_owner(history: Callable[[], list[str]]) -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("b", 5)
        for cell in (A, B, A, B):
            await nodes.say(cell)
        assert [(wire.node, wire.token, wire.heard) for wire in nodes.wires] == [("b", 5, 4)]
        assert history() == []

    on_loop(body)


def test_where_nobody_owns_it_this_node_asks_for_it_and_nothing_runs_before_it_has_it() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("", 0)
        saying = asyncio.ensure_future(nodes.say(A))
        await until(lambda: (A, THING) in nodes.joined.wanted)
        assert not nodes.wires
        nodes.tell_both("a", 5)
        await saying
        assert [(wire.node, wire.token) for wire in nodes.wires] == [("a", 5)]

    on_loop(body)


def test_an_owner_that_is_cut_off_ends_its_process_and_refuses_everybody(history: Callable[[], list[str]]) -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("a", 5)
        await nodes.say(A)
        nodes.cut_off(A)
        await until(lambda: nodes.wires[0].is_closed)
        for cell in (A, B):  # node b still believes in the owner, and is refused by it
            with pytest.raises(UpstreamError) as refused:
                await nodes.say(cell)
            assert refused.value.failure.reason == "owner_unreachable"
            assert refused.value.fate is Fate.TURNED_AWAY
        assert len(nodes.wires) == 1
        nodes.tell_both("b", 9)
        await nodes.say(A)
        assert [(wire.node, wire.token) for wire in nodes.wires] == [("a", 5), ("b", 9)]
        assert history() == []

    on_loop(body)


def test_an_owner_whose_lease_is_over_by_the_clock_runs_nothing_though_nobody_has_told_it_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a cell does first that was stopped for a while: it takes what has waited in its socket."""

    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("a", 5)
        await nodes.say(A)
        later_s = lease_clock_s() + LONG_S
        monkeypatch.setattr(holdings_module, "lease_clock_s", lambda: later_s)
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await nodes.conversations[A].carry_out(5, CALL, ignore_events)
        assert nodes.wires[0].heard == 1

    on_loop(body)


def test_what_a_stopped_node_used_it_has_left_with_the_lease_of_then_though_it_hears_of_its_next_one_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    until_s = lease_clock_s() + LONG_S

    async def body(nodes: TwoNodes) -> None:
        holdings = nodes.joined.cells[A].holdings
        holdings.told({THING: Ownership("a", 5)}, until_s - 1.0)
        await nodes.say(A)
        holdings.told({THING: Ownership("a", 5)}, until_s)
        holdings.told({THING: Ownership("b", 9)}, until_s + LONG_S)
        await until(lambda: nodes.wires[0].is_closed)

    on_loop(body)
    (left,) = [each for each in read_history(caplog.messages) if each["event"] == "left"]
    assert (left["fence"], left["lease_until_s"]) == (5, until_s)


@pytest.mark.parametrize("token", [4, 6])
def test_an_owner_refuses_every_token_but_its_own(token: int) -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("b", 5)
        with pytest.raises(UpstreamError) as refused:
            await nodes.joined.cells[A].exchange_at(B, replica=STDIO, request=CALL, on_event=ignore_events, token=token)
        assert refused.value.failure.reason == "owner_unreachable"
        assert not refused.value.fate.was_sent
        assert not nodes.wires

    on_loop(body)


def test_who_asks_the_owner_of_before_asks_the_one_of_now_as_soon_as_it_hears_of_it() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell(A, "b", 5)
        nodes.tell(B, "a", 9)
        saying = asyncio.ensure_future(nodes.say(A))
        await until(lambda: any(isinstance(message, object) and to == A for _, to, message in nodes.joined.sent))
        nodes.tell(A, "a", 9)
        await saying
        assert [(wire.node, wire.token) for wire in nodes.wires] == [("a", 9)]

    on_loop(body)


def test_what_had_begun_on_an_owner_has_died_when_another_one_has_it_and_is_not_sent_in_circles() -> None:
    """A client's answer to a call that waits is sent to the cell where the call began, whoever owns the server now."""

    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("b", 9)
        with pytest.raises(UpstreamError) as died:
            await nodes.joined.cells[B].exchange_at(A, replica=STDIO, request=CALL, on_event=ignore_events)
        assert died.value.fate is Fate.CELL_LOST
        assert not nodes.wires

    on_loop(body)


def test_the_next_process_waits_for_the_end_of_the_one_before_on_one_node_as_well() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("a", 5)
        await nodes.say(A)
        first = nodes.wires[0]
        first.may_close.clear()
        nodes.cut_off(A)
        nodes.tell_both("a", 9)
        saying = asyncio.ensure_future(nodes.say(A))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(nodes.wires) == 1
        first.may_close.set()
        await saying
        assert [wire.token for wire in nodes.wires] == [5, 9]

    on_loop(body)


def test_what_nobody_owns_has_no_session_that_would_have_to_be_ended() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("", 0)
        ended = await nodes.conversations[A].exchange(msgspec.structs.replace(CALL, kind=RequestKind.TERMINATE), ignore_events)
        assert ended.status == 200
        assert not nodes.joined.wanted

    on_loop(body)


def test_a_probe_is_for_the_owner_alone_and_where_none_is_known_nobody_is_judged() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("b", 5)
        await nodes.conversations[A].probe(1.0)
        assert not nodes.wires
        await nodes.conversations[B].probe(1.0)
        assert nodes.wires[0].probed == 1
        nodes.cut_off(A)
        await nodes.conversations[A].probe(1.0)

    on_loop(body)


def test_a_conversation_that_is_closed_ends_its_process_and_runs_nothing_more() -> None:
    async def body(nodes: TwoNodes) -> None:
        nodes.tell_both("a", 5)
        await nodes.say(A)
        await nodes.conversations[A].close()
        assert nodes.wires[0].is_closed
        with pytest.raises(UpstreamError):
            await nodes.conversations[A].carry_out(5, CALL, ignore_events)

    on_loop(body)
