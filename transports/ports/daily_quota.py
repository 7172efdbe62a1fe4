"""How many requests each client has made of those that it may make in a day. Pure.

Days are those of UTC. A cell counts for itself, and from time to time reports what is new and is told what all have counted:
between two reports it knows of the others what it was told last, and clients may have so much more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import attrs

MOST_CLIENTS: Final = 10_000
_DAY_S: Final = 86_400


def day_of(now_s: float) -> int:
    """Days since the epoch. now_s: seconds since the epoch."""
    return int(now_s // _DAY_S)


@attrs.define
class _Count:
    """told: of all cells, as far as is known here. fresh: of this one, since its last report that was taken. reported: of those,
    in the last report."""

    told: int = 0
    fresh: int = 0
    reported: int = 0


class DailyQuota:
    """One cell's counts, which begin anew with each day.

    At most `most_clients` are remembered, the longest unused are forgotten first: of such a client only what no report has told
    is lost, and the rest is known again a report after it comes back.
    """

    def __init__(self, limit: int, most_clients: int = MOST_CLIENTS) -> None:
        if limit < 1 or most_clients < 1:
            raise ValueError(f"limit is {limit}, most_clients {most_clients}: each at least 1")
        self._limit = limit
        self._most_clients = most_clients
        self._day = -1
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def take(self, client: str, now_s: float) -> float:
        """Count one request; 0 where the client may make it, else the seconds until it may again. now_s: since the epoch."""
        self._begin(day_of(now_s))
        count = self._count(client)
        self._counts.move_to_end(client)
        if count.told + count.fresh >= self._limit:
            return (self._day + 1) * _DAY_S - now_s
        count.fresh += 1
        return 0.0

    def report(self, now_s: float) -> tuple[int, dict[str, int]]:
        """(day, {client: requests since the last report that was taken})."""
        self._begin(day_of(now_s))
        for count in self._counts.values():
            count.reported = count.fresh
        return self._day, {client: count.fresh for client, count in self._counts.items() if count.fresh}

    def report_taken(self) -> None:
        """What the last `report` gave is counted for all; what was counted since is in the next one."""
        for count in self._counts.values():
            count.told, count.fresh, count.reported = count.told + count.reported, count.fresh - count.reported, 0

    def learn(self, day: int, totals: Mapping[str, int]) -> None:
        """So much have all cells counted for this day, {client: requests}. What was known to be more stays.

        It may have been asked for before midnight: that of a day that is over says nothing.
        """
        if day < self._day:
            return
        self._begin(day)
        for client, total in totals.items():
            if client in self._counts or len(self._counts) < self._most_clients:
                count = self._count(client)
                count.told = max(count.told, total)

    def _begin(self, day: int) -> None:
        if day != self._day:
            self._day = day
            self._counts.clear()

    def _count(self, client: str) -> _Count:
        count = self._counts.get(client)
        if count is None:
            if len(self._counts) >= self._most_clients:
                self._counts.popitem(last=False)
            count = self._counts[client] = _Count()
        return count
