"""The process of a node that is its member in the cluster: what other nodes say comes in here, and goes out from here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from setproctitle import setproctitle
from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.between_cells import Forwarded
from mcp_gateway.actors.messages.cluster import (
    ChangeSpread,
    ClusterDescribed,
    ClusterMemberArguments,
    ForwardLost,
    ForwardToNode,
    LimitsAsked,
    LimitsHeld,
    NodesChanged,
    Ownership,
    OwnershipWanted,
    OwnersTold,
    OwnRevocations,
    ShareRevocations,
    ShareSettings,
)
from mcp_gateway.actors.messages.lifecycle import StopRequested
from mcp_gateway.actors.messages.node import (
    NODE_SUPERVISOR,
    TAKE_REVOCATIONS,
    TAKE_SETTINGS,
    CellsChanged,
    CommandAnswered,
    CommandRequested,
    DrainRequested,
    Ping,
    Pong,
)
from mcp_gateway.actors.runtime.asyncio_actor import AsyncioActor
from mcp_gateway.actors.runtime.system_key import load_secrets
from mcp_gateway.actors.storage.quota_file import QuotaFile
from mcp_gateway.actors.storage.taken_settings import keep_taken_number, taken_number
from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.telemetry import metrics

from .configured_engine import connect
from .engine import EngineAway, WrongRevision
from .limit_parts import Held
from .member import Member
from .membership import Presence, remote_cells, remote_incarnation
from .node_packets import packet_cipher
from .shared_limits import SharedLimits
from .shared_quotas import SharedQuotas
from .shared_revocations import SharedRevocations, change_between
from .shared_settings import ClusterSettingsState, SharedSettings

LEAVE_S = 3.0
"""To tell the others that the node goes: as long as the engine may take for one answer. It takes 0.02 s with one NATS server and
0.14 s with three, on two cores with eight processes that want them. The launcher gives the end of the whole node five seconds
after the drain, and the cells end before this: more would be taken from them."""

_DESCRIBE_S = 1.0
_SPREAD_S = 15.0  # a node that hangs is no member any more by then
_LOOK_S = 0.05
_NOT_SPREAD = "this node has taken it; the others take it as soon as they and this one reach the cluster"
_SHARED = ("revocations", "settings")  # what all nodes of a cluster have, by number


class ClusterMember(AsyncioActor):
    """One node's membership as a process of its node. It is no part of any call but those that another node has to answer.

    Receives  Wiring, Ping, CellsChanged, DrainRequested, StopRequested, OwnRevocations, ShareRevocations, ShareSettings,
              CommandAnswered (NodeSupervisor); ForwardToNode (cells, NodeSupervisor), LimitsAsked, OwnershipWanted (cells)
    Sends     Pong, ChangeSpread, CommandRequested (NodeSupervisor); NodesChanged, OwnersTold, LimitsHeld (cells);
              ClusterDescribed, Forwarded, ForwardLost (cells, NodeSupervisor)
    On crash  what was on its way to and from other nodes is lost: the next one joins under another epoch, by which both sides
              know. Until then the cells serve what needs no other node
    """

    def __init__(self) -> None:
        super().__init__()
        self._member: Member | None = None  # loop thread, as everything below
        self._running: asyncio.Task[None] | None = None
        self._cells: dict[str, ActorAddress] = {}  # of this node, by their names within it
        self._told: dict[str, int] = {}  # {cell: incarnation} of those that know of the other nodes
        self._shared: SharedRevocations | None = None
        self._revocations = Revocations()
        self._knows_revocations = asyncio.Event()
        self._settings: SharedSettings | None = None
        self._limits: SharedLimits | None = None
        self._held = Held()  # by this node, of limits that the cluster shares
        self._others: NodesChanged = NodesChanged(cells={}, cell_counts={}, is_member=False)
        self._owners = OwnersTold(owners={}, lease_until_s=0.0)

    # ---- wiring

    def on_wired(self) -> None:
        setproctitle(f"mcp-gateway: {self.name}")
        self._cipher = packet_cipher(*load_secrets(Path(self.arguments.settings.key_file).expanduser()))
        self.start_loop()
        self.run_async(self._run(self.arguments))

    async def _run(self, arguments: ClusterMemberArguments) -> None:
        settings = arguments.settings
        own = Presence(
            node=settings.node,
            epoch=0,
            incarnation=arguments.node_incarnation,
            cell_count=arguments.cell_count,
            version=VERSION,
            url=arguments.url,
        )
        self._member = Member(lambda: connect(settings, arguments.retention_events), own, self._cipher, self)
        self._member.describe(cells=dict(self._told))
        self._running = asyncio.ensure_future(self._member.run())
        shared = [self._share(self._member), self._share_settings(self._member), self._share_limits(self._member)]
        if arguments.quota_path is not None:
            shared.append(self._share_quotas(self._member, QuotaFile(arguments.quota_path, settings.node)))
        tasks = [self._running, *(asyncio.ensure_future(each) for each in (self._describe_often(), *shared))]
        try:
            await asyncio.gather(*tasks)  # each of them goes on until the end, or has a defect
        finally:
            for task in tasks:
                task.cancel()

    # ---- revocations

    def receiveMsg_OwnRevocations(self, message: OwnRevocations, sender: ActorAddress) -> None:
        self.call_loop(self._take_own_revocations, message.revocations)

    def _take_own_revocations(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._knows_revocations.set()

    async def _share(self, member: Member) -> None:
        await self._knows_revocations.wait()
        engine = await member.connected()
        self._shared = SharedRevocations(engine, self._cipher, self._revocations, self._tell_revocations)
        await self._shared.run()

    def _tell_revocations(self, number: int, revocations: Revocations) -> None:
        arguments = {"revocations": revocations}
        request = CommandRequested(request_id=f"revocations {number}", command=TAKE_REVOCATIONS, arguments=arguments)
        self.deliver(self.addresses["supervisor"], request)

    def receiveMsg_CommandAnswered(self, message: CommandAnswered, sender: ActorAddress) -> None:
        about, _, request_id = message.request_id.rpartition(" ")
        if about not in _SHARED:  # it is the supervisor of the node that asks
            own = f"{self.arguments.settings.node}/{NODE_SUPERVISOR}"
            answered = CommandAnswered(request_id=request_id, answer=message.answer)
            self.call_loop(self._forward, ForwardToNode(to_cell=about, from_cell=own, message=answered))
        elif message.answer.get("ok"):
            self.call_loop(self._say_taken, about, int(request_id))
        else:
            self.log(logging.ERROR, f"the {about} of the cluster were not taken: {message.answer}")

    def _say_taken(self, shared: str, number: int) -> None:
        if self._member is not None:
            self._member.describe(**{shared: number})

    def receiveMsg_ShareRevocations(self, message: ShareRevocations, sender: ActorAddress) -> None:
        self.run_async(self._spread(message, sender))

    async def _spread(self, message: ShareRevocations, asker: ActorAddress) -> None:
        error_text = _NOT_SPREAD
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SPREAD_S):
                while self._shared is None or self._member is None:
                    await asyncio.sleep(_LOOK_S)
                number = await asyncio.shield(self._shared.change(change_between(message.before, message.after)))
                while behind := self._member.behind(revocations=number):
                    error_text = f"not taken yet by {', '.join(behind)}: {_NOT_SPREAD}"
                    await asyncio.sleep(_LOOK_S)
                error_text = ""
        self.deliver(asker, ChangeSpread(request_id=message.request_id, error_text=error_text))

    # ---- settings

    async def _share_settings(self, member: Member) -> None:
        engine = await member.connected()
        state_path = self.arguments.state_path
        lowest = 0 if state_path is None else taken_number(state_path)
        self._settings = SharedSettings(engine, self._cipher, self._tell_settings, lowest=lowest, keep=self._keep_settings_number)
        await self._settings.run()

    def _keep_settings_number(self, number: int) -> None:
        if self.arguments.state_path is not None:
            try:
                keep_taken_number(self.arguments.state_path, number)
            except OSError as error:
                self.log(logging.WARNING, f"after its next start this node may take older settings than it has now: {error}")

    def _tell_settings(self, state: ClusterSettingsState) -> None:
        arguments = {"number": state.number, "file": state.file, "before": state.before, "tables": state.tables}
        request = CommandRequested(request_id=f"settings {state.number}", command=TAKE_SETTINGS, arguments=arguments)
        self.deliver(self.addresses["supervisor"], request)

    def receiveMsg_ShareSettings(self, message: ShareSettings, sender: ActorAddress) -> None:
        self.run_async(self._spread_settings(message, sender))

    async def _spread_settings(self, message: ShareSettings, asker: ActorAddress) -> None:
        error_text = await self._change_settings(message)
        self.deliver(asker, ChangeSpread(request_id=message.request_id, error_text=error_text))

    async def _change_settings(self, message: ShareSettings) -> str:
        """Why the settings are not those of all nodes now, or ""."""
        if self._member is None or self._settings is None or not self._member.members():
            return "the cluster cannot be reached: nothing has changed"
        error_text = "the cluster does not answer: see `backends` for what runs"
        try:
            async with asyncio.timeout(_SPREAD_S):
                number = await self._settings.change(message.taken, message.file, message.before, message.tables)
                while behind := self._member.behind(settings=number):
                    error_text = f"not taken yet by {', '.join(behind)}; see there, and the log"
                    await asyncio.sleep(_LOOK_S)
                return ""
        except WrongRevision:
            return "another node has changed something at the same time: nothing has changed, say it again"
        except ValueError as error:
            return f"too large for the cluster, nothing has changed: {error}"
        except (EngineAway, TimeoutError):
            return error_text

    # ---- limits

    async def _share_limits(self, member: Member) -> None:
        engine = await member.connected()
        self._limits = SharedLimits(engine, self._cipher, member, self._tell_limits)
        await self._limits.run()

    def _tell_limits(self, held: Held) -> None:
        self._held = held
        for address in self._cells.values():
            self.deliver(address, LimitsHeld(default=held.default, parts=held.parts))

    async def _share_quotas(self, member: Member, file: QuotaFile) -> None:
        engine = await member.connected()
        await SharedQuotas(engine, self._cipher, member, file).run()

    def receiveMsg_LimitsAsked(self, message: LimitsAsked, sender: ActorAddress) -> None:
        self.call_loop(self._take_asked, message)

    def _take_asked(self, message: LimitsAsked) -> None:
        if self._limits is not None:
            self._limits.asked(message.wanted)

    def receiveMsg_Ping(self, message: Ping, sender: ActorAddress) -> None:
        self.call_loop(self.deliver, sender, Pong(name=self.name, incarnation=self.incarnation, sequence=message.sequence))

    # ---- this node

    def receiveMsg_CellsChanged(self, message: CellsChanged, sender: ActorAddress) -> None:
        self.call_loop(self._take_cells, message)

    def _take_cells(self, message: CellsChanged) -> None:
        self._cells = {name: address for name, (address, _) in message.cells.items()}
        incarnations = {name: incarnation for name, (_, incarnation) in message.cells.items()}
        for name, incarnation in incarnations.items():
            if self._told.get(name) != incarnation:
                self.deliver(self._cells[name], self._others)
                self.deliver(self._cells[name], LimitsHeld(default=self._held.default, parts=self._held.parts))
                self.deliver(self._cells[name], self._owners)
        self._told = incarnations
        if self._member is not None:
            self._member.describe(cells=incarnations)

    def receiveMsg_DrainRequested(self, message: DrainRequested, sender: ActorAddress) -> None:
        if self.loop is not None:
            self.call_loop(self._drain)

    def _drain(self) -> None:
        if self._member is not None:
            self._member.describe(is_draining=True)

    async def _describe_often(self) -> None:
        while True:
            self._describe()
            await asyncio.sleep(_DESCRIBE_S)

    def _describe(self) -> None:
        if self._member is not None:
            described = ClusterDescribed(status=self._member.status())
            for address in (self.addresses["supervisor"], *self._cells.values()):
                self.deliver(address, described)

    # ---- MemberSite

    def nodes_changed(self, others: Mapping[str, Presence], *, is_member: bool) -> None:
        assert self._member is not None
        self._others = NodesChanged(
            cells=remote_cells(others, self._member.epoch),
            cell_counts={node: presence.cell_count for node, presence in others.items()},
            is_member=is_member,
        )
        metrics.cluster_nodes.set(len(others) + is_member)
        for address in self._cells.values():
            self.deliver(address, self._others)
        self._describe()

    def owners_told(self, owners: Mapping[str, Ownership], lease_until_s: float) -> None:
        self._owners = OwnersTold(owners=dict(owners), lease_until_s=lease_until_s)
        for address in self._cells.values():
            self.deliver(address, self._owners)

    def receiveMsg_OwnershipWanted(self, message: OwnershipWanted, sender: ActorAddress) -> None:
        self.call_loop(self._want, message.thing)

    def _want(self, thing: str) -> None:
        if self._member is not None:
            self._member.want(thing)

    def _named(self, name: str, incarnation: int) -> ActorAddress | None:
        """A cell of this node, or its supervisor, by its name in the cluster; None for one that does not run any more."""
        part = name.partition("/")[2]
        supervisor: ActorAddress = self.addresses["supervisor"]
        if part == NODE_SUPERVISOR:
            return supervisor
        return self._cells.get(part) if self._told.get(part) == incarnation else None

    def take_forward(self, forward: ForwardToNode, sender_epoch: int) -> None:
        assert self._member is not None
        address = self._named(forward.to_cell, forward.to_incarnation)
        if address is not None:  # else it has ended: the presence of this node says so, to whom it concerns
            incarnation = remote_incarnation(self._member.epoch, sender_epoch, forward.incarnation)
            self.deliver(address, Forwarded(from_cell=forward.from_cell, incarnation=incarnation, message=forward.message))

    def forward_lost(self, forward: ForwardToNode, *, is_unsent: bool) -> None:
        address = self._named(forward.from_cell, forward.incarnation)
        if address is not None:
            self.deliver(address, ForwardLost(forward=forward, is_unsent=is_unsent))

    def receiveMsg_ForwardToNode(self, message: ForwardToNode, sender: ActorAddress) -> None:
        self.call_loop(self._forward, message)

    def _forward(self, forward: ForwardToNode) -> None:
        if self._member is None:
            self.forward_lost(forward, is_unsent=True)
        else:
            self._member.forward(forward)

    def on_undeliverable(self, target: ActorAddress, messages: Sequence[object], reason: str) -> None:
        # A cell that takes nothing is killed by its node, whose presence then says so. A description comes again.
        if not all(isinstance(message, ClusterDescribed) for message in messages):
            super().on_undeliverable(target, messages, reason)

    # ---- lifecycle

    def receiveMsg_StopRequested(self, message: StopRequested, sender: ActorAddress) -> None:
        if self.loop is not None and not self.loop.is_closed():
            leaving = asyncio.run_coroutine_threadsafe(self._leave_cluster(), self.loop)
            try:
                leaving.result(LEAVE_S)
            except TimeoutError:
                self.log(logging.WARNING, "the cluster was not told in time that this node goes: it will find out")
        super().receiveMsg_StopRequested(message, sender)

    async def _leave_cluster(self) -> None:
        if self._running is not None and self._member is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            await self._member.leave()
