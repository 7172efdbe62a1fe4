"""Passing work to the cell that owns it: a client's stream, a server's process, a call that waits for its client.

Everything between cells is an actor message; this is where the event loop of a cell waits for the answers. In a cluster the cells
of other nodes are among the others, under names that begin with their node's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from mcp_gateway.actors.messages.between_cells import (
    CellAnswered,
    CellAsked,
    CellLeaves,
    ExchangeForwarded,
    ExchangeGivenUp,
    ExchangePutOff,
    ForwardedAnswer,
    ForwardedEvent,
    ForwardedEventsTaken,
    ForwardedFailure,
    WireProbed,
)
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.transports.ports.cell_names import node_of
from mcp_gateway.transports.ports.credit import EVENT_WINDOW, Credit
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message
from mcp_gateway.transports.protocol.sealed.session import SessionState

from .holdings import Holdings
from .owners import Owners

_logger = logging.getLogger(__name__)

OWNER_RETURNS_S = 3.0
"""How long an exchange waits for an owner that is being started again."""

UNREACHABLE_AGAIN_S = 5.0
"""When a client may try again whose owner's node is cut off: a presence ends in twice that time, and then it is known."""

SUCCESSOR_COMES_S = 10.0
"""How long one waits that a cell has put off: it ends in order first, and that takes longer than to be killed."""

_ON_ITS_WAY_S = 0.1
"""What other cells have sent before they knew that this one leaves is here by then, and is put off."""

_LOOK_S = 0.02

_GRACE_S = 1.0
"""After an exchange's own deadline, which the owner keeps and reports."""

_AGAIN_S = 1.0
"""Until what did not reach a cell is said to it again."""


CarryOut = Callable[[int, UpstreamRequest, EventHandler], Awaitable[UpstreamAnswer]]


@attrs.define(eq=False)
class _Sent:
    """An exchange that another cell carries out for this one. outcomes: what has come back, in order.

    cell: "" while it waits for the successor of one that has put it off.
    """

    cell: str
    outcomes: asyncio.Queue[ForwardedEvent | ForwardedAnswer | ExchangePutOff | UpstreamError] = attrs.field(
        factory=asyncio.Queue
    )

    def fail(self, fate: Fate, text: str) -> None:
        self.outcomes.put_nowait(UpstreamError(fate, text))


@attrs.define(eq=False)
class _Carried:
    """An exchange that this cell carries out for another one. has_end: of a stream nobody knows when it will end."""

    cell: str
    has_end: bool = True
    task: asyncio.Task[None] | None = None
    credit: Credit = attrs.field(factory=lambda: Credit(EVENT_WINDOW))
    is_given_up: bool = False

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self.is_given_up = True
        if self.task is not None:
            self.task.cancel()


