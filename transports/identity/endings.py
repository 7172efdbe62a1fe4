"""What is to end when a credential does: streams, sockets, channels; by the clock, or because somebody took it back. Pure."""

from __future__ import annotations

from collections.abc import Callable

from sortedcontainers import SortedDict  # type: ignore[import-untyped]

from mcp_gateway.transports.ports.principal import Principal

Callback = Callable[[], None]


class Endings:
    """Callbacks in the order of their principals' ends. How many there are is bounded by the connections that they belong to."""

    def __init__(self) -> None:
        self._waiting: SortedDict[tuple[int, int], tuple[Principal, Callback]] = SortedDict()
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_ms(self) -> int | None:
        """When the first of them is due, since the epoch."""
        return self._waiting.peekitem(0)[0][0] if self._waiting else None

    def add(self, principal: Principal, callback: Callback) -> Callback:
        """The function returned calls it off; more than once does no harm."""
        self._count += 1
        key = (principal.expires_ms, self._count)
        self._waiting[key] = (principal, callback)
        return lambda: self._waiting.pop(key, None) and None

    def due(self, now_ms: int) -> list[Callback]:
        """Take those out whose principals have ended."""
        found = []
        while self._waiting and self._waiting.peekitem(0)[0][0] <= now_ms:
            found.append(self._waiting.popitem(0)[1][1])
        return found

    def of(self, is_meant: Callable[[Principal], bool]) -> list[Callback]:
        """Take those out whose principals are meant."""
        keys = [key for key, (principal, _) in self._waiting.items() if is_meant(principal)]
        return [self._waiting.pop(key)[1] for key in keys]
