"""Who holds and who waits for a connection to one replica: the bookkeeping of the connection pool. Pure."""

from __future__ import annotations

import enum
from collections import OrderedDict
from heapq import heapify, heappop, heappush

import attrs

_STALE_DEADLINES_KEPT = 64


class Grant(enum.Enum):
    """The answer to a request for a lease."""

    GRANTED = "granted"
    QUEUED = "queued"
    REFUSED = "refused"


class UnknownLease(LookupError):
    """A lease was given back that nobody holds."""


class DuplicateLease(ValueError):
    """A lease was requested under an id that already holds or waits."""


@attrs.frozen(kw_only=True)
class LeaseCounts:
    """A snapshot of one ledger.

    idle:     leases within pool_size that nobody holds.
    leased:   leases held, overflow included.
    waiting:  requests in the queue.
    overflow: leases held beyond pool_size; these connections are to be closed when given back.
    """

    idle: int
    leased: int
    waiting: int
    overflow: int


class LeaseLedger:
    """Hands out up to `pool_size + max_overflow` leases and queues up to `max_waiting` requests, first come first served.

    It reads no clock: times are seconds of the caller's monotonic clock. Nobody waits while a lease is free. A waiter whose
    deadline has come (deadline_s <= now_s) is never granted; `expire` tells of it exactly once, and the caller answers it.
    Each call is O(1), queueing O(log waiters): it runs for every request, hence plain dicts and slots.
    Source: poolboy and nimble_pool (checkout with overflow and timeout); the bound on waiting is ours.
    """

    __slots__ = ("_capacity", "_deadlines", "_holders", "_lapsed", "_limit", "_max_waiting", "_pool_size", "_size", "_waiting")

    def __init__(self, pool_size: int, max_overflow: int, max_waiting: int) -> None:
        if max_waiting < 0:
            raise ValueError(f"max_waiting is {max_waiting}, must be at least 0")
        self._limit: int | None = None
        self._set_capacity(pool_size, max_overflow)
        self._max_waiting = max_waiting
        self._holders: set[int] = set()
        # {lease id: deadline}. OrderedDict, not dict: taking the oldest of a dict walks over all that were taken before it.
        self._waiting: OrderedDict[int, float] = OrderedDict()
        # Waiters found past their deadline by a release; `expire` has yet to tell of them.
        self._lapsed: dict[int, float] = {}
        # Heap of (deadline, lease id). Entries of those that wait no more stay until they surface or the heap is rebuilt.
        self._deadlines: list[tuple[float, int]] = []

    def request(self, lease_id: int, deadline_s: float) -> Grant:
        """Take a lease, or wait for one until the deadline, or be refused when the queue is full. Raises DuplicateLease."""
        holders = self._holders
        if lease_id in holders or lease_id in self._waiting or lease_id in self._lapsed:
            raise DuplicateLease(f"lease {lease_id} already holds or waits")
        if len(holders) < self._capacity:
            holders.add(lease_id)
            return Grant.GRANTED
        if len(self._waiting) >= self._max_waiting:
            return Grant.REFUSED
        self._waiting[lease_id] = deadline_s
        heappush(self._deadlines, (deadline_s, lease_id))
        return Grant.QUEUED

    def release(self, lease_id: int, now_s: float) -> tuple[int, ...]:
        """Give a lease back; returns the waiters that hold one from now on. Raises UnknownLease if it was not held."""
        try:
            self._holders.remove(lease_id)
        except KeyError:
            state = (
                "waits for one"
                if lease_id in self._waiting or lease_id in self._lapsed
                else "was never requested or is long gone"
            )
            raise UnknownLease(f"lease {lease_id} is not held: it {state}") from None
        return self._grant_waiters(now_s) if self._waiting else ()

    def cancel(self, lease_id: int, now_s: float) -> tuple[int, ...]:
        """Forget a holder or a waiter, or do nothing for an id that is neither; returns the waiters that hold one from now on.

        Doing nothing is right here: a cancellation may cross the grant's release or the waiter's expiry on its way.
        """
        if lease_id in self._holders:
            return self.release(lease_id, now_s)
        if self._waiting.pop(lease_id, None) is None:
            self._lapsed.pop(lease_id, None)
        self._drop_stale_deadlines()
        return ()

    def expire(self, now_s: float) -> tuple[int, ...]:
        """Remove the waiters whose deadline has come and return them, the earliest deadline first."""
        expired = list(self._lapsed.items())
        self._lapsed.clear()
        deadlines, waiting = self._deadlines, self._waiting
        while deadlines and deadlines[0][0] <= now_s:
            deadline_s, lease_id = heappop(deadlines)
            if waiting.get(lease_id) == deadline_s:
                del waiting[lease_id]
                expired.append((lease_id, deadline_s))
        self._drop_stale_deadlines()
        expired.sort(key=lambda entry: entry[1])
        return tuple(lease_id for lease_id, _ in expired)

    def resize(self, pool_size: int, max_overflow: int, now_s: float) -> tuple[int, ...]:
        """Change the limits; returns the waiters that hold a lease from now on.

        After shrinking, more leases may be held than allowed until they come back; none is taken away.
        """
        self._set_capacity(pool_size, max_overflow)
        return self._grant_waiters(now_s)

    def limit_to(self, limit: int | None, now_s: float) -> tuple[int, ...]:
        """Hand out no more than so many at once, whatever the sizes allow; returns the waiters that hold a lease from now on."""
        self._limit = limit
        self._limit_capacity()
        return self._grant_waiters(now_s)

    @property
    def has_room(self) -> bool:
        """Whether the next request is granted at once."""
        return len(self._holders) < self._capacity

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` has something to tell next; None when nobody waits."""
        if self._lapsed:
            return min(self._lapsed.values())
        self._drop_surfaced_deadlines()
        return self._deadlines[0][0] if self._deadlines else None

    @property
    def counts(self) -> LeaseCounts:
        leased = len(self._holders)
        return LeaseCounts(
            idle=max(0, self._pool_size - leased),
            leased=leased,
            waiting=len(self._waiting),
            overflow=max(0, leased - self._pool_size),
        )

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        ids = len(self._holders | self._waiting.keys() | self._lapsed.keys())
        assert ids == len(self._holders) + len(self._waiting) + len(self._lapsed), "one id in two places"
        assert not self._waiting or len(self._holders) >= self._capacity, "somebody waits while a lease is free"
        assert len(self._waiting) <= self._max_waiting
        assert {(deadline, lease_id) for lease_id, deadline in self._waiting.items()} <= set(self._deadlines)
        assert len(self._deadlines) <= 2 * self._max_waiting + _STALE_DEADLINES_KEPT + 1

    def _set_capacity(self, pool_size: int, max_overflow: int) -> None:
        if pool_size < 1 or max_overflow < 0:
            raise ValueError(f"pool_size is {pool_size}, must be at least 1; max_overflow is {max_overflow}, must be at least 0")
        self._pool_size = pool_size
        self._size = pool_size + max_overflow
        self._limit_capacity()

    def _limit_capacity(self) -> None:
        self._capacity = self._size if self._limit is None else max(1, min(self._size, self._limit))

    def _grant_waiters(self, now_s: float) -> tuple[int, ...]:
        granted = []
        while self._waiting and len(self._holders) < self._capacity:
            lease_id, deadline_s = self._waiting.popitem(last=False)
            if deadline_s <= now_s:
                self._lapsed[lease_id] = deadline_s
            else:
                self._holders.add(lease_id)
                granted.append(lease_id)
        self._drop_stale_deadlines()
        return tuple(granted)

    def _drop_surfaced_deadlines(self) -> None:
        deadlines, waiting = self._deadlines, self._waiting
        while deadlines and waiting.get(deadlines[0][1]) != deadlines[0][0]:
            heappop(deadlines)

    def _drop_stale_deadlines(self) -> None:
        """Rebuild the heap when most of it is stale, so that far deadlines cannot pile up behind short waits."""
        if len(self._deadlines) > 2 * len(self._waiting) + _STALE_DEADLINES_KEPT:
            self._deadlines = [(deadline_s, lease_id) for lease_id, deadline_s in self._waiting.items()]
            heapify(self._deadlines)
