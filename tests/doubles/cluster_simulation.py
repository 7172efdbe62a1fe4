"""Many nodes and sessions in virtual time: what is decided of membership, ownership and limits, with the messages it takes.

The decisions are those of the product (`OwnLease`, `Nodes`, `decide`, `Owners`, `Allocator`, `Demand`); engine, network and
clocks are not there. Messages are counted as NATS carries them: what a client sends, and each copy that is given to one.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs

from mcp_gateway.actors.cluster.limit_parts import Allocator, Demand, Held
from mcp_gateway.actors.cluster.membership import (
    PRESENCE_TTL_S,
    Nodes,
    OwnLease,
    Presence,
    Step,
    encoded,
    presence_key,
    read_presence,
)
from mcp_gateway.actors.cluster.nats_engine import GATHER_S, LOOK_AGAIN_S
from mcp_gateway.actors.cluster.owner_claims import TAKE_OVER_AFTER_S
from mcp_gateway.actors.cluster.ownership import (
    Create,
    OwnerRecord,
    OwnerRecords,
    Standing,
    TakeOver,
    decide,
    encoded_record,
    owner_key,
)
from mcp_gateway.actors.cluster.shared_limits import REPORT_S
from mcp_gateway.actors.forwarding.owners import Owners
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.protocol.sealed.session import SessionState

REQUEST: Final = 4
"""A request and its answer, each to the server and from it."""

PUBLISH: Final = 2
"""With its acknowledgement."""

LOOK: Final = REQUEST + 3
"""Of a watch that finds nothing new: the stream's state, which has changed somewhere; the question, and that this was all."""

OTHER_WATCHES: Final = 3
"""Of a node, beside that of presences: owners, settings, who has lost access."""

REPLICA: Final = ReplicaId(backend="tools", address="stdio://0")


@attrs.define(eq=False)
class Node:
    """One node as itself. is_dead: it says nothing any more."""

    name: str
    lease: OwnLease = attrs.Factory(OwnLease)
    nodes: Nodes = attrs.Factory(lambda self: Nodes(self.name), takes_self=True)
    held: Held = attrs.Factory(Held)
    demand: Demand = attrs.Factory(Demand)
    allocator: Allocator | None = None
    records: OwnerRecords = attrs.Factory(OwnerRecords)
    is_dead: bool = False
    unread: dict[str, tuple[str, int, bytes | None]] = attrs.Factory(dict)  # {key: its change}
    will_read: bool = False

    @property
    def members(self) -> frozenset[str]:
        return frozenset(self.nodes.others()) | ({self.name} if self.lease.is_member else set())

    def owner_of(self, thing: str) -> str | None:
        """As this node knows it."""
        terms = [(name, presence.term) for name, presence in self.nodes.others().items()]
        owner = self.records.owners([*terms, (self.name, self.lease.epoch)]).get(thing)
        return None if owner is None else owner.node


