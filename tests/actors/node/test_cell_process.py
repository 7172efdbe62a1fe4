"""A cell process towards the node: which event log it talks to, what it owes it whatever is lost, which settings it serves by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_gateway.actors.messages.between_cells import Forwarded
from mcp_gateway.actors.messages.cluster import ForwardToNode, LimitsAsked, NodesChanged, OwnershipWanted
from mcp_gateway.actors.messages.event_log import EventLogMoved, EventsDistributed, JoinEventLog, PublishEvents, StoredEvent
from mcp_gateway.actors.messages.lifecycle import StopRequested
from mcp_gateway.actors.messages.node import ApplySettings, CellArguments, CellsChanged, DrainRequested, SettingsApplied
from mcp_gateway.actors.node.cell_process import RESEND_INTERVAL_S, CellProcess
from mcp_gateway.transports.protocol.topics.topic_log import Event
from tests.doubles.actor_stage import Peer, Stage
from tests.doubles.patience import until
from tests.doubles.running_cell import cell_settings


class Bench:
    """A cell on the test's loop, and logs that the test plays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mcp_gateway.actors.node.cell_process.setproctitle", lambda _title: None)
        self.stage = Stage()
        self.stage.take_over_time(monkeypatch)
        self.first = self.stage.peer()
        arguments = CellArguments(settings=cell_settings(), cell_factory="tests.doubles.stand_in_cell:make_cell", cell_index=0)
        self.address = self.stage.start(CellProcess, {"event-log": self.first}, arguments, name="cell/0")
        self.cell: Any = self.stage.instance(self.address)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def move_log(self, incarnation: int) -> Peer:
        log = self.stage.peer()
        self.stage.tell(self.address, EventLogMoved(log=log.address, log_incarnation=incarnation))
        await self.settle()
        return log

    async def answer(self, incarnation: int, *ids: int, is_catch_up: bool = True, has_more: bool = False) -> None:
        events = tuple(
            StoredEvent(event=Event(id=number, topic="t.x", payload_json=b"{}", timestamp_ms=0), source="other", sequence=number)
            for number in ids
        )
        answer = EventsDistributed(log_incarnation=incarnation, events=events, is_catch_up=is_catch_up, has_more=has_more)
        self.stage.tell(self.address, answer)
        await self.settle()


