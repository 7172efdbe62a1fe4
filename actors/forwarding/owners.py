"""Which cell holds the connection to a server: by consistent hash among the cells of the node where a session lives. Pure."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Final

from mcp_gateway.actors.routing.hash_ring import HashRing
from mcp_gateway.transports.ports.cell_names import node_of
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.strategies import scheme_of
from mcp_gateway.transports.protocol.sealed.session import SessionState

_RING_SIZE: Final = 128
_OWNED_SCHEMES: Final = frozenset({"stdio", "ws", "wss", "sse+http", "sse+https", "auto+http", "auto+https"})
"""Servers whose connection is a session or a process, or may turn out to be: one cell of the node holds it."""


class Owners:
    """As one cell sees it. cell_name: in the cluster, "node-a/cell/0", or "cell/0" where there is none."""

    def __init__(self, cell_name: str, cell_count: int) -> None:
        self._cell_name = cell_name
        self._cell_count = cell_count
        self.node = node_of(cell_name)
        self._others: dict[str, int] = {}  # {node: cells}
        self._is_member = False

    def nodes_changed(self, cell_counts: Mapping[str, int], *, is_member: bool) -> bool:
        """These other nodes are there, {node: cells}. is_member: whether this one is, for them. Tells whether that is new."""
        before = self._others, self._is_member
        self._others, self._is_member = dict(cell_counts), is_member
        return before != (self._others, self._is_member)

    def is_of_node(self, cell_name: str) -> bool:
        return node_of(cell_name) == self.node

    def is_gone(self, cell_name: str) -> bool:
        """Whether the cell's node has left the cluster; not known of any where this one is cut off."""
        return not self.is_of_node(cell_name) and self._is_member and node_of(cell_name) not in self._others

    def is_cut_off_from(self, cell_name: str) -> bool:
        return not self.is_of_node(cell_name) and not self._is_member

    def owner_of(self, replica: ReplicaId) -> str:
        """Of this node; this cell where any may speak to the replica."""
        if scheme_of(replica.address) not in _OWNED_SCHEMES:
            return self._cell_name
        return self._owner_in(self.node, self._cell_count, replica)

    def owner_for(self, replica: ReplicaId, session: SessionState | None) -> str | None:
        """Of the node where the session lives; None where that is another and this one is cut off from it.

        A session whose node is gone lives on in one of those that are there, the same for all who see the same nodes.
        """
        if session is None or session.node in ("", self.node) or scheme_of(replica.address) not in _OWNED_SCHEMES:
            return self.owner_of(replica)
        if not self._is_member:
            return None
        node = session.node
        if node not in self._others:
            node = max((self.node, *self._others), key=lambda each: _score(session.key, each))
        return self._owner_in(node, self._others.get(node, self._cell_count), replica)

    def cell_at(self, node: str, replica: ReplicaId) -> str:
        """The cell that holds the connection to this replica on a node."""
        return self._owner_in(node, self._cell_count if node == self.node else self._others.get(node, 1), replica)

    def speakers(self, replica: ReplicaId, running: frozenset[str]) -> frozenset[str]:
        """Those of the other cells that speak to the replica themselves: where it has an owner, that of each other node."""
        if scheme_of(replica.address) not in _OWNED_SCHEMES:
            return running
        return running & {self.cell_at(node, replica) for node in self._others}

    @staticmethod
    def _owner_in(node: str, cell_count: int, replica: ReplicaId) -> str:
        cell = next(iter(_ring(cell_count).preference_list(str(replica))))
        return f"{node}/{cell}" if node else cell


@functools.lru_cache(maxsize=64)
def _ring(cell_count: int) -> HashRing:
    ring = HashRing(_RING_SIZE)
    for index in range(cell_count):
        ring.add(f"cell/{index}")
    return ring


def _score(session_key: str, node: str) -> bytes:
    """Rendezvous hashing: where a node comes or goes, only its own sessions move."""
    return hashlib.blake2b(f"{session_key} {node}".encode(), digest_size=8).digest()
