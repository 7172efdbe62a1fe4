"""The pages of merged lists that their readers have yet to ask for: no server is asked again for each of them. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping

import attrs

from mcp_gateway.transports.protocol.merging.merged_server import PageStart

HELD_S = 30.0
"""How long: clients that want more than a page ask at once."""

MOST_BYTES = 16_777_216
"""Of all lists together. Those that were gathered first go first: whoever reads them has the backends asked again."""

PagesKey = tuple[Hashable, ...]
"""Who may read them, and what of: endpoint, method, revision."""


@attrs.frozen
class _Held:
    pages: Mapping[PageStart, bytes]
    until_s: float
    byte_count: int


class HeldPages:
    """{key: the pages of the list that was gathered last}."""

    def __init__(self) -> None:
        self._lists: OrderedDict[PagesKey, _Held] = OrderedDict()  # the oldest first
        self._byte_count = 0

    def hold(self, key: PagesKey, pages: Mapping[PageStart, bytes], now_s: float) -> None:
        """pages: {where it begins: result}."""
        self._drop(key)
        byte_count = sum(map(len, pages.values()))
        if not pages or byte_count > MOST_BYTES:
            return
        self._lists[key] = _Held(pages, now_s + HELD_S, byte_count)
        self._byte_count += byte_count
        while self._byte_count > MOST_BYTES:
            self._drop(next(iter(self._lists)))

    def find(self, key: PagesKey, start: PageStart, now_s: float) -> bytes | None:
        """The result that begins there, where it is held."""
        held = self._lists.get(key)
        return held.pages.get(start) if held is not None and now_s < held.until_s else None

    def sweep(self, now_s: float) -> None:
        """Let go of what has been held long enough."""
        while self._lists:
            key, held = next(iter(self._lists.items()))
            if now_s < held.until_s:
                return
            self._drop(key)

    def forget_all(self) -> None:
        """What was gathered is not what would be gathered now."""
        self._lists.clear()
        self._byte_count = 0

    def _drop(self, key: PagesKey) -> None:
        held = self._lists.pop(key, None)
        if held is not None:
            self._byte_count -= held.byte_count
