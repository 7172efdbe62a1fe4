"""A vault of one cell that keeps nothing on disk, for a gateway without a state directory. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from mcp_gateway.transports.ports.credential_vault import EntryId, EntryKind

_MOST_ENTRIES: Final = 10_000
_FOREVER_MS: Final = 2**62


class MemoryVault:
    """Implements `CredentialVault`. The entry that was written longest ago makes room for one too many."""

    def __init__(self, most_entries: int = _MOST_ENTRIES) -> None:
        self._most_entries = most_entries
        self._entries: OrderedDict[EntryId, tuple[bytes, int]] = OrderedDict()
        self._leases: dict[EntryId, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, entry: EntryId, now_ms: int) -> bytes | None:
        content, expires_ms = self._entries.get(entry, (None, 0))
        return content if now_ms < expires_ms else None

    def write(self, entry: EntryId, content: bytes, now_ms: int, expires_ms: int | None = None) -> None:
        self.delete(entry)
        self._entries[entry] = (content, _FOREVER_MS if expires_ms is None else expires_ms)
        if len(self._entries) > self._most_entries:
            over = [known for known, (_, end_ms) in self._entries.items() if end_ms <= now_ms]
            for each in over or [next(iter(self._entries))]:
                self.delete(each)

    def take(self, entry: EntryId, now_ms: int) -> bytes | None:
        content = self.read(entry, now_ms)
        self.delete(entry)
        return content

    def delete(self, entry: EntryId) -> None:
        self._entries.pop(entry, None)
        self._leases.pop(entry, None)

    def lease(self, entry: EntryId, until_ms: int, now_ms: int) -> bool:
        if entry not in self._entries or self._leases.get(entry, 0) > now_ms:
            return False
        self._leases[entry] = until_ms
        return True

    def principals(self) -> frozenset[str]:
        return frozenset(entry.principal for entry in self._entries if entry.kind is EntryKind.GRANT)

    def forget(self, principal: str) -> None:
        for entry in list(self._entries):
            if entry.kind is EntryKind.FLOW or (entry.kind is EntryKind.GRANT and entry.principal == principal):
                self.delete(entry)

    def release(self, entry: EntryId) -> None:
        self._leases.pop(entry, None)
