"""What one cell carries out for another: answers, events, credit, cancellation, and what is told when a cell ends."""

from __future__ import annotations

import asyncio
import contextlib

import attrs
import msgspec
import pytest

from mcp_gateway.actors.forwarding import forwarding
from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.actors.forwarding.remote_conversation import RemoteConversation
from mcp_gateway.actors.messages.between_cells import ForwardedFailure
from mcp_gateway.transports.ports.credit import EVENT_WINDOW
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from tests.doubles.joined_cells import JoinedCells
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import ScriptedWire

ONE, TWO = "cell/0", "cell/1"
STDIO = ReplicaId("files", "stdio:files#0")
REQUEST = UpstreamRequest(
    kind=RequestKind.REQUEST, message=Request(b"7", "tools/call", b'{"name":"x"}'), revision="2025-11-25", timeout_s=30
)


@attrs.frozen
class Doubled:
    """A question that the tests put between cells."""

    number: int


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def ignore(message: Message | None, event_id: str | None) -> None:
    """Of the events, this test wants none."""


# ---- owners


def test_every_cell_names_the_same_owner_and_owners_differ() -> None:
    cells = JoinedCells(ONE, TWO).cells
    replicas = [ReplicaId("files", f"stdio:files#{index}") for index in range(40)]
    owners = [cells[ONE].owner_of(replica) for replica in replicas]
    assert owners == [cells[TWO].owner_of(replica) for replica in replicas]
    assert {ONE, TWO} == set(owners)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/mcp", "https://a.example/mcp", "builtin:demo"])
def test_what_is_bound_to_no_connection_every_cell_speaks_to_itself(address: str) -> None:
    for name, cell in JoinedCells(ONE, TWO).cells.items():
        assert cell.owner_of(ReplicaId("files", address)) == name


@pytest.mark.parametrize("scheme", ["stdio", "ws", "wss", "sse+http", "sse+https", "auto+http", "auto+https"])
def test_a_single_cell_owns_everything(scheme: str) -> None:
    assert JoinedCells(ONE).cells[ONE].owner_of(ReplicaId("files", f"{scheme}:x")) == ONE


def test_the_view_of_the_others_has_another_number_only_after_one_has_come_or_gone() -> None:
    """By it a session that was lost again is known to have been taken along."""
    node = JoinedCells(ONE, TWO)
    cell = node.cells[ONE]
    seen = [cell.view_number]
    node.announce()
    cell.nodes_changed({}, is_member=False)
    assert cell.view_number == seen[-1]
    node.kill(TWO)
    seen.append(cell.view_number)
    node.start_again(TWO, 2)
    seen.append(cell.view_number)
    cell.nodes_changed({}, is_member=True)
    seen.append(cell.view_number)
    cell.nodes_changed({"b": 2}, is_member=True)
    seen.append(cell.view_number)
    cell.nodes_changed({"b": 2}, is_member=True)
    assert seen == sorted(set(seen))
    assert cell.view_number == seen[-1]


# ---- a cell that leaves in order


