"""The lists that backends gave last: they stand in for a backend that does not answer, for a while. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

GRACE_S = 300.0
"""How long a list stands in: a backend that restarts, or is slow, keeps its tools; one that is gone does not for ever."""

MOST_LISTS = 1_000
MOST_BYTES = 1_048_576
"""A longer list is not kept."""

ListKey = tuple[str, str, str]
"""(backend, method, revision): a result has the shape of the revision it was asked in."""


class LastKnownLists:
    """{key: the pages of the last complete answer}. Not for results that are private to one client: its owner keeps those out."""

    def __init__(self) -> None:
        self._lists: OrderedDict[ListKey, tuple[tuple[bytes, ...], float]] = OrderedDict()

    def remember(self, key: ListKey, pages: Sequence[bytes], now_s: float) -> None:
        if sum(map(len, pages)) > MOST_BYTES:
            self._lists.pop(key, None)
            return
        self._lists[key] = (tuple(pages), now_s)
        self._lists.move_to_end(key)
        if len(self._lists) > MOST_LISTS:
            self._lists.popitem(last=False)

    def forget(self, backends: Collection[str]) -> None:
        """Drop the lists of backends that are no more, or are other servers now."""
        for key in [key for key in self._lists if key[0] in backends]:
            del self._lists[key]

    def recall(self, key: ListKey, now_s: float) -> tuple[tuple[bytes, ...], float] | None:
        """(pages, seconds since they were given), or None where none is known or its time has passed."""
        known = self._lists.get(key)
        if known is None:
            return None
        pages, given_s = known
        if now_s - given_s > GRACE_S:
            del self._lists[key]
            return None
        return pages, now_s - given_s
