"""Credentials that have been checked, so that the next request with the same one costs a look-up. Pure."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from mcp_gateway.transports.ports.principal import Principal


@attrs.frozen
class _Known:
    principal: Principal
    until_ms: int


class KnownCredentials:
    """{digest of a credential: whom it stands for}, at most `most` of them; the one that was not used for longest makes room."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, digest: bytes, now_ms: int) -> Principal | None:
        """Whom it stands for, where that is known and still holds."""
        known = self._known.pop(digest, None)
        if known is None or now_ms >= known.until_ms:
            return None
        self._known[digest] = known  # the newest is last
        return known.principal

    def add(self, digest: bytes, principal: Principal, until_ms: int) -> None:
        """until_ms: when it must be checked again, at the latest when the principal ends."""
        self._known.pop(digest, None)
        self._known[digest] = _Known(principal, min(until_ms, principal.expires_ms))
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def keep(self, holds: Callable[[Principal], bool]) -> None:
        """Forget those of principals that do not hold any more."""
        self._known = {digest: known for digest, known in self._known.items() if holds(known.principal)}

    def clear(self) -> None:
        """Forget all: each is checked again when it comes next."""
        self._known.clear()
