"""The tickets of a cell that nobody has used yet. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.shared_budget import SharedBudget

LIFETIME_MS: Final = 30_000
"""From its issue to the handshake: pages use it at once."""
MOST_TICKETS: Final = 4_096


class TicketLedger:
    """{key: whose it is}, in the order of their ends, at most `most`. Times: ms since the epoch."""

    def __init__(self, largest_share: float, most: int = MOST_TICKETS) -> None:
        self._budget = SharedBudget(most, largest_share)
        self._open: dict[str, tuple[Principal, int]] = {}
        self._call_off: dict[str, Callable[[], None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, key: str, principal: Principal, now_ms: int) -> bool:
        """Keep a new one; False where there is no room, in all or for this principal."""
        self._drop_expired(now_ms)
        if not self._budget.take(principal.key):
            return False
        self._open[key] = principal, now_ms + LIFETIME_MS
        return True

    def when_dropped(self, key: str, call_off: Callable[[], None]) -> None:
        """Call this once the ticket is not kept any more, however that comes."""
        self._call_off[key] = call_off

    def use(self, key: str, now_ms: int) -> Principal | None:
        """Whose it was; None where it was used before, has expired, or its principal has been logged out."""
        self._drop_expired(now_ms)
        return self.drop(key)

    def drop(self, key: str) -> Principal | None:
        """Keep it no longer; gives whose it was."""
        principal, _ = self._open.pop(key, (None, 0))
        if principal is not None:
            self._budget.give_back(principal.key)
            self._call_off.pop(key, _nothing)()
        return principal

    def _drop_expired(self, now_ms: int) -> None:
        while self._open:
            key = next(iter(self._open))
            if self._open[key][1] > now_ms:
                return
            self.drop(key)

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        assert self._budget.held == len(self._open) <= self._budget.limit
        assert self._call_off.keys() <= self._open.keys()
        ends = [expires_ms for _, expires_ms in self._open.values()]
        assert ends == sorted(ends)


def _nothing() -> None:
    """Nobody wants to know."""