class Simulation:
    """asked_per_s: {(client, node): requests}, of `limit` per second and client."""

    def __init__(self, node_count: int, seed: int, limit: float = 10.0) -> None:
        self.now_s = 0.0
        self.messages: Counter[str] = Counter()
        self.limit = limit
        self.asked_per_s: dict[tuple[str, str], float] = {}
        self._random = random.Random(seed)
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._keys: dict[str, tuple[int, bytes, float]] = {}  # {key: (revision, value, when it ends)}
        self._revision = 0
        self._records: dict[str, tuple[int, OwnerRecord]] = {}  # {key: (revision, who owns it)}
        self.nodes = {name: Node(name) for name in (f"node-{number:03}" for number in range(node_count))}
        for node in self.nodes.values():
            self._at(self._random.uniform(0, 3), lambda node=node: self._step(node))  # type: ignore[misc]
            self._at(self._random.uniform(0, REPORT_S), lambda node=node: self._report(node))  # type: ignore[misc]
            self._at(self._random.uniform(0, LOOK_AGAIN_S), lambda node=node: self._look(node))  # type: ignore[misc]

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._due and self._due[0][0] <= until_s:
            self.now_s, _, act = heapq.heappop(self._due)
            act()
        self.now_s = until_s

    def kill(self, *names: str) -> None:
        for name in names:
            self.nodes[name].is_dead = True

    @property
    def living(self) -> list[Node]:
        return [node for node in self.nodes.values() if not node.is_dead]

    def owners(self, node: Node) -> Owners:
        """As a cell of this node decides."""
        owners = Owners(f"{node.name}/cell/0", 1)
        others = {name: presence.cell_count for name, presence in node.nodes.others().items()}
        owners.nodes_changed(others, is_member=node.lease.is_member)
        return owners

    def _at(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now_s + delay_s, next(self._order), act))

    # ---- membership, as `Member` carries it out

    def _step(self, node: Node) -> None:
        if node.is_dead:
            return
        step = node.lease.next_step(self.now_s)
        if step is Step.FENCE:
            node.lease.fenced()
        elif step is not Step.WAIT:
            node.lease.tried(self.now_s)
            self.messages["membership"] += REQUEST + PUBLISH  # its ping, and its key
            if step is Step.JOIN:
                epoch = self._put(node)
                node.lease.joined(epoch, self.now_s)
                self._hint(self._read)
            else:
                node.lease.renewed(self._put(node), self.now_s)
        self._at(max(node.lease.due_s(self.now_s) - self.now_s, 0.01), lambda: self._step(node))

    def _put(self, node: Node) -> int:
        self._revision += 1
        key, revision = presence_key(node.name), self._revision
        epoch = node.lease.epoch if node.lease.is_member else 0
        value = encoded(Presence(node=node.name, epoch=epoch, term=epoch, incarnation=node.name, cells={"cell/0": 1}))
        ends_s = self.now_s + PRESENCE_TTL_S
        self._keys[key] = (revision, value, ends_s)
        self._at(PRESENCE_TTL_S + 0.001, lambda: self._end(key, revision))
        self._tell(key, revision, value)
        return revision

    def _end(self, key: str, revision: int) -> None:
        if self._keys.get(key, (0,))[0] == revision:
            del self._keys[key]
            self._revision += 1
            self._tell(key, self._revision, None)

    def _tell(self, key: str, revision: int, value: bytes | None) -> None:
        for node in self.living:
            node.unread[key] = (key, revision, value)

    def _hint(self, read: Callable[[Node], None]) -> None:
        """There is news, not only that a key lives longer."""
        self.messages["membership"] += 1
        for node in self.living:
            self.messages["membership"] += 1
            if not node.will_read:
                node.will_read = True
                self._at(GATHER_S, lambda node=node: read(node))  # type: ignore[misc]

    def _look(self, node: Node) -> None:
        if not node.is_dead:
            self._read(node)
            self.messages["other watches"] += OTHER_WATCHES * LOOK
            self._at(LOOK_AGAIN_S, lambda: self._look(node))

    def _read(self, node: Node) -> None:
        changes, node.unread, node.will_read = node.unread, {}, False
        if not node.is_dead:
            self.messages["membership"] += LOOK + len(changes)
            node.nodes.changed(changes.values())

    # ---- ownership, as `OwnerClaims` carries it out

    def want(self, name: str, thing: str) -> None:
        """A call at this node needs the thing, and no owner is known there."""
        node = self.nodes[name]
        key = owner_key(thing)
        self.messages["ownership"] += REQUEST
        revision, record = self._records.get(key, (0, None))
        found = None
        if record is not None:
            self.messages["ownership"] += REQUEST
            found = self._keys.get(presence_key(record.node))
        owner = None if found is None else read_presence(found[1], found[0])
        decision = decide(record, revision, owner, Standing(name, node.lease.epoch if node.lease.is_member else 0))
        if isinstance(decision, Create | TakeOver):
            delay_s = TAKE_OVER_AFTER_S if isinstance(decision, TakeOver) else 0.0
            self._at(delay_s, lambda: self._own(node, thing, revision))

    def _own(self, node: Node, thing: str, expected: int) -> None:
        key = owner_key(thing)
        self.messages["ownership"] += PUBLISH
        if node.is_dead or self._records.get(key, (0, None))[0] != expected:
            return  # another one was faster
        self._revision += 1
        revision, record = self._revision, OwnerRecord(thing, node.name, node.lease.epoch, "")
        self._records[key] = (revision, record)
        self.messages["ownership"] += 1
        for other in self.living:
            self.messages["ownership"] += 1 + LOOK + 1  # the hint, and the record
            self._at(GATHER_S, lambda other=other: other.records.changed([(key, revision, encoded_record(record))]))  # type: ignore[misc]

    # ---- limits, as `SharedLimits` carries them out

    def _report(self, node: Node) -> None:
        if node.is_dead:
            return
        node.demand.asked(
            {client: rate / self.limit for (client, name), rate in self.asked_per_s.items() if name == node.name and rate}
        )
        wanted = node.demand.next_report()
        if members := node.members if node.lease.is_member else frozenset():
            self.messages["limits"] += REQUEST
            allocator = self.nodes[min(members)]
            if not allocator.is_dead and allocator.members == members:
                if allocator.allocator is None or allocator.allocator.members != members:
                    allocator.allocator = Allocator(members)
                node.held = allocator.allocator.answer(node.name, node.held, wanted)
        self._at(REPORT_S, lambda: self._report(node))


def session(number: int, node: str) -> SessionState:
    """One that has a process at this node."""
    return SessionState(
        key=f"session-{number}", endpoint="", revision="2025-11-25", hash_key="", initialize=b"{}", upstreams=(), node=node
    )
