"""The process of one cell, as the node sees it: starts the content on its loop, answers for it, carries its events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from setproctitle import setproctitle
from thespian.actors import ActorAddress, ActorExitRequest

from mcp_gateway.actors.cluster.limit_parts import NEW_PART
from mcp_gateway.actors.cluster.shared_limits import REPORT_S
from mcp_gateway.actors.events.event_outbox import EventOutbox, OutboxFull
from mcp_gateway.actors.messages.between_cells import Forwarded
from mcp_gateway.actors.messages.cluster import (
    ClusterDescribed,
    ForwardLost,
    ForwardToNode,
    LimitsAsked,
    LimitsHeld,
    NodesChanged,
    OwnershipWanted,
    OwnersTold,
)
from mcp_gateway.actors.messages.event_log import EventLogMoved, EventsDistributed, JoinEventLog, PublishEvents
from mcp_gateway.actors.messages.lifecycle import StopRequested
from mcp_gateway.actors.messages.node import (
    EVENT_LOG,
    ApplySettings,
    CellArguments,
    CellDrained,
    CellsChanged,
    CommandAnswered,
    CommandRequested,
    DrainRequested,
    NodeStatusReported,
    NodeStatusRequested,
    Ping,
    Pong,
    PublishForNode,
    SettingsApplied,
)
from mcp_gateway.actors.messages.node_link import CellContent
from mcp_gateway.actors.runtime.asyncio_actor import AsyncioActor
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from mcp_gateway.transports.protocol.topics.node_events import marked
from mcp_gateway.transports.protocol.topics.topic_log import Event
from mcp_gateway.transports.telemetry import metrics

from .cell_factory import load_cell_factory
from .cell_mail import CellMail
from .node_status import with_lag

STOP_CONTENT_S = 3.0
RESEND_INTERVAL_S = 1.0
LOG_WAIT_S = 2.0  # a cell that starts waits that long for the events so far, then serves without them until they come
NODE_CHANGE_S = 35.0  # the same: it waits for cells that start, or are ended because they hang
NODE_STATUS_S = 4.0  # the node supervisor itself waits for slow cells, but not as long


@attrs.frozen
class ContentServes:
    """Loop -> its own cell: requests are accepted."""


@attrs.frozen
class ContentDrained:
    """Loop -> its own cell, which was asked to stop: no exchange is left, or the deadline has passed."""


class CellEscalated(Exception):
    """The content asked for the end of its cell."""


class CellProcess(AsyncioActor):
    """A cell process: Thespian's main thread and one event loop with the content of the cell.

    Receives  Wiring, StopRequested, Ping, DrainRequested, NodeStatusRequested, NodeStatusReported, CommandRequested,
              CommandAnswered, ApplySettings, EventLogMoved, CellsChanged, PublishForNode (NodeSupervisor);
              EventsDistributed (EventLog); Forwarded (other cells, ClusterMember);
              NodesChanged, ForwardLost, LimitsHeld, OwnersTold (ClusterMember)
    Sends     ChildReady once the content serves, Pong from the loop, CellDrained, NodeStatusReported, NodeStatusRequested,
              CommandRequested, CommandAnswered, SettingsApplied (NodeSupervisor); JoinEventLog, PublishEvents (EventLog);
              Forwarded (other cells); ForwardToNode, LimitsAsked, OwnershipWanted (ClusterMember)
    On crash  its client connections end; events it published that the log had not stored are lost with it
    """

    IS_READY_WHEN_WIRED = False

    def __init__(self) -> None:
        super().__init__()
        self._content: CellContent | None = None  # loop thread, as everything below
        self._has_drained = False
        self._unapplied: list[tuple[ApplySettings, ActorAddress]] = []  # that have come before the content serves
        self._outbox = EventOutbox(uuid.uuid4().hex)
        self._log: ActorAddress | None = None
        self._log_incarnation: int | None = None  # unknown until the log that was there at the start has said it
        self._has_caught_up = asyncio.Event()
        self._has_asked_again = False  # for what the log has not begun to send yet
        self._is_dropping = False
        self._cells: dict[
            str, tuple[ActorAddress, int]
        ] = {}  # the other ones of the node: {name in the cluster: (address, incarnation)}
        self._mail = CellMail()
        self._nodes: NodesChanged | None = None  # None without a cluster, or before its member has said anything
        self._member: ActorAddress | None = None
        self._held = LimitsHeld(default=NEW_PART, parts={})  # of limits that the cluster shares
        self._owners: OwnersTold | None = None
        self._node_questions: dict[str, asyncio.Future[dict[str, Any]]] = {}

    # ---- wiring

    def on_wired(self) -> None:
        setproctitle(f"mcp-gateway: {self.name}")
        arguments: CellArguments = self.arguments
        self._outbox = EventOutbox(self._outbox.source, arguments.settings.transports.http_sse.retention_events)
        self.start_loop()
        if (log := self.addresses.get(EVENT_LOG)) is not None:
            self.call_loop(self._join_log, log, None)
        self.run_async(self._start_content(self.arguments))

    async def _start_content(self, arguments: CellArguments) -> None:
        factory = load_cell_factory(arguments.cell_factory)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_caught_up.wait(), LOG_WAIT_S)
        settings = self._unapplied[-1][0].settings if self._unapplied else arguments.settings
        content = factory(settings, arguments.cell_index, self._name_in_cluster(self.name), self)
        last_event_id = self._outbox.last_event_id
        await content.start()
        self._content = content
        if settings.cluster is not None:
            content.hold_limits(self._held.default, self._held.parts)
            if settings.limits.requests_per_second:
                self.run_async(self._report_limits(content))
        for waiting in self._unapplied:
            self._apply_settings(*waiting)
        content.deliver_events(self._outbox.events_after(last_event_id))
        self._tell_of_cells()
        if self._owners is not None:
            self._take_owners(self._owners)
        self.deliver(self.myAddress, ContentServes())

    def receiveMsg_ContentServes(self, message: ContentServes, sender: ActorAddress) -> None:
        self.announce_ready()

    # ---- requests: what reaches the content goes through the loop, so an answer proves that the loop lives

    def receiveMsg_Ping(self, message: Ping, sender: ActorAddress) -> None:
        self.call_loop(self.deliver, sender, Pong(name=self.name, incarnation=self.incarnation, sequence=message.sequence))

    def receiveMsg_DrainRequested(self, message: DrainRequested, sender: ActorAddress) -> None:
        self.run_async(self._drain(message.deadline_s, sender, CellDrained(name=self.name, incarnation=self.incarnation)))

    def receiveMsg_StopRequested(self, message: StopRequested, sender: ActorAddress) -> None:
        deadline_s = self.arguments.settings.gateway.drain_timeout if self.arguments is not None else 0.0
        if self.loop is None:
            super().receiveMsg_StopRequested(message, sender)
        else:
            self.run_async(self._drain(deadline_s, self.myAddress, ContentDrained(), node_ends=False))

    async def _drain(self, deadline_s: float, asker: ActorAddress, answer: object, *, node_ends: bool = True) -> None:
        """node_ends: all of it. Others may serve, cells or nodes: the loop knows, which has taken in all news of them."""
        if self._content is not None and not self._has_drained:  # what outlived one drain would outlive another one
            others: Mapping[str, object] = self._cells
            if node_ends:
                others = {} if self._nodes is None else self._nodes.cells
            await self._content.drain(deadline_s, others_serve=bool(others), node_ends=node_ends)
            self._has_drained = True
        self.deliver(asker, answer)

    def receiveMsg_ContentDrained(self, message: ContentDrained, sender: ActorAddress) -> None:
        self.send(self.myAddress, ActorExitRequest())

    def receiveMsg_NodeStatusRequested(self, message: NodeStatusRequested, sender: ActorAddress) -> None:
        self.run_async(self._report_status(message.request_id, sender))

    async def _report_status(self, request_id: str, asker: ActorAddress) -> None:
        status = await self._content.status() if self._content is not None else {}
        status = {**status, "last_event_id": self._outbox.last_event_id}
        self.deliver(asker, NodeStatusReported(request_id=request_id, name=self.name, status=status))

    def receiveMsg_NodeStatusReported(self, message: NodeStatusReported, sender: ActorAddress) -> None:
        self.call_loop(self._take_node_answer, message.request_id, message.status)

    def receiveMsg_CommandAnswered(self, message: CommandAnswered, sender: ActorAddress) -> None:
        self.call_loop(self._take_node_answer, message.request_id, message.answer)

    def _take_node_answer(self, request_id: str, answer: dict[str, Any]) -> None:
        future = self._node_questions.get(request_id)
        if future is not None and not future.done():
            future.set_result(answer)

    def receiveMsg_CommandRequested(self, message: CommandRequested, sender: ActorAddress) -> None:
        self.run_async(self._carry_out(message, sender))

    async def _carry_out(self, message: CommandRequested, asker: ActorAddress) -> None:
        if self._content is None:
            answer: dict[str, Any] = {"error": f"{self.name} is starting"}
        else:
            answer = await self._content.command(message.command, message.arguments)
        self.deliver(asker, CommandAnswered(request_id=message.request_id, answer=answer))

    def receiveMsg_ApplySettings(self, message: ApplySettings, sender: ActorAddress) -> None:
        self.call_loop(self._apply_settings, message, sender)

    def _apply_settings(self, message: ApplySettings, asker: ActorAddress) -> None:
        if self._content is None:
            self._unapplied.append((message, asker))
            return
        self._content.apply_settings(message.settings)
        self.deliver(asker, SettingsApplied(name=self.name, revision=message.revision))

    # ---- events

    def receiveMsg_EventLogMoved(self, message: EventLogMoved, sender: ActorAddress) -> None:
        self.call_loop(self._join_log, message.log, message.log_incarnation)

    def _join_log(self, log: ActorAddress, log_incarnation: int | None) -> None:
        if log_incarnation is not None and log_incarnation < (self._log_incarnation or 0):
            return
        self._log, self._log_incarnation = log, log_incarnation
        self._has_asked_again = True
        join = JoinEventLog(
            cell_name=self.name,
            source=self._outbox.source,
            last_event_id=self._outbox.last_event_id,
            recent_events=self._outbox.returnable,
            lost=self._outbox.not_returnable,
            confirmed_sequence=self._outbox.confirmed_sequence,
            unstored=self._outbox.unstored,
        )
        self.deliver(self._log, join)

    def receiveMsg_EventsDistributed(self, message: EventsDistributed, sender: ActorAddress) -> None:
        self.call_loop(self._take_events, message)

    def _take_events(self, message: EventsDistributed) -> None:
        if self._log_incarnation is None:
            self._log_incarnation = message.log_incarnation
        if message.log_incarnation != self._log_incarnation:
            return
        if message.is_catch_up:
            self._has_asked_again = False
        before_id = self.last_event_id
        fresh = self._outbox.take(message)
        if fresh is None:
            if not self._has_asked_again:  # once, for all that follows what is missing
                self._rejoin_log()
            return
        has_news = self.last_event_id > before_id or (not message.has_more and not self.is_caught_up)
        if not message.has_more:  # the first that a log says to a cell is what it has missed
            self._has_caught_up.set()
        if has_news and self._content is not None:
            self._content.deliver_events(fresh)

    def receiveMsg_PublishForNode(self, message: PublishForNode, sender: ActorAddress) -> None:
        self.call_loop(self._publish_for_node, message)

    def _publish_for_node(self, message: PublishForNode) -> None:
        metrics.events_published_total.labels(message.topic).inc()
        self.publish(message.topic, message.payload, message.timestamp_ms)

    # ---- other cells

    def receiveMsg_CellsChanged(self, message: CellsChanged, sender: ActorAddress) -> None:
        self.call_loop(self._take_cells, message)

    def _take_cells(self, message: CellsChanged) -> None:
        self._cells = {self._name_in_cluster(name): cell for name, cell in message.cells.items() if name != self.name}
        self._take_others()

    def receiveMsg_NodesChanged(self, message: NodesChanged, sender: ActorAddress) -> None:
        self.call_loop(self._take_nodes, message, sender)

    def _take_nodes(self, message: NodesChanged, member: ActorAddress) -> None:
        self._nodes, self._member = message, member
        self._take_others()

    def _take_others(self) -> None:
        self._tell_of_cells()
        for cell, early in self._mail.cells_changed(self._others()):
            self._hand_over(cell, early)

    def _others(self) -> dict[str, Any]:
        """{name in the cluster: incarnation} of the other cells, of this node and of others."""
        own = {name: incarnation for name, (_, incarnation) in self._cells.items()}
        return own if self._nodes is None else {**own, **self._nodes.cells}

    def receiveMsg_OwnersTold(self, message: OwnersTold, sender: ActorAddress) -> None:
        self.call_loop(self._take_owners, message)

    def _take_owners(self, message: OwnersTold) -> None:
        self._owners = message
        if self._content is not None:
            self._content.owners_told(message.owners, message.lease_until_s)

    def receiveMsg_ClusterDescribed(self, message: ClusterDescribed, sender: ActorAddress) -> None:
        self.call_loop(self._describe_cluster, message.status)

    def _describe_cluster(self, status: dict[str, Any]) -> None:
        if self._content is not None:
            self._content.cluster_described(with_lag(status, [self._outbox.last_event_id]))

    def _tell_of_cells(self) -> None:
        if self._content is None:
            return
        if self._nodes is not None:
            self._content.nodes_changed(self._nodes.cell_counts, is_member=self._nodes.is_member)
        self._content.cells_changed(self._others())

    def receiveMsg_LimitsHeld(self, message: LimitsHeld, sender: ActorAddress) -> None:
        self.call_loop(self._hold_limits, message)

    def _hold_limits(self, message: LimitsHeld) -> None:
        self._held = message
        if self._content is not None:
            self._content.hold_limits(message.default, message.parts)

    async def _report_limits(self, content: CellContent) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            wanted = content.limits_asked()
            if wanted and self._member is not None:
                self.deliver(self._member, LimitsAsked(wanted=wanted))

    def _name_in_cluster(self, cell_name: str) -> str:
        settings: Settings = self.arguments.settings
        return settings.name_in_cluster(cell_name)

    def receiveMsg_Forwarded(self, message: Forwarded, sender: ActorAddress) -> None:
        self.call_loop(self._take_forwarded, message)

    def _take_forwarded(self, message: Forwarded) -> None:
        lost_before = self._mail.lost_count
        if self._mail.is_due(message.from_cell, message.incarnation, message.message):
            self._hand_over(message.from_cell, message.message)
        metrics.bounds_reached_total.labels("early_mail").inc(self._mail.lost_count - lost_before)

    def _hand_over(self, from_cell: str, message: object) -> None:
        if self._content is not None:
            self._content.deliver_forwarded(from_cell, message)

    def _fail_forwarded(self, target: ActorAddress, messages: tuple[object, ...]) -> None:
        name = next((name for name, (address, _) in self._cells.items() if address == target), None)
        if name is not None and self._content is not None:
            self._content.forward_failed(name, messages)

    def receiveMsg_ForwardLost(self, message: ForwardLost, sender: ActorAddress) -> None:
        self.call_loop(self._lose_forward, message.forward, message.is_unsent)

    def _lose_forward(self, forward: ForwardToNode, is_unsent: bool) -> None:
        if self._content is not None:
            self._content.forward_failed(forward.to_cell, (forward.message,), is_unsent=is_unsent)

    def on_undeliverable(self, target: ActorAddress, messages: Sequence[object], reason: str) -> None:
        forwarded = tuple(each.message for each in messages if isinstance(each, Forwarded))
        if forwarded:
            self.call_loop(self._fail_forwarded, target, forwarded)
        elif any(isinstance(message, ForwardToNode) for message in messages):
            for message in messages:  # what else the member was told is told again
                if isinstance(message, ForwardToNode):
                    self.call_loop(self._lose_forward, message, False)
        elif any(isinstance(message, (PublishEvents, JoinEventLog)) for message in messages):
            # Kept in the outbox. Whichever log there is by then is joined: a new one may have been announced before the end of
            # what was on its way to the old one is known.
            self.start_timer("rejoin_log", RESEND_INTERVAL_S)
        else:
            super().on_undeliverable(target, messages, reason)

    def receiveTimer_rejoin_log(self, _payload: object) -> None:
        self.call_loop(self._rejoin_log)

    def _rejoin_log(self) -> None:
        if self._log is not None:
            self._join_log(self._log, self._log_incarnation)

    # ---- NodeLink, for the content

    @property
    def is_caught_up(self) -> bool:
        return self._has_caught_up.is_set()

    @property
    def lost(self) -> LostIds:
        return self._outbox.lost

    @property
    def last_event_id(self) -> int:
        return self._outbox.last_event_id

    def events_after(self, event_id: int) -> list[Event]:
        return self._outbox.events_after(event_id)

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        try:
            cluster = self.arguments.settings.cluster
            told = marked(topic, payload, "" if cluster is None else cluster.node)
            event = self._outbox.publish(topic, told, timestamp_ms)
        except OutboxFull:
            if not self._is_dropping:
                self.log(logging.ERROR, "the event log takes nothing and the outbox is full: events are dropped")
            self._is_dropping = True
            return
        self._is_dropping = False
        if self._log is not None:
            self.deliver(self._log, PublishEvents(events=(event,)))

    def forward(self, cell_name: str, message: object) -> None:
        own_name = self._name_in_cluster(self.name)
        if cell_name in self._cells:
            forwarded = Forwarded(from_cell=own_name, incarnation=self.incarnation, message=message)
            self.deliver(self._cells[cell_name][0], forwarded)
        elif self._nodes is not None and self._member is not None and cell_name in self._nodes.cells:
            to_node = ForwardToNode(
                to_cell=cell_name,
                from_cell=own_name,
                incarnation=self.incarnation,
                to_incarnation=self._nodes.cells[cell_name][-1],
                message=message,
            )
            self.deliver(self._member, to_node)
        else:
            raise LookupError(f"{cell_name} does not run")

    def want(self, thing: str) -> None:
        if self._member is not None:
            self.deliver(self._member, OwnershipWanted(thing))

    async def change(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        request_id = uuid.uuid4().hex
        question = CommandRequested(request_id=request_id, command=command, arguments=arguments)
        return await self._ask_node(request_id, question, NODE_CHANGE_S)

    async def node_status(self) -> dict[str, Any]:
        request_id = uuid.uuid4().hex
        return await self._ask_node(request_id, NodeStatusRequested(request_id=request_id), NODE_STATUS_S)

    async def _ask_node(self, request_id: str, question: object, timeout_s: float) -> dict[str, Any]:
        """Raises: TimeoutError"""
        future = self._node_questions[request_id] = asyncio.get_running_loop().create_future()
        try:
            self.deliver(self.addresses["supervisor"], question)
            return await asyncio.wait_for(future, timeout_s)
        finally:
            del self._node_questions[request_id]

    def request_stop(self, reason: str) -> None:
        self.fail_from_loop(CellEscalated(reason))

    # ---- lifecycle

    def on_exit(self) -> None:
        if self._content is None or self.loop is None:
            return
        stopping = asyncio.run_coroutine_threadsafe(self._content.stop(), self.loop)
        try:
            stopping.result(STOP_CONTENT_S)
        except TimeoutError:
            self.log(logging.WARNING, "the content of the cell did not stop in time")