def on_loop(monkeypatch: pytest.MonkeyPatch, body: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench(monkeypatch)
        await bench.settle()
        await body(bench)
        if bench.cell._content is not None:
            await bench.cell._content.stop()

    asyncio.run(run())


def test_a_cell_joins_the_log_that_is_there_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        assert bench.first.only(JoinEventLog).last_event_id == 0
        assert not bench.cell.is_caught_up
        await bench.answer(7, 1, 2)  # the incarnation is news to it
        assert bench.cell.is_caught_up
        assert [event.id for event in bench.cell.events_after(0)] == [1, 2]

    on_loop(monkeypatch, body)


def test_a_cell_has_caught_up_with_the_last_part_and_asks_again_where_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        bench.first.received.clear()
        await bench.answer(1, 5, 6, has_more=True)
        assert not bench.cell.is_caught_up
        await bench.answer(1, 8, 9, is_catch_up=False)  # and 7 was lost
        assert not bench.cell.is_caught_up
        await bench.answer(1, 10, is_catch_up=False)
        assert bench.first.only(JoinEventLog).last_event_id == 6, "it asks once, for all that follows"
        await bench.answer(1, 7, 8, has_more=True)
        await bench.answer(1, 9, is_catch_up=False)
        assert bench.cell.is_caught_up
        assert [event.id for event in bench.cell.events_after(0)] == [5, 6, 7, 8, 9]

    on_loop(monkeypatch, body)


def test_news_of_an_earlier_log_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        await bench.answer(1, 1)
        await bench.move_log(2)
        await bench.answer(1, 2)
        assert [event.id for event in bench.cell.events_after(0)] == [1]

    on_loop(monkeypatch, body)


def test_mail_to_a_dead_log_that_comes_back_late_does_not_lead_back_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new log is announced before Thespian gives up what was on its way to the old one."""

    async def body(bench: Bench) -> None:
        await bench.answer(1)
        bench.cell.publish("t.one", {}, 0)
        (lost,) = bench.first.of(PublishEvents)
        second = await bench.move_log(2)
        bench.first.received.clear()
        bench.cell.on_undeliverable(bench.first.address, [lost], "dead target")
        bench.stage.advance(RESEND_INTERVAL_S)
        await bench.settle()
        bench.cell.publish("t.two", {}, 0)
        await bench.settle()
        assert bench.first.received == []
        assert [event.topic for join in second.of(JoinEventLog) for event in join.unstored] == ["t.one", "t.one"]
        assert [event.topic for message in second.of(PublishEvents) for event in message.events] == ["t.two"]

    on_loop(monkeypatch, body)


def test_what_a_slow_log_did_not_take_is_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(bench: Bench) -> None:
        await bench.answer(1)
        bench.cell.publish("t.one", {}, 0)
        (lost,) = bench.first.of(PublishEvents)
        bench.first.received.clear()
        bench.cell.on_undeliverable(bench.first.address, [lost], "timeout")
        bench.stage.advance(RESEND_INTERVAL_S)
        await bench.settle()
        assert bench.first.only(JoinEventLog).unstored == lost.events

    on_loop(monkeypatch, body)


def test_settings_that_come_while_a_cell_starts_are_those_it_begins_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(bench: Bench) -> None:
        asker, older, newer = bench.stage.peer(), cell_settings(), cell_settings()
        asker.say(bench.address, ApplySettings(revision=1, settings=older))
        asker.say(bench.address, ApplySettings(revision=2, settings=newer))
        await bench.settle()
        assert asker.of(SettingsApplied) == []
        await bench.answer(1)
        async with asyncio.timeout(5):
            while len(asker.of(SettingsApplied)) < 2:
                await asyncio.sleep(0.01)
        assert bench.cell._content.began_with is newer
        assert [applied.revision for applied in asker.of(SettingsApplied)] == [1, 2]

    on_loop(monkeypatch, body)


REMOTE = "b/cell/0"


def nodes(incarnation: tuple[int, int, int]) -> NodesChanged:
    return NodesChanged(cells={REMOTE: incarnation}, cell_counts={"b": 1}, is_member=True)


def test_what_a_cell_of_another_node_asks_is_read_once_it_can_be_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends may be here before the presence of its node, which tells that it runs: an answer had no way to go, or was
    given up as one for the cell of before, and who had asked waited for the timeout.
    """

    async def body(bench: Bench) -> None:
        await bench.answer(1)
        await until(lambda: bench.cell._content is not None)
        content, member = bench.cell._content, bench.stage.peer()
        member.say(bench.address, Forwarded(from_cell=REMOTE, incarnation=(5, 7, 1), message="early"))
        await bench.settle()
        assert content.forwarded == []
        member.say(bench.address, nodes((5, 7, 1)))
        await bench.settle()
        assert content.forwarded == [(REMOTE, "early")]
        member.say(bench.address, Forwarded(from_cell=REMOTE, incarnation=(5, 7, 2), message="of its successor"))
        await bench.settle()
        assert content.forwarded == [(REMOTE, "early")]
        member.say(bench.address, nodes((5, 7, 2)))
        member.say(bench.address, Forwarded(from_cell=REMOTE, incarnation=(5, 7, 1), message="late"))
        await bench.settle()
        assert content.other_cells == {REMOTE: (5, 7, 2)}
        assert content.forwarded == [(REMOTE, "early"), (REMOTE, "of its successor")]

    on_loop(monkeypatch, body)


def test_what_goes_to_another_node_tells_which_incarnation_of_a_cell_says_it_to_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(bench: Bench) -> None:
        member = bench.stage.peer()
        member.say(bench.address, nodes((5, 7, 3)))
        await bench.settle()
        bench.cell.forward(REMOTE, "hello")
        await bench.settle()
        sent = member.only(ForwardToNode)
        assert (sent.to_cell, sent.from_cell, sent.incarnation, sent.message) == (REMOTE, "cell/0", 1, "hello")
        assert sent.to_incarnation == 3

    on_loop(monkeypatch, body)


def test_a_member_that_takes_nothing_costs_a_cell_what_it_has_forwarded_and_not_its_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a cell says to it goes in one batch, and comes back as one: limits and owners as well, which are told again."""

    async def body(bench: Bench) -> None:
        await bench.answer(1)
        await until(lambda: bench.cell._content is not None)
        member = bench.stage.peer()
        lost = ForwardToNode(to_cell=REMOTE, from_cell="cell/0", incarnation=1, message="hello")
        batch = [LimitsAsked(wanted={"c": 1.0}), lost, OwnershipWanted("files/stdio")]
        bench.cell.on_undeliverable(member.address, batch, "timeout")
        await bench.settle()
        assert bench.cell._content.failed == [(REMOTE, "hello")]
        assert not bench.cell._is_crashed

    on_loop(monkeypatch, body)


def test_a_cell_whose_node_ends_sends_its_clients_to_other_nodes_and_has_no_successor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(bench: Bench) -> None:
        await bench.answer(1)
        await until(lambda: bench.cell._content is not None)
        bench.stage.peer().say(bench.address, nodes((5, 7, 1)))
        bench.stage.tell(bench.address, DrainRequested(deadline_s=1.0))
        async with asyncio.timeout(5):
            while (others_serve := bench.cell._content.drained_while_others_serve) is None:
                await asyncio.sleep(0.01)
        assert (others_serve, bench.cell._content.node_ends) == (True, True)

    on_loop(monkeypatch, body)


@pytest.mark.parametrize(
    ("end", "others_served"), [(StopRequested(), True), (DrainRequested(deadline_s=1.0), False)], ids=["cell", "node"]
)
def test_a_cell_that_ends_sends_its_clients_to_one_that_has_only_just_come_but_not_when_all_end(
    end: object, others_served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells are restarted one after the other: the second is told of the first and to end in the same moment."""

    async def body(bench: Bench) -> None:
        await bench.answer(1)
        await until(lambda: bench.cell._content is not None)
        bench.stage.tell(bench.address, CellsChanged(cells={"cell/1": (bench.first.address, 2)}))
        bench.stage.tell(bench.address, end)
        async with asyncio.timeout(5):
            while (others_serve := bench.cell._content.drained_while_others_serve) is None:
                await asyncio.sleep(0.01)
        assert others_serve == others_served

    on_loop(monkeypatch, body)
