"""This node in its cluster, on an event loop: it joins, renews, fences itself, watches the others, and carries messages.

What to do when is decided by `membership`; what travels is sealed by `node_packets`. No actor: `ClusterMember` is the shell
around it, and tests run several of them on one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, Protocol

import attrs
import msgspec

from mcp_gateway.actors.messages.cluster import ForwardToNode, Ownership
from mcp_gateway.actors.runtime.lanes import Batch, Lanes
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing
from mcp_gateway.transports.telemetry import metrics

from .engine import Engine, EngineAway, Keys, NoResponders, WrongRevision
from .membership import (
    PRESENCE_PREFIX,
    PRESENCE_TTL_S,
    RENEW_S,
    SPEECH,
    Nodes,
    OwnLease,
    Presence,
    Step,
    encoded,
    presence_in,
    presence_key,
)
from .node_packets import PacketReceiver, PacketRefused, PacketSender, Peer
from .owner_claims import OwnerClaims
from .ownership import Standing
from .sealed_keys import SealedKeys

_PING: Final = b"ping"
_TAKEN: Final = b"taken"
_REFUSED: Final = b"refused"
_PING_S: Final = 2.0
_TAKE_S: Final = 5.0
"""For another node to take a packet: it only reads it, so one that needs longer hangs."""
_CONNECT_AGAIN_S: Final = 1.0
_BATCH_BYTES: Final = 400_000
_NO_EVENT: Final = 2**62
"""An id that no event ever has: the log says how far it is, and reads nothing."""
_UNSENT: Final = "not sent"
_UNKNOWN: Final = "no answer"

_logger = logging.getLogger(__name__)


class MemberSite(Protocol):
    """What surrounds a member: the node whose member it is."""

    def nodes_changed(self, others: Mapping[str, Presence], *, is_member: bool) -> None:
        """These other nodes are there; none where this one is no member."""

    def take_forward(self, forward: ForwardToNode, sender_epoch: int) -> None:
        """A message of another node for a cell of this one. sender_epoch: of that node; `nodes_changed` may tell of it later."""

    def forward_lost(self, forward: ForwardToNode, *, is_unsent: bool) -> None:
        """A message for another node has not reached it, as far as is known."""

    def owners_told(self, owners: Mapping[str, Ownership], lease_until_s: float) -> None:
        """Who owns what, {thing: owner}, and until when this node keeps what it owns; told again at each renewal.

        lease_until_s: on the clock of leases; 0 where it is no member, which then knows of no owners.
        """


@attrs.define
class _Link:
    """To another node. subject: of its member. sender: makes its packets."""

    subject: str
    sender: PacketSender


def _peer_of(presence: Presence) -> Peer:
    return Peer(presence.node, presence.epoch, presence.member)


class Member:
    """One node's membership. Everything runs on one loop.

    connect: makes the connection to the engine. own: what the node says of itself; its epoch is not known yet. cipher: see
             `packet_cipher`.
    """

    def __init__(self, connect: Callable[[], Awaitable[Engine]], own: Presence, cipher: KeyRing, site: MemberSite) -> None:
        self._connect = connect
        self._own = msgspec.structs.replace(own, member=uuid.uuid4().hex)
        self._site = site
        self._cipher = cipher
        self._receiver = PacketReceiver(self._cipher)
        self._told_own = self._own  # as its key has it
        self._lease = OwnLease()
        self._nodes = Nodes(own.node)
        self._engine: Engine | None = None
        self._links: dict[Peer, _Link] = {}
        self._lanes = Lanes(self._transmit, self._give_up, max_batch_bytes=_BATCH_BYTES)
        self._has_work = asyncio.Event()
        self._is_connected = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stop_serving: Callable[[], Awaitable[None]] | None = None
        self._claims: OwnerClaims | None = None
        self._may_create_s = 0.0
        self._revision = 0  # the highest that is known of any key
        self._last_event_id = 0  # that the cluster's log has
        self._renewed_s: dict[str, float] = {}  # {node: when its presence was seen to be renewed}
        self._said = ""  # what was logged last of a step that failed

    # ---- what the node asks of it

    async def connected(self) -> Engine:
        """The engine, once it was reached for the first time."""
        await self._is_connected.wait()
        assert self._engine is not None
        return self._engine

    def behind(self, *, revocations: int = 0, settings: int = 0) -> list[str]:
        """Names of the members, this one too, that have not taken these states of what all nodes share."""
        views = {**self._nodes.others(), self._own.node: self._own}
        return sorted(
            name for name, presence in views.items() if presence.revocations < revocations or presence.settings < settings
        )

    @property
    def node(self) -> str:
        return self._own.node

    def members(self) -> tuple[tuple[str, int], ...]:
        """(node, epoch) of all members, this one too, sorted; nobody where it is none."""
        if not self._lease.is_member:
            return ()
        others = [(node, presence.epoch) for node, presence in self._nodes.others().items()]
        return tuple(sorted([*others, (self._own.node, self._lease.epoch)]))

    @property
    def epoch(self) -> int:
        """Of this membership, or of the last one."""
        return self._lease.epoch

    async def run(self) -> None:
        """Be a member, whenever that is possible, until cancelled."""
        while self._engine is None:
            try:
                self._engine = await self._connect()
            except EngineAway as error:
                self._say(f"the engine of the cluster cannot be reached: {error}")
                await asyncio.sleep(_CONNECT_AGAIN_S)
        self._is_connected.set()
        keys = SealedKeys(self._engine, self._cipher)
        self._claims = OwnerClaims(keys, self)
        beside = [self._start(each) for each in (self._watch(keys), self._claims.run(), self._read_log_state(self._engine))]
        running = asyncio.current_task()
        assert running is not None
        try:
            # `wait_for` of Python 3.11, which engines use, forgets a cancellation that comes as what it waits for is there.
            while not running.cancelling():
                await self._take_step(self._engine, keys)
                for each in beside:
                    if each.done():  # by a defect: a member that knows nobody any more must not look like one
                        each.result()
            raise asyncio.CancelledError
        finally:
            for task in list(self._tasks):
                task.cancel()

    async def leave(self) -> None:
        """Tell the others that this node goes, so that nobody waits for the end of its presence; call it when `run` has ended."""
        if self._engine is None:
            return
        if self._lease.is_member:
            if self._claims is not None:
                await self._claims.release()
            with contextlib.suppress(EngineAway, WrongRevision):
                # A renewal that was cut short may have been carried out, so that the key has another revision than is known.
                keys = SealedKeys(self._engine, self._cipher)
                await keys.delete(presence_key(self._own.node), await self._own_revision(keys))
            self._lease.fenced()
        if self._stop_serving is not None:
            with contextlib.suppress(EngineAway):
                await self._stop_serving()
        await self._engine.close()

    def describe(self, **changes: Any) -> None:
        """What the node says of itself has changed: `cells`, `is_draining`."""
        changed = msgspec.structs.replace(self._own, **changes)
        if changed != self._own:
            self._own = changed
            self._lease.hurry()
            self._has_work.set()

    def forward(self, forward: ForwardToNode) -> None:
        """Have it taken by the member of the node that runs `to_cell`; what is lost comes to `forward_lost`."""
        node = forward.to_cell.partition("/")[0]
        self._lanes.queue(node, node, forward)
        self._lanes.flush()

    def want(self, thing: str) -> None:
        """Have this node own it, unless another one does: `owners_told` says who. Without the engine nothing comes of it."""
        if self._claims is not None and self._lease.is_member:
            self._claims.want(thing)

    def status(self) -> dict[str, Any]:
        """As `status --json` has it."""
        age_s = self._lease.age_s(lease_clock_s())
        return {
            "node": self._own.node,
            "epoch": self._lease.epoch,
            "is_member": self._lease.is_member,
            "lease_age_seconds": None if age_s is None else round(age_s, 3),
            "engine": "connected" if self._engine is not None and self._engine.is_connected else "away",
            "revision": self._revision,
            "last_event_id": self._last_event_id,
            "owned": [
                {"thing": thing, "node": owner.node, "token": owner.token} for thing, owner in sorted(self._owners().items())
            ],
            "nodes": [
                {
                    "name": presence.node,
                    "epoch": presence.epoch,
                    "cells": len(presence.cells),
                    "draining": presence.is_draining,
                    "lease_age_seconds": round(lease_clock_s() - self._renewed_s[presence.node], 3),
                    "version": presence.version,
                    "url": presence.url,
                }
                for presence in [view.presence for _, view in sorted(self._nodes.views.items())]
            ],
        }

    # ---- membership

    async def _take_step(self, engine: Engine, keys: Keys) -> None:
        now_s = lease_clock_s()
        step = self._lease.next_step(now_s)
        if step is Step.WAIT:
            self._has_work.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_work.wait(), self._lease.due_s(now_s) - now_s + 0.001)
            return
        if step is Step.FENCE:
            self._fence("its presence could not be renewed")
            return
        self._lease.tried(now_s)
        try:
            # The end of the lease is not waited for by an engine that does not answer.
            async with asyncio.timeout(RENEW_S if step is Step.JOIN else min(RENEW_S, self._lease.left_s(now_s))):
                await self._ping_itself(engine)
                await (self._join(keys, now_s) if step is Step.JOIN else self._renew(keys, now_s))
        except (EngineAway, NoResponders, TimeoutError) as error:
            self._say(f"the engine of the cluster is away: {str(error) or 'no answer'}")
        except WrongRevision:
            if step is Step.RENEW:
                self._fence("somebody else has its presence key")

    async def _ping_itself(self, engine: Engine) -> None:
        if self._stop_serving is None:
            self._stop_serving = await engine.serve(self._subject(self._own), self._take_packet)
        await engine.request(self._subject(self._own), _PING, _PING_S)

    async def _join(self, keys: Keys, sent_s: float) -> None:
        key = presence_key(self._own.node)
        found = await keys.get(key)
        presence = presence_in(found)
        said = msgspec.structs.replace(self._own, epoch=0, term=0)
        if found is None:
            epoch = await keys.create(key, encoded(said), PRESENCE_TTL_S)
            term = epoch
        elif presence is not None and presence.incarnation == self._own.incarnation:
            # Of this node, before its member crashed. What was on its way then is lost, so the others shall see another epoch.
            term = presence.term
            said = msgspec.structs.replace(said, term=term)
            epoch = await keys.update(key, encoded(said), found.revision, PRESENCE_TTL_S)
        else:
            self._say(f"a node named {self._own.node} is there already, or has been a moment ago: this one waits")
            return
        if epoch < self._lease.epoch:
            # The engine has lost its data, owner records too: nobody is given what others may run until they have found out.
            self._may_create_s = lease_clock_s() + PRESENCE_TTL_S
        self._own = msgspec.structs.replace(self._own, epoch=epoch, term=term)
        self._told_own = msgspec.structs.replace(said, epoch=epoch, term=term)
        self._lease.joined(epoch, sent_s)
        self._said = ""
        _logger.info("node %s is a member of the cluster, epoch %d", self._own.node, epoch)
        self._tell()

    async def _renew(self, keys: Keys, sent_s: float) -> None:
        own = self._own
        key, value, is_news = presence_key(own.node), encoded(own), own != self._told_own
        try:
            revision = await keys.update(key, value, self._lease.revision, PRESENCE_TTL_S, is_news)
        except WrongRevision:  # one that had no answer has been carried out, or it is gone
            revision = await keys.update(key, value, await self._own_revision(keys), PRESENCE_TTL_S, is_news)
        self._told_own = own
        self._lease.renewed(revision, sent_s)
        self._said = ""
        self.owners_changed()

    async def _own_revision(self, keys: Keys) -> int:
        """Of this node's presence key. Raises: EngineAway; WrongRevision where it is gone, or another's."""
        key = presence_key(self._own.node)
        found = await keys.get(key)
        presence = presence_in(found)
        own = (self._own.incarnation, self._own.epoch)
        if found is None or presence is None or (presence.incarnation, presence.epoch) != own:
            raise WrongRevision(key)
        return found.revision

    def _fence(self, why: str) -> None:
        _logger.error("node %s is cut off from its cluster: %s", self._own.node, why)
        metrics.cluster_fenced_total.inc()
        self._lease.fenced()
        self._tell()

    async def _watch(self, keys: Keys) -> None:
        left_alone: dict[str, str] = {}
        async for entries in keys.watch(PRESENCE_PREFIX):
            for entry in entries:
                self._revision = max(self._revision, entry.revision)
                self._renewed_s[entry.key.removeprefix(PRESENCE_PREFIX)] = lease_clock_s()
            if self._nodes.changed((entry.key, entry.revision, entry.value) for entry in entries):
                self._tell()
            for node, why in self._nodes.unread.items() - left_alone.items():
                _logger.warning("what node %s says of itself is left alone: %s", node, why)
            left_alone = dict(self._nodes.unread)

    async def _read_log_state(self, engine: Engine) -> None:
        while True:
            with contextlib.suppress(EngineAway):
                self._last_event_id = (await engine.read_log(_NO_EVENT)).last_sequence
            await asyncio.sleep(RENEW_S)

    def _tell(self) -> None:
        others = self._nodes.others() if self._lease.is_member else {}
        self._receiver.epochs_changed({node: presence.epoch for node, presence in self._nodes.others().items()})
        current = {_peer_of(presence) for presence in others.values()}
        self._links = {known: link for known, link in self._links.items() if known in current}
        self._site.nodes_changed(others, is_member=self._lease.is_member)
        self.owners_changed()

    # ---- ownership: `ClaimSite`

    @property
    def unread(self) -> Collection[str]:
        return self._nodes.unread.keys() - {self._own.node}

    @property
    def standing(self) -> Standing:
        return Standing(self._own.node, self._own.term if self._lease.left_s(lease_clock_s()) else 0)

    @property
    def may_create_s(self) -> float:
        return self._may_create_s

    def owners_changed(self) -> None:
        self._site.owners_told(self._owners(), self._lease.until_s)

    def _owners(self) -> dict[str, Ownership]:
        if self._claims is None or not self._lease.is_member:
            return {}
        return self._claims.owners([*self._nodes.others().values(), self._own])

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            _logger.warning("%s", text)

    # ---- messages

    @property
    def _peer(self) -> Peer:
        return _peer_of(msgspec.structs.replace(self._own, epoch=self._lease.epoch))

    @staticmethod
    def _subject(presence: Presence) -> str:
        """Of one start of a member: whoever has its name next is never sent what was for this one."""
        return f"req.{presence.node}.{presence.member}"

    def _transmit(self, node: str, message: object, on_result: Callable[[str | None], None]) -> None:
        items = message.items if isinstance(message, Batch) else (message,)
        sending = self._start(self._send(node, items))
        # Not from within this call: the lanes are at work. A task that was cancelled has sent nothing that anybody waits for.
        sending.add_done_callback(lambda task: on_result(_UNKNOWN if task.cancelled() else task.result()))

    async def _send(self, node: str, items: tuple[object, ...]) -> str | None:
        presence = self._nodes.others().get(node) if self._lease.is_member else None
        if presence is None or self._engine is None:
            return _UNSENT
        if presence.speech != SPEECH:
            self._say(f"node {node} is of another version of the gateway ({presence.version}), and is not spoken to")
            return _UNSENT
        target = _peer_of(presence)
        link = self._links.get(target)
        if link is None:
            sender = PacketSender(self._cipher, self._peer, target)
            link = self._links[target] = _Link(self._subject(presence), sender)
        try:
            packets = link.sender.packets(pickle.dumps(items, pickle.HIGHEST_PROTOCOL))
        except ValueError as error:
            _logger.warning("a message to %s is given up: %s", node, error)
            return _UNSENT
        for number, packet in enumerate(packets, start=1):
            problem = await self._put(link.subject, packet, is_last=number == len(packets))
            if problem is not None:
                link.sender.begin_anew()
                return problem
        metrics.cluster_packets_total.labels("sent").inc(len(packets))
        return None

    async def _put(self, subject: str, packet: bytes, *, is_last: bool) -> str | None:
        """Have one packet taken; why that did not succeed, or None. Parts of a message that is not complete come to nothing."""
        assert self._engine is not None
        was_connected = self._engine.is_connected
        try:
            answer = await self._engine.request(subject, packet, _TAKE_S)
        except NoResponders:
            return _UNSENT
        except EngineAway:
            return _UNKNOWN if is_last and was_connected else _UNSENT
        return None if answer == _TAKEN else _UNSENT

    def _give_up(self, _node: str, items: tuple[Any, ...], reason: str) -> None:
        for forward in items:
            self._site.forward_lost(forward, is_unsent=reason != _UNKNOWN)

    async def _take_packet(self, packet: bytes) -> bytes:
        if packet == _PING:
            return _PING
        if not self._lease.is_member:
            return _REFUSED
        try:
            taken = self._receiver.take(packet, self._peer)
            # Made with the cluster's key, so that it is as good as what comes from another process of this node.
            sender, forwards = ("", ()) if taken is None else (taken[0], pickle.loads(taken[1]))
        except PacketRefused as refused:
            metrics.cluster_packets_total.labels("refused").inc()
            self._say(f"a packet of another node is refused: {refused}")
            return _REFUSED
        except Exception as error:  # of another version, perhaps
            metrics.cluster_packets_total.labels("refused").inc()
            self._say(f"what another node says cannot be read: {error!r}")
            return _REFUSED
        metrics.cluster_packets_total.labels("taken").inc()
        for forward in forwards:
            self._site.take_forward(forward, self._receiver.epoch_of(sender))
        return _TAKEN

    def _start(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
