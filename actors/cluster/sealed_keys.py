"""Keys of the engine whose values only a node of the cluster can read, or make.

A value is sealed with the name of its key (AES-256-GCM, RFC 5116): whoever can write to the engine can take it away, or put back
what the key had before, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Final

from cryptography.exceptions import InvalidTag

from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing

from .engine import Entry, Keys

_NONCE_BYTES: Final = 12


class SealedKeys:
    """Implements `engine.Keys` over those of an engine. A value that no node of this cluster has made reads as b""."""

    def __init__(self, keys: Keys, cipher: KeyRing) -> None:
        self._keys = keys
        self._cipher = cipher

    async def get(self, key: str) -> Entry | None:
        found = await self._keys.get(key)
        return None if found is None else self._opened(found)

    async def create(self, key: str, value: bytes, ttl_s: int | None = None) -> int:
        return await self._keys.create(key, self._sealed(key, value), ttl_s)

    async def update(self, key: str, value: bytes, revision: int, ttl_s: int | None = None, is_news: bool = True) -> int:
        return await self._keys.update(key, self._sealed(key, value), revision, ttl_s, is_news)

    async def delete(self, key: str, revision: int) -> None:
        await self._keys.delete(key, revision)

    async def watch(self, prefix: str) -> AsyncIterator[tuple[Entry, ...]]:
        async for entries in self._keys.watch(prefix):
            yield tuple(self._opened(entry) for entry in entries)

    def _sealed(self, key: str, value: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value, _about(key))

    def _opened(self, entry: Entry) -> Entry:
        if entry.value is None:
            return entry
        try:
            value = self._cipher.decrypt(entry.value[:_NONCE_BYTES], entry.value[_NONCE_BYTES:], _about(entry.key))
        except (InvalidTag, ValueError):
            value = b""
        return Entry(entry.key, entry.revision, value)


def _about(key: str) -> bytes:
    return f"key {key}".encode()