class Forwarding:
    """One cell's side of all that is forwarded. Everything runs on the cell's loop. Implements `upstream_port.Elsewhere`.

    A cell that ends takes with it what it carried out: whoever waited for it is told, and nothing is tried twice.
    """

    def __init__(self, link: NodeLink, cell_name: str, cell_count: int) -> None:
        self._link = link
        self.cell_name = cell_name
        self._owners = Owners(cell_name, cell_count)
        self._running: dict[str, object] = {}  # {name of another cell: incarnation}
        self.view_number = 0
        """Rises when another cell, or another node, has come or gone."""
        self._has_changed = asyncio.Event()
        self._answerers: dict[type, Callable[[Any], Any]] = {}
        self._takers: dict[type, Callable[[Any], None]] = {}
        self.holdings = Holdings(self._owners.node, link.want)
        self._wires: dict[ReplicaId, UpstreamConversation] = {}
        self._owned: dict[ReplicaId, CarryOut] = {}  # of those of them that the cluster has once
        self._left_alone: set[ReplicaId] = set()  # whose wire has told another cell last that it waits with its server
        self._asked: dict[str, tuple[str, asyncio.Future[Any]]] = {}
        self._sent: dict[str, _Sent] = {}
        self._carried: dict[str, _Carried] = {}
        # Ids of an earlier incarnation of this cell must not meet ours.
        self._own = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._tasks = HeldTasks()
        self._is_leaving = False
        self._leaving: dict[str, object] = {}  # {cell: its incarnation that leaves}
        self._is_closed = False
        self.answer_cells(WireProbed, self._probe)

    # ---- who is there

    @property
    def node(self) -> str:
        """The name of this node in its cluster, "" where it is alone."""
        return self._owners.node

    @property
    def other_cells(self) -> frozenset[str]:
        return frozenset(self._running)

    def nodes_changed(self, cell_counts: Mapping[str, int], *, is_member: bool) -> None:
        """As `CellContent.nodes_changed`."""
        self.view_number += self._owners.nodes_changed(cell_counts, is_member=is_member)

    def is_gone(self, cell_name: str) -> bool:
        """Whether the cell's node has left the cluster, so that what it held will not be heard of again."""
        return self._owners.is_gone(cell_name)

    def cells_changed(self, running: Mapping[str, object]) -> None:
        """These other cells run, {name: incarnation}; what a cell did that has ended since has ended with it."""
        lost = [name for name, incarnation in self._running.items() if running.get(name) != incarnation]
        self.view_number += running != self._running
        self._running = dict(running)
        self._has_changed.set()
        self._has_changed = asyncio.Event()
        for name in lost:
            self._forget_cell(name)

    def owner_of(self, replica: ReplicaId) -> str:
        """The cell of this node that holds the connection to this replica; this one where any cell may speak to it."""
        return self._owners.owner_of(replica)

    def owner_for(self, replica: ReplicaId, session: SessionState | None) -> str:
        """The cell, of any node, that holds the connection to this replica which this session has.

        Raises: UpstreamError with `owner_unreachable`, where that cannot be known, or reached, now.
        """
        owner = self._owners.owner_for(replica, session)
        if owner is None:
            raise owner_unreachable(f"node {'' if session is None else session.node}")
        return owner

    def cell_at(self, node: str, replica: ReplicaId) -> str:
        """The cell that holds the connection to this replica on a node."""
        return self._owners.cell_at(node, replica)

    def speakers_beside(self, replica: ReplicaId) -> frozenset[str]:
        """The other cells that speak to this replica by a connection of their own; none where the cluster has it once."""
        return frozenset() if replica in self._owned else self._owners.speakers(replica, self.other_cells)

    def _forget_cell(self, name: str) -> None:
        for question_id, (cell, future) in list(self._asked.items()):
            if cell == name:
                del self._asked[question_id]
                if not future.done():
                    future.set_exception(LookupError(f"{name} has ended"))
        for sent in list(self._sent.values()):
            if sent.cell == name:
                sent.fail(Fate.CELL_LOST, f"{name}, which held the connection to the server, has ended")
        for carried in list(self._carried.values()):
            if carried.cell == name:
                carried.give_up()

    # ---- questions

    def answer_cells(self, kind: type, answer: Callable[[Any], Any]) -> None:
        """Answer questions of this class that other cells ask."""
        self._answerers[kind] = answer

    async def ask_cell(self, cell_name: str, question: object, timeout_s: float) -> Any:
        """The other cell's answer.

        Raises: LookupError where the cell does not run, or ends first, or cannot answer; TimeoutError.
        """
        question_id = self._next_id()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked[question_id] = (cell_name, future)
        try:
            self._link.forward(cell_name, CellAsked(question_id=question_id, question=question))
            return await asyncio.wait_for(future, timeout_s)
        finally:
            self._asked.pop(question_id, None)

    # ---- exchanges with servers

    def serve(self, replica: ReplicaId, wire: UpstreamConversation) -> None:
        """Other cells may speak to this replica by this wire, until `withdraw`."""
        self._wires[replica] = wire

    def serve_owned(self, replica: ReplicaId, wire: UpstreamConversation, carry_out: CarryOut) -> None:
        """The same for what the cluster has once; other nodes, which know this one as its owner, are served by `carry_out`."""
        self.serve(replica, wire)
        self._owned[replica] = carry_out

    def withdraw(self, replica: ReplicaId, wire: UpstreamConversation) -> None:
        if self._wires.get(replica) is wire:
            del self._wires[replica]
            self._owned.pop(replica, None)
            self._left_alone.discard(replica)

    def is_left_alone(self, replica: ReplicaId) -> bool:
        """Whether other cells, which speak to this replica by the wire of this one, are told when it tries its server again."""
        return replica in self._left_alone

    def _note(self, replica: ReplicaId, failure: Failure | None) -> None:
        """How an exchange or a probe of another cell has ended."""
        is_left_alone = failure is not None and failure.retry_after_s is not None
        (self._left_alone.add if is_left_alone else self._left_alone.discard)(replica)

    def tell_cells(self, message: object) -> None:
        """Let every other cell of the node have the message, of a class that it takes (`take_from_cells`).

        What is lost is not said again.
        """
        for cell_name in self.other_cells:
            if self._owners.is_of_node(cell_name):
                self._forward(cell_name, message)

    def tell_node(self, node: str, message: object) -> None:
        """Let one cell of another node have the message; what is lost is not said again."""
        cell_name = next((name for name in sorted(self._running) if node_of(name) == node), None)
        if cell_name is not None:
            self._forward(cell_name, message)

    def take_from_cells(self, kind: type, take: Callable[[Any], None]) -> None:
        """Take messages of this class that other cells tell."""
        self._takers[kind] = take

    async def exchange_at(
        self, cell_name: str, *, replica: ReplicaId, request: UpstreamRequest, on_event: EventHandler, token: int = 0
    ) -> UpstreamAnswer:
        await self._wait_for_cell(cell_name, request.timeout_s)
        exchange_id = self._next_id()
        sent = self._sent[exchange_id] = _Sent(cell_name)
        forwarded = ExchangeForwarded(exchange_id=exchange_id, replica=replica, request=request, token=token)
        is_over = False
        try:
            self._forward(cell_name, forwarded)
            async with asyncio.timeout(None if request.timeout_s is None else request.timeout_s + _GRACE_S):
                while True:
                    outcome = await sent.outcomes.get()
                    if isinstance(outcome, ForwardedEvent):
                        await on_event(outcome.message, outcome.event_id)
                        self._forward(cell_name, ForwardedEventsTaken(exchange_id=exchange_id, event_count=1))
                        continue
                    if isinstance(outcome, ExchangePutOff):
                        await self._wait_for_cell(cell_name, request.timeout_s)
                        sent.cell = cell_name
                        self._forward(cell_name, forwarded)
                        continue
                    is_over = True
                    if isinstance(outcome, UpstreamError):
                        raise outcome
                    return outcome.answer
        except TimeoutError:
            text = f"{cell_name}, which holds the connection to the server, did not answer in time"
            raise UpstreamError(Fate.ENDED, text, reason="upstream_timeout") from None  # the server may be well
        finally:
            del self._sent[exchange_id]
            if not is_over:
                self._forward(cell_name, ExchangeGivenUp(exchange_id=exchange_id))

    async def _wait_for_cell(self, cell_name: str, timeout_s: float | None) -> None:
        """Until it runs, and does not leave.

        Raises: UpstreamError
        """
        if self.is_gone(cell_name):
            raise UpstreamError(Fate.CELL_LOST, f"the node of {cell_name}, which held the connection to the server, is gone")
        if self._owners.is_cut_off_from(cell_name):
            raise owner_unreachable(cell_name)
        most_s = SUCCESSOR_COMES_S if cell_name in self._leaving else OWNER_RETURNS_S
        try:
            async with asyncio.timeout(most_s if timeout_s is None else min(most_s, timeout_s)):
                while self._running.get(cell_name) in (None, self._leaving.get(cell_name)):
                    await self._has_changed.wait()
        except TimeoutError:
            text = f"{cell_name}, which holds the connection to the server, does not run"
            raise UpstreamError(Fate.TURNED_AWAY, text) from None

    # ---- what other cells say

    def deliver(self, from_cell: str, message: object) -> None:
        """Take a message of another cell."""
        if isinstance(message, CellAsked):
            self._answer(from_cell, message)
        elif isinstance(message, CellAnswered):
            self._take_answer(message)
        elif isinstance(message, ExchangeForwarded):
            self._carry_out(from_cell, message)
        elif isinstance(message, CellLeaves):
            self._note_leaving(from_cell)
        elif isinstance(message, ExchangeGivenUp):
            self._give_up(message.exchange_id)
        elif isinstance(message, ForwardedEventsTaken):
            carried = self._carried.get(message.exchange_id)
            if carried is not None:
                carried.credit.grant(message.event_count)
        elif isinstance(message, ForwardedEvent | ForwardedAnswer | ForwardedFailure | ExchangePutOff):
            self._take_outcome(message)
        elif (take := self._takers.get(type(message))) is not None:
            take(message)
        else:
            _logger.warning("stray mail from %s: %s", from_cell, type(message).__name__)

    def failed(self, cell_name: str, messages: tuple[object, ...], *, is_unsent: bool = False) -> None:
        """These messages did not reach the cell, which hangs or has ended; what waits for them is answered at once.

        is_unsent: they have certainly not, so that another try is safe.
        """
        lost: list[str] = []
        for message in messages:
            if isinstance(message, CellAsked) and (asked := self._asked.get(message.question_id)) is not None:
                if not asked[1].done():
                    asked[1].set_exception(LookupError(f"{cell_name} does not take messages"))
            elif isinstance(message, ExchangeForwarded) and (sent := self._sent.get(message.exchange_id)) is not None:
                text = f"{cell_name}, which holds the connection to the server, takes no messages"
                sent.outcomes.put_nowait(owner_unreachable(cell_name) if is_unsent else UpstreamError(Fate.ENDED, text))
            elif isinstance(message, ForwardedEvent):
                carried = self._carried.get(message.exchange_id)
                if carried is not None and not carried.is_given_up:  # its reader would wait for ever for an event that is lost
                    carried.give_up()
                    lost.append(message.exchange_id)
            elif isinstance(message, ForwardedAnswer):  # perhaps it is too large, and what is said instead is not
                lost.append(message.exchange_id)
            elif isinstance(message, CellAnswered) and not message.error_text:
                text = f"the answer of {self.cell_name} was lost on its way"
                self._forward_later(cell_name, CellAnswered(question_id=message.question_id, error_text=text))
            elif isinstance(message, ExchangeGivenUp | ForwardedEventsTaken | ForwardedFailure | ExchangePutOff | CellAnswered):
                self._forward_later(cell_name, message)
        text = f"what {self.cell_name} said was lost on its way"
        failure = Failure(Fate.ENDED, text)
        for exchange_id in lost:
            self._forward_later(cell_name, ForwardedFailure(exchange_id=exchange_id, failure=failure))

    def _answer(self, from_cell: str, asked: CellAsked) -> None:
        answerer = self._answerers.get(type(asked.question))
        if answerer is None:
            text = f"{self.cell_name} answers no {type(asked.question).__name__}"
            self._forward(from_cell, CellAnswered(question_id=asked.question_id, error_text=text))
            return
        try:
            answer = answerer(asked.question)
        except Exception:
            self._forward(from_cell, _not_answered(from_cell, asked.question_id))
            return
        if asyncio.iscoroutine(answer):
            self._tasks.start(self._answer_later(from_cell, asked.question_id, answer))
        else:
            self._forward(from_cell, CellAnswered(question_id=asked.question_id, answer=answer))

    async def _answer_later(self, from_cell: str, question_id: str, answer: Any) -> None:
        try:
            answered = CellAnswered(question_id=question_id, answer=await answer)
        except Exception:
            answered = _not_answered(from_cell, question_id)
        self._forward(from_cell, answered)

    def _take_answer(self, answered: CellAnswered) -> None:
        _, future = self._asked.get(answered.question_id, ("", None))
        if future is None or future.done():
            return
        if answered.error_text:
            future.set_exception(LookupError(answered.error_text))
        else:
            future.set_result(answered.answer)

    def _take_outcome(self, message: ForwardedEvent | ForwardedAnswer | ForwardedFailure | ExchangePutOff) -> None:
        sent = self._sent.get(message.exchange_id)
        if sent is not None:
            if isinstance(message, ExchangePutOff):
                self._note_leaving(sent.cell)
                sent.cell = ""  # the end of that cell is none of this exchange
            sent.outcomes.put_nowait(UpstreamError.of(message.failure) if isinstance(message, ForwardedFailure) else message)

    # ---- what is carried out for other cells

    async def leave(self, until_s: float) -> None:
        """Put off what other cells ask for from now on, and let what was begun for them end. until_s: on the monotonic clock."""
        self._is_leaving = True
        self.tell_cells(CellLeaves())
        told_s = time.monotonic() + _ON_ITS_WAY_S
        while time.monotonic() < min(told_s, until_s) or (self._has_to_end() and time.monotonic() < until_s):
            await asyncio.sleep(_LOOK_S)

    def _has_to_end(self) -> bool:
        return any(carried.has_end for carried in self._carried.values())

    def _note_leaving(self, cell_name: str) -> None:
        self._leaving[cell_name] = self._running.get(cell_name)

    def _carry_out(self, from_cell: str, forwarded: ExchangeForwarded) -> None:
        if self._is_leaving:
            self._forward(from_cell, ExchangePutOff(exchange_id=forwarded.exchange_id))
            return
        has_end = forwarded.request.timeout_s is not None
        carried = self._carried[forwarded.exchange_id] = _Carried(from_cell, has_end)
        carried.task = self._tasks.start(self._play(carried, forwarded))
        carried.task.add_done_callback(lambda _: self._carried.pop(forwarded.exchange_id, None))

    def _give_up(self, exchange_id: str) -> None:
        carried = self._carried.get(exchange_id)
        if carried is not None:
            carried.give_up()

    async def _play(self, carried: _Carried, forwarded: ExchangeForwarded) -> None:
        exchange_id = forwarded.exchange_id

        async def on_event(message: Message | None, event_id: str | None) -> None:
            await carried.credit.take(0 if message is None else jsonrpc.size_bytes(message))
            self._forward(carried.cell, ForwardedEvent(exchange_id=exchange_id, message=message, event_id=event_id))

        try:
            wire = self._wires.get(forwarded.replica)
            if wire is None:
                text = f"{self.cell_name} has no connection to this replica now"
                raise UpstreamError(Fate.TURNED_AWAY, text)
            carry_out = None if self._owners.is_of_node(carried.cell) else self._owned.get(forwarded.replica)
            if carry_out is None:
                answer = await wire.exchange(forwarded.request, on_event)
            else:  # not by the wire: that would look for an owner again, and send it on
                answer = await carry_out(forwarded.token, forwarded.request, on_event)
        except UpstreamError as error:
            self._note(forwarded.replica, error.failure)
            outcome: object = ForwardedFailure(exchange_id=exchange_id, failure=error.failure)
        except asyncio.CancelledError:
            if carried.is_given_up:
                raise
            # By whoever owns the connection: a session that was ended, or evicted, with calls under way.
            ended = Failure(Fate.ENDED, "the connection ended the call")
            outcome = ForwardedFailure(exchange_id=exchange_id, failure=ended)
        except Exception:  # a defect of ours must not leave the other cell waiting
            _logger.exception("an exchange for %s failed", carried.cell)
            outcome = ForwardedFailure(exchange_id=exchange_id, failure=Failure(Fate.ENDED, "internal error"))
        else:
            self._note(forwarded.replica, None)
            outcome = ForwardedAnswer(exchange_id=exchange_id, answer=answer)
        self._forward(carried.cell, outcome)

    async def _probe(self, question: WireProbed) -> Failure | None:
        wire = self._wires.get(question.replica)
        if wire is None:
            return Failure(Fate.BROKEN, "not connected")
        try:
            async with asyncio.timeout(question.timeout_s):
                await wire.probe(question.timeout_s)
        except UpstreamError as error:
            self._note(question.replica, error.failure)
            return error.failure
        except TimeoutError:
            return Failure(Fate.BROKEN, "no answer in time")
        self._note(question.replica, None)
        return None

    # ---- parts

    def close(self) -> None:
        """End what is carried out for others: the cell stops."""
        self._is_closed = True
        for carried in list(self._carried.values()):
            carried.give_up()
        self._tasks.cancel()

    def _forward(self, cell_name: str, message: object) -> None:
        try:
            self._link.forward(cell_name, message)
        except LookupError:  # it has ended: `cells_changed` says so, or has said so, to whom it concerns
            self.failed(cell_name, (message,))

    def _forward_later(self, cell_name: str, message: object) -> None:
        """Say it to the same cell, not to its successor, after a while; what cannot be said then comes here again."""
        incarnation = self._running.get(cell_name)

        def say() -> None:
            if incarnation is not None and self._running.get(cell_name) == incarnation and not self._is_closed:
                self._forward(cell_name, message)

        asyncio.get_running_loop().call_later(_AGAIN_S, say)

    def _next_id(self) -> str:
        return f"{self._own}:{next(self._numbers)}"


def _not_answered(asker: str, question_id: str) -> CellAnswered:
    """While an error is handled, a defect of ours: it must neither leave the other cell waiting nor end this one."""
    _logger.exception("a question of %s was not answered", asker)
    return CellAnswered(question_id=question_id, error_text="internal error")


def owner_unreachable(who: str) -> UpstreamError:
    """Nothing was sent: it is not known, or cannot be reached now, who holds what is asked for."""
    text = f"{who}, which holds the connection to the server, cannot be reached now"
    return UpstreamError(Fate.TURNED_AWAY, text, reason="owner_unreachable", retry_after_s=UNREACHABLE_AGAIN_S)
