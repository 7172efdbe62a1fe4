"""Connections without a request in flight: how long each may wait, and which is given up where there are too many. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from mcp_gateway.transports.ports.shared_budget import SharedBudget


class Waiter(Protocol):
    """A connection. holder: whose share it counts in. has_served: whether a request on it has been answered."""

    holder: str
    has_served: bool

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next request is here."""


Connection = TypeVar("Connection", bound=Waiter)


class WaitingConnections(Generic[Connection]):
    """Who waits for a request, in the order in which they began to.

    Where there are too many, the one that has waited longest makes room, and not the one that comes: who holds connections open
    must not keep others out. Those that have never had a whole request go first, for clients lose nothing with them.

    header_timeout_s: until the head of a connection's first request is whole, or from the first byte of a later one.
    idle_timeout_s:   until a later one begins.
    """

    def __init__(self, limit: int, largest_share: float, *, header_timeout_s: float, idle_timeout_s: float) -> None:
        self._budget = SharedBudget(limit, largest_share)
        self._header_timeout_s = header_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._new: dict[Connection, float] = {}  # {connection: since when it waits}
        self._idle: dict[Connection, float] = {}  # those that have served
        self._pressed: dict[Connection, None] = {}  # those that wait beyond what there may be, until `make_room`
        self._begun: dict[Connection, float] = {}  # {one of `_idle`: when its next request was seen to have begun}

    def __len__(self) -> int:
        return len(self._new) + len(self._idle)

    def wait(self, connection: Connection, now_s: float) -> bool:
        """It waits from now on; False where `make_room` must be called for it, once what clients have sent by now is read."""
        (self._idle if connection.has_served else self._new)[connection] = now_s
        has_room = self._budget.take(connection.holder)
        if not has_room:
            self._pressed[connection] = None
        return has_room

    def leave(self, connection: Connection) -> None:
        """It has a request, or has gone; harmless for one that does not wait."""
        if self._new.pop(connection, None) is None:
            if self._idle.pop(connection, None) is None:
                return
            if self._begun:
                self._begun.pop(connection, None)
        if self._pressed and connection in self._pressed:
            del self._pressed[connection]
        else:
            self._budget.give_back(connection.holder)

    def make_room(self) -> list[Connection]:
        """Take out as many as there are too many, those that have waited longest."""
        given_up = []
        for connection in list(self._pressed):
            if not self._budget.take(connection.holder):
                is_its_own = self._budget.held_by(connection.holder) >= self._budget.largest_share
                given_up.append(self._longest(connection.holder if is_its_own else None))
                self.leave(given_up[-1])
                self._budget.take(connection.holder)
            del self._pressed[connection]
        return given_up

    def give_up_longest(self, since_s: float) -> Connection | None:
        """Take out the one that has waited longest; None where nobody waits since then: their requests may be on their way."""
        for waiting in (self._new, self._idle):
            for longest, began_s in waiting.items():
                if began_s > since_s:
                    break
                self.leave(longest)
                return longest
        return None

    def _longest(self, holder: str | None) -> Connection:
        """Of this holder, or of all; no one for whom there was no room."""
        return next(
            each
            for waiting in (self._new, self._idle)
            for each in waiting
            if each not in self._pressed and (holder is None or each.holder == holder)
        )

    def overdue(self, now_s: float) -> list[Connection]:
        """Take out those whose time is up."""
        found = [*self._late(now_s)]
        for connection in found:
            self.leave(connection)
        return found

    def _late(self, now_s: float) -> Iterator[Connection]:
        for connection, since_s in self._new.items():
            if now_s - since_s < self._header_timeout_s:
                break
            yield connection
        for connection, since_s in self._idle.items():
            if connection.has_begun:
                if now_s - self._begun.setdefault(connection, now_s) >= self._header_timeout_s:
                    yield connection
            elif now_s - since_s >= self._idle_timeout_s:
                yield connection

    def assert_consistent(self) -> None:
        everyone = [*self._new, *self._idle]
        assert self._pressed.keys() <= set(everyone)
        holders = [each.holder for each in everyone if each not in self._pressed]
        assert len(holders) == self._budget.held <= self._budget.limit
        assert all(holders.count(each) == self._budget.held_by(each) <= self._budget.largest_share for each in holders)
        assert self._begun.keys() <= self._idle.keys()
