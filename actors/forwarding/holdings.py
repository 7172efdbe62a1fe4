"""What a cluster has once, as one cell sees it: who owns it, and whether this node still does, by the clock alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from mcp_gateway.actors.messages.cluster import Ownership
from mcp_gateway.transports.ports.lease_clock import lease_clock_s

CLAIM_S: Final = 6.0
"""For an owner to be found: to read who it is, to wait for the end of what another one ran, and to be told."""

_ASK_AGAIN_S: Final = 1.0


class Holdings:
    """Runs on the cell's loop. node: this one. want: has this node own a thing, unless another one does."""

    def __init__(self, node: str, want: Callable[[str], None]) -> None:
        self._node = node
        self._want = want
        self._owners: Mapping[str, Ownership] = {}
        self.lease_until_s = 0.0
        """Until when this node keeps what it owns, on the clock of leases; 0 where it is no member."""
        self._has_changed = asyncio.Event()
        self._watchers: set[Callable[[], None]] = set()
        self._lease_end: asyncio.TimerHandle | None = None

    def told(self, owners: Mapping[str, Ownership], lease_until_s: float) -> None:
        """As `OwnersTold`."""
        self._owners, self.lease_until_s = owners, lease_until_s
        if self._lease_end is not None:
            self._lease_end.cancel()
            self._lease_end = None
        if (left_s := lease_until_s - lease_clock_s()) > 0:
            self._lease_end = asyncio.get_running_loop().call_later(left_s, self._look)
        self._look()

    def _look(self) -> None:
        self._has_changed.set()
        self._has_changed = asyncio.Event()
        for watcher in list(self._watchers):
            watcher()

    @property
    def is_member(self) -> bool:
        """Whether this node counts as there for the others: by its own clock, whoever may not have told it otherwise yet."""
        return lease_clock_s() < self.lease_until_s

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call it after each change, the end of the lease too, until `forget`."""
        self._watchers.add(watcher)

    def forget(self, watcher: Callable[[], None]) -> None:
        self._watchers.discard(watcher)

    def owner(self, thing: str) -> Ownership | None:
        """As far as is known; None where nobody owns it, or this node is cut off."""
        return self._owners.get(thing) if self.is_member else None

    def is_held(self, thing: str, token: int) -> bool:
        """Whether this node owns it under this very token, and may use it at this moment."""
        return self.owner(thing) == Ownership(self._node, token)

    async def owner_found(self, thing: str, timeout_s: float) -> Ownership:
        """Who owns it; this node where nobody did.

        Raises: TimeoutError, at once where this node is cut off.
        """
        async with asyncio.timeout(min(timeout_s, CLAIM_S)):
            while (owner := self.owner(thing)) is None:
                if not self.is_member:
                    raise TimeoutError("this node is cut off from its cluster")
                self._want(thing)
                await self.changed(_ASK_AGAIN_S)
        return owner

    async def changed(self, timeout_s: float) -> None:
        """Until somebody owns something else, or for so long."""
        try:
            await asyncio.wait_for(self._has_changed.wait(), timeout_s)
        except TimeoutError:
            return
