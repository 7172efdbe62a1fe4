"""How many calls each replica of a backend carries, and how many one may have before its keys go to the next. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection

from mcp_gateway.transports.ports.replica_id import ReplicaId


class Loads:
    """The calls under way, by replica, of the routes that bound them."""

    __slots__ = ("_by_replica",)

    def __init__(self) -> None:
        self._by_replica: dict[ReplicaId, int] = {}

    def begin(self, replica: ReplicaId) -> None:
        self._by_replica[replica] = self.of(replica) + 1

    def end(self, replica: ReplicaId) -> None:
        """One call less; nothing where the replica was forgotten meanwhile."""
        left = self.of(replica) - 1
        if left > 0:
            self._by_replica[replica] = left
        else:
            self._by_replica.pop(replica, None)

    def of(self, replica: ReplicaId) -> int:
        return self._by_replica.get(replica, 0)

    def forget_all_but(self, replicas: Collection[ReplicaId]) -> None:
        self._by_replica = {replica: count for replica, count in self._by_replica.items() if replica in replicas}

    def has_room(self, replica: ReplicaId, among: Collection[ReplicaId], balance_factor: float) -> bool:
        """Whether one more call keeps the replica within balance_factor times the mean load of all of them, that call included.

        With a factor above 1.0 at least one of `among` has room.
        Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", capacity ceil(c m / n); Envoy manual,
        `hash_balance_factor`.
        """
        total = sum(self.of(each) for each in among) + 1
        return self.of(replica) + 1 <= math.ceil(balance_factor * total / len(among))