def test_a_cell_that_leaves_ends_what_it_has_begun_and_its_successor_does_what_comes_then() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        old, new = ScriptedWire(), ScriptedWire()
        node.cells[TWO].serve(STDIO, old)

        def call() -> asyncio.Task[UpstreamAnswer]:
            return asyncio.ensure_future(node.cells[ONE].exchange_at(TWO, replica=STDIO, request=REQUEST, on_event=ignore))

        begun = call()
        await settle()
        leaving = asyncio.create_task(node.cells[TWO].leave(float("inf")))
        await settle()
        put_off = call()
        await settle()
        assert not leaving.done()
        old.exchanges[0].answer()
        assert (await begun).status == 200
        await leaving
        assert len(old.exchanges) == 1
        node.kill(TWO)
        await settle()
        assert not put_off.done()
        node.start_again(TWO, 2).serve(STDIO, new)
        await settle()
        new.exchanges[0].answer()
        assert (await put_off).status == 200

    on_loop(body)


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_a_cell_that_leaves_waits_neither_for_streams_nor_beyond_its_time(
    timeout_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        node.cells[TWO].serve(STDIO, ScriptedWire())
        request = msgspec.structs.replace(REQUEST, timeout_s=timeout_s)
        held = asyncio.ensure_future(node.cells[ONE].exchange_at(TWO, replica=STDIO, request=request, on_event=ignore))
        await settle()
        await node.cells[TWO].leave(float("inf") if timeout_s is None else 0.0)
        monkeypatch.setattr(forwarding, "SUCCESSOR_COMES_S", 0.01)
        with pytest.raises(UpstreamError, match="does not run") as caught:
            await node.cells[ONE].exchange_at(TWO, replica=STDIO, request=REQUEST, on_event=ignore)
        assert not caught.value.fate.was_sent
        held.cancel()

    on_loop(body)


def test_an_exchange_that_is_on_its_way_when_a_cell_leaves_is_put_off() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        node.cells[TWO].serve(STDIO, ScriptedWire())
        call = asyncio.ensure_future(node.cells[ONE].exchange_at(TWO, replica=STDIO, request=REQUEST, on_event=ignore))
        await asyncio.sleep(0)  # it was sent, and has not arrived
        await node.cells[TWO].leave(float("inf"))
        node.kill(TWO)
        wire = ScriptedWire()
        node.start_again(TWO, 2).serve(STDIO, wire)
        await settle()
        wire.exchanges[0].answer()
        assert (await call).status == 200

    on_loop(body)


# ---- questions


def test_a_question_is_answered_by_the_cell_it_is_put_to() -> None:
    async def body() -> None:
        cells = JoinedCells(ONE, TWO).cells
        cells[TWO].answer_cells(Doubled, lambda question: question.number * 2)
        assert await cells[ONE].ask_cell(TWO, Doubled(21), 5) == 42
        assert cells[ONE].other_cells == {TWO}

        async def later(question: Doubled) -> int:
            await asyncio.sleep(0)
            return question.number + 1

        cells[ONE].answer_cells(Doubled, later)
        assert await cells[TWO].ask_cell(ONE, Doubled(1), 5) == 2

    on_loop(body)


def test_a_question_that_cannot_be_answered_says_why() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        with pytest.raises(LookupError, match="cell/1 answers no Doubled"):
            await node.cells[ONE].ask_cell(TWO, Doubled(1), 5)
        with pytest.raises(LookupError, match="cell/7 does not run"):
            await node.cells[ONE].ask_cell("cell/7", Doubled(1), 5)
        node.hung.add(TWO)
        with pytest.raises(LookupError, match="does not take messages"):
            await node.cells[ONE].ask_cell(TWO, Doubled(1), 5)

    on_loop(body)


def test_a_question_is_given_up_at_its_deadline_and_when_the_other_cell_ends() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        node.cells[TWO].answer_cells(Doubled, lambda _: asyncio.Event().wait())
        with pytest.raises(TimeoutError):
            await node.cells[ONE].ask_cell(TWO, Doubled(1), 0.01)
        asked = asyncio.ensure_future(node.cells[ONE].ask_cell(TWO, Doubled(1), 5))
        await settle()
        node.kill(TWO)
        with pytest.raises(LookupError, match="has ended"):
            await asked

    on_loop(body)


# ---- exchanges


class Carried:
    """An exchange of cell ONE with a server whose wire cell TWO holds."""

    def __init__(self, request: UpstreamRequest = REQUEST, *, has_wire: bool = True) -> None:
        self.node = JoinedCells(ONE, TWO)
        self.wire = ScriptedWire()
        self.events: list[tuple[Message | None, str | None]] = []
        self.may_read = asyncio.Event()
        self.may_read.set()
        if has_wire:
            self.node.cells[TWO].serve(STDIO, self.wire)
        self.task = asyncio.ensure_future(self.asker.exchange_at(TWO, replica=STDIO, request=request, on_event=self._on_event))

    @property
    def asker(self) -> Forwarding:
        return self.node.cells[ONE]

    async def _on_event(self, message: Message | None, event_id: str | None) -> None:
        await self.may_read.wait()
        self.events.append((message, event_id))

    async def error(self) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await self.task
        return caught.value


def test_events_and_the_answer_come_back_in_order() -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        (exchange,) = carried.wire.exchanges
        assert exchange.request == REQUEST
        await exchange.event(Notification("notifications/progress", b'{"progress":1}'), "e1")
        await exchange.event(None, "e2")
        exchange.answer(b'{"ok":true}', session_id="s")
        answer = await carried.task
        assert (answer.status, answer.response, answer.session_id) == (200, Response(b"7", b'{"ok":true}', b""), "s")
        assert carried.events == [(Notification("notifications/progress", b'{"progress":1}'), "e1"), (None, "e2")]

    on_loop(body)


def test_a_failure_keeps_every_fact() -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        failure = Failure(Fate.REFUSED, "lost", reason="session_not_found", error=b'{"code":1}', retry_after_s=2.5)
        carried.wire.exchanges[0].fail(UpstreamError.of(failure))
        assert (await carried.error()).failure == failure

    on_loop(body)


def test_a_defect_of_the_other_cell_is_a_failure_here_and_is_told_in_its_own_log(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        carried.wire.exchanges[0].fail(RuntimeError("broken"))
        error = await carried.error()
        assert (error.failure.reason, error.failure.text) == ("upstream_failed", "internal error")
        assert not error.fate.is_verdict, "the server has done nothing wrong"
        assert "RuntimeError: broken" in caplog.text

    on_loop(body)


def test_an_owner_that_is_late_is_no_fault_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(forwarding, "_GRACE_S", 0.0)
        error = await Carried(msgspec.structs.replace(REQUEST, timeout_s=0.01)).error()
        assert (error.failure.reason, error.fate.was_sent, error.fate.is_verdict) == ("upstream_timeout", True, False)

    on_loop(body)


def test_a_client_that_goes_away_cancels_the_exchange_in_the_other_cell() -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        carried.task.cancel()
        await settle()
        assert carried.wire.exchanges[0].is_cancelled
        assert carried.task.cancelled()

    on_loop(body)


def test_a_slow_client_stops_the_reading_after_a_window_of_events_and_gets_them_all_in_the_end() -> None:
    async def body() -> None:
        carried = Carried()
        carried.may_read.clear()
        await settle()
        (exchange,) = carried.wire.exchanges
        passed = 0

        async def flood() -> None:
            nonlocal passed
            for number in range(3 * EVENT_WINDOW):
                await exchange.event(Notification("n", b"%d" % number), None)
                passed += 1
            exchange.answer()

        flooding = asyncio.ensure_future(flood())
        await settle()
        assert passed == EVENT_WINDOW
        carried.may_read.set()
        await carried.task
        await flooding
        assert [message.params for message, _ in carried.events if isinstance(message, Notification)] == [
            b"%d" % number for number in range(3 * EVENT_WINDOW)
        ]

    on_loop(body)


def test_the_death_of_the_owner_is_told_at_once_and_nothing_runs_again() -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        carried.node.kill(TWO)
        error = await carried.error()
        assert (error.failure.reason, error.fate.was_sent, error.fate.is_fault, error.fate.is_cut) == (
            "upstream_failed",
            True,
            False,
            True,
        )
        assert not error.fate.is_verdict
        assert "cell/1, which held the connection to the server, has ended" in error.failure.text
        assert len(carried.wire.exchanges) == 1

    on_loop(body)


def test_the_death_of_the_asker_ends_what_was_carried_out_for_it() -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        carried.task.cancel()
        node = carried.node
        task = asyncio.ensure_future(node.cells[ONE].exchange_at(TWO, replica=STDIO, request=REQUEST, on_event=ignore))
        await settle()
        del node.incarnations[ONE]
        node.announce()
        await settle()
        assert [each.is_cancelled for each in carried.wire.exchanges] == [True, True]
        task.cancel()

    on_loop(body)


def test_an_owner_that_takes_no_messages_fails_the_exchange() -> None:
    async def body() -> None:
        carried = Carried()
        carried.node.hung.add(TWO)
        error = await carried.error()
        assert "takes no messages" in error.failure.text
        assert not error.fate.is_verdict

    on_loop(body)


def test_an_exchange_that_the_owners_connection_ends_is_a_failure() -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        carried.wire.exchanges[0].result.cancel()
        error = await carried.error()
        assert (error.failure.reason, error.fate.was_sent, error.fate.is_fault) == ("upstream_failed", True, False)
        assert not error.fate.is_verdict

    on_loop(body)


def test_a_stream_of_which_an_event_does_not_arrive_ends_and_can_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_AGAIN_S", 0.01)

    async def body() -> None:
        carried = Carried(msgspec.structs.replace(REQUEST, kind=RequestKind.STREAM, message=None, timeout_s=None))
        await settle()
        (exchange,) = carried.wire.exchanges
        carried.node.hung.add(ONE)
        for number in range(3):
            await exchange.event(None, str(number))
        await settle()
        assert exchange.is_cancelled
        before = len(carried.node.sent)  # also what was said to one that hangs
        carried.node.hung.clear()
        error = await carried.error()
        assert ("lost on its way" in error.failure.text, error.fate.is_fault, error.fate is Fate.SESSION_LOST) == (
            True,
            False,
            False,
        )
        await asyncio.sleep(0.05)
        assert sum(isinstance(message, ForwardedFailure) for _, _, message in carried.node.sent[before:]) == 1, "for all of them"

    on_loop(body)


def test_an_answer_that_does_not_arrive_becomes_a_failure_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may be too large for any packet."""
    monkeypatch.setattr(forwarding, "_AGAIN_S", 0.01)

    async def body() -> None:
        carried = Carried()
        await settle()
        carried.node.hung.add(ONE)
        carried.wire.exchanges[0].answer(b'{"ok":true}')
        await settle()
        carried.node.hung.clear()
        error = await carried.error()
        assert ("lost on its way" in error.failure.text, error.fate.is_fault) == (True, False)

    on_loop(body)


def test_a_question_whose_answer_does_not_arrive_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_AGAIN_S", 0.01)

    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        node.cells[TWO].answer_cells(Doubled, lambda question: question.number * 2)
        node.hung.add(ONE)
        asked = asyncio.ensure_future(node.cells[ONE].ask_cell(TWO, Doubled(1), 5))
        await settle()
        node.hung.clear()
        with pytest.raises(LookupError, match="lost on its way"):
            await asked

    on_loop(body)


@pytest.mark.parametrize("is_at_once", [True, False], ids=["at once", "later"])
def test_a_question_whose_answering_fails_says_so(is_at_once: bool, caplog: pytest.LogCaptureFixture) -> None:
    """What has failed is in the log of the cell, which goes on; the other one may tell a client."""

    async def body() -> None:
        node = JoinedCells(ONE, TWO)

        def fails_at_once(_: object) -> None:
            raise RuntimeError("broken")

        async def fails(question: object) -> None:
            fails_at_once(question)

        node.cells[TWO].answer_cells(Doubled, fails_at_once if is_at_once else fails)
        with pytest.raises(LookupError, match=r"\Ainternal error\Z"):
            await node.cells[ONE].ask_cell(TWO, Doubled(1), 5)
        assert "broken" in caplog.text

    on_loop(body)


@pytest.mark.parametrize("what", ["credit", "cancellation"])
def test_what_an_exchange_needs_is_said_again_until_it_arrives(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_AGAIN_S", 0.01)

    async def body() -> None:
        carried = Carried()
        await settle()
        (exchange,) = carried.wire.exchanges
        if what == "credit":
            for number in range(EVENT_WINDOW):
                await exchange.event(None, str(number))
            carried.node.hung.add(TWO)
        else:
            carried.node.hung.add(TWO)
            carried.task.cancel()
        await asyncio.sleep(0.05)
        assert not exchange.is_cancelled
        carried.node.hung.clear()
        if what == "credit":
            await exchange.event(None, "one more")
            exchange.answer()
            await carried.task
            assert len(carried.events) == EVENT_WINDOW + 1
        else:
            while not exchange.is_cancelled:
                await asyncio.sleep(0.01)

    on_loop(body)


def test_nothing_is_said_again_to_the_successor_of_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "_AGAIN_S", 0.01)

    async def body() -> None:
        carried = Carried()
        await settle()
        carried.node.hung.add(TWO)
        carried.task.cancel()
        await settle()
        carried.node.kill(TWO)
        carried.node.hung.clear()
        carried.node.start_again(TWO, 2)
        sent = len(carried.node.sent)
        await asyncio.sleep(0.05)
        assert len(carried.node.sent) == sent

    on_loop(body)


def test_an_owner_without_the_connection_says_that_nothing_was_sent() -> None:
    async def body() -> None:
        error = await Carried(has_wire=False).error()
        assert (error.fate.was_sent, error.fate.is_fault) == (False, False)

    on_loop(body)


def test_an_owner_that_is_being_started_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        node.kill(TWO)
        task = asyncio.ensure_future(node.cells[ONE].exchange_at(TWO, replica=STDIO, request=REQUEST, on_event=ignore))
        await settle()
        wire = ScriptedWire()
        node.start_again(TWO, 2).serve(STDIO, wire)
        await settle()
        wire.exchanges[0].answer()
        assert (await task).status == 200

        monkeypatch.setattr(forwarding, "OWNER_RETURNS_S", 0.01)
        node.kill(TWO)
        with pytest.raises(UpstreamError) as caught:
            await node.cells[ONE].exchange_at(TWO, replica=STDIO, request=REQUEST, on_event=ignore)
        assert not caught.value.fate.was_sent

    on_loop(body)


def test_late_messages_of_an_exchange_that_is_over_change_nothing() -> None:
    async def body() -> None:
        carried = Carried()
        await settle()
        carried.wire.exchanges[0].answer()
        await carried.task
        for _, to, message in list(carried.node.sent):
            if to == ONE:
                carried.asker.deliver(TWO, message)
        carried.asker.deliver(TWO, "no message of ours")

    on_loop(body)


def test_a_withdrawn_wire_is_served_no_more_but_its_successor_is() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        first, second = ScriptedWire(), ScriptedWire()
        node.cells[TWO].serve(STDIO, first)
        node.cells[TWO].serve(STDIO, second)
        node.cells[TWO].withdraw(STDIO, first)  # its actor ended after the next one had started
        task = asyncio.ensure_future(node.cells[ONE].exchange_at(TWO, replica=STDIO, request=REQUEST, on_event=ignore))
        await settle()
        second.exchanges[0].answer()
        await task

    on_loop(body)


# ---- a replica as a cell sees it that does not own it


def remote(node: JoinedCells) -> tuple[RemoteConversation, ScriptedWire]:
    replicas = (ReplicaId("files", f"stdio:files#{n}") for n in range(100))
    replica = next(each for each in replicas if node.cells[ONE].owner_of(each) == TWO)
    wire = ScriptedWire()
    node.cells[TWO].serve(replica, wire)
    return RemoteConversation(node.cells[ONE], replica), wire


def test_the_owner_knows_that_its_server_is_left_alone_as_other_cells_are_told() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        conversation, wire = remote(node)
        owner, replica = node.cells[TWO], conversation._replica
        loop = UpstreamError(Fate.TURNED_AWAY, "crash loop", retry_after_s=9.0)
        known: list[bool] = []
        for outcome in (loop, UpstreamError(Fate.BROKEN, "?"), loop, None):
            task = asyncio.ensure_future(conversation.exchange(REQUEST, ignore))
            await settle()
            if outcome is None:
                wire.exchanges[-1].answer()
            else:
                wire.exchanges[-1].fail(outcome)
            await asyncio.gather(task, return_exceptions=True)
            known.append(owner.is_left_alone(replica))
        for wire.probe_error in (loop, None, loop):
            with contextlib.suppress(UpstreamError):
                await conversation.probe(1.0)
            known.append(owner.is_left_alone(replica))
        assert known == [True, False, True, False, True, False, True]
        owner.withdraw(replica, wire)
        assert not owner.is_left_alone(replica)

    on_loop(body)


def test_every_other_cell_takes_what_one_tells() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO, "cell/2")
        taken: list[tuple[str, Doubled]] = []
        for name, cell in node.cells.items():
            cell.take_from_cells(Doubled, lambda message, name=name: taken.append((name, message)))  # type: ignore[misc]
        node.cells[TWO].tell_cells(Doubled(1))
        await settle()
        assert sorted(taken) == [(ONE, Doubled(1)), ("cell/2", Doubled(1))]

    on_loop(body)


def test_a_remote_replica_is_spoken_to_and_probed_through_its_owner() -> None:
    async def body() -> None:
        node = JoinedCells(ONE, TWO)
        conversation, wire = remote(node)
        task = asyncio.ensure_future(conversation.exchange(REQUEST, ignore))
        await settle()
        wire.exchanges[0].answer()
        assert (await task).status == 200
        await conversation.probe(1.0)
        wire.probe_error = UpstreamError(Fate.BROKEN, "it is ill")
        with pytest.raises(UpstreamError, match="it is ill"):
            await conversation.probe(1.0)
        wire.probe_error = UpstreamError(Fate.STARTING, "starting since 3 s")
        with pytest.raises(UpstreamError, match="starting") as starting:
            await conversation.probe(1.0)
        assert starting.value.fate is Fate.STARTING
        wire.probe_hangs = True
        with pytest.raises(UpstreamError, match="no answer in time"):
            await conversation.probe(0.01)
        node.kill(TWO)
        with pytest.raises(UpstreamError, match="cell/1 does not run"):
            await conversation.probe(1.0)
        await conversation.close()

    on_loop(body)
