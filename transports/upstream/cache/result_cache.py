"""Results that a server lets others keep: which, for whom, for how long. Pure.

Source: MCP 2026-07-28, server/utilities/caching; "Cache Scope Field": what is private is used again within the same authorization
context only. Where nobody knows whose a request is, no two are known to be of the same one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.change_notifications import RESOURCE_UPDATED
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.mcp.revisions import CACHEABLE_METHODS

MOST_RESULTS: Final = 1_000
MOST_BYTES: Final = 16_777_216
"""All results together."""

_LONGEST_TTL_MS: Final = 24 * 3_600 * 1_000

# What each change notification makes stale.
_STALE_AFTER: Final = {
    "notifications/tools/list_changed": frozenset({"tools/list"}),
    "notifications/prompts/list_changed": frozenset({"prompts/list"}),
    "notifications/resources/list_changed": frozenset({"resources/list", "resources/templates/list"}),
    RESOURCE_UPDATED: frozenset({"resources/read"}),
}

CacheKey = tuple[str, bytes]
"""(method, the parameters that affect the result as canonical JSON)."""


@attrs.frozen
class CachedResult:
    """result: as the server gave it. fresh_until_s: on the caller's clock."""

    result: bytes = attrs.field(repr=False)
    fresh_until_s: float
    size_bytes: int


def cache_key(method: str, params: bytes) -> CacheKey | None:
    """What identifies a request whose result may be kept; None where it never may.

    `_meta` says who asks and how, not for what; a retry of a multi round-trip request depends on more than its parameters.

    Raises: msgspec.DecodeError.
    """
    if method not in CACHEABLE_METHODS:
        return None
    values = members(params)
    if "inputResponses" in values or "requestState" in values:
        return None
    values.pop("_meta", None)
    # Decoded and sorted, so that the order of members and the spelling of strings do not tell two requests apart.
    decoded = {name: msgspec.json.decode(value) for name, value in values.items()}
    return method, msgspec.json.encode(decoded, order="deterministic")


def made_stale(keys: Iterable[CacheKey], notification: str, params: bytes) -> set[CacheKey]:
    """Those of the keys whose results are no longer true once the server has said this.

    Raises: msgspec.DecodeError.
    """
    methods = _STALE_AFTER.get(notification)
    if methods is None:
        return set()
    uri = members(params).get("uri") if notification == RESOURCE_UPDATED else None
    return {key for key in keys if key[0] in methods and (uri is None or members(key[1]).get("uri") == uri)}


class ResultCache:
    """The results of one server. principal: who asks, "" where that is not known; such a client gets public results alone.

    Bounded in number and size; what was used longest ago goes first. The time is an argument, in seconds.
    """

    def __init__(self, most_results: int = MOST_RESULTS, most_bytes: int = MOST_BYTES) -> None:
        self._most_results = most_results
        self._most_bytes = most_bytes
        self._size_bytes = 0
        self._results: OrderedDict[tuple[CacheKey, str], CachedResult] = OrderedDict()

    def __len__(self) -> int:
        return len(self._results)

    def find(self, key: CacheKey, principal: str, now_s: float) -> bytes | None:
        """A fresh result, its `ttlMs` what is left of it; a client must not keep it for longer than we may."""
        for owner in dict.fromkeys(("", principal)):
            cached = self._results.get((key, owner))
            if cached is None:
                continue
            left_s = cached.fresh_until_s - now_s
            if left_s <= 0:
                self._drop((key, owner))
                continue
            self._results.move_to_end((key, owner))
            return _with_ttl(cached.result, int(left_s * 1000))
        return None

    def keep(self, key: CacheKey, principal: str, result: bytes, now_s: float) -> bool:
        """Keep a result if its server lets us, and tell whether."""
        ttl_ms, is_public = _hints(result)
        if ttl_ms <= 0 or (not is_public and not principal) or len(result) > self._most_bytes:
            return False
        place = (key, "" if is_public else principal)
        self._drop(place)
        self._results[place] = CachedResult(result, now_s + ttl_ms / 1000, len(result))
        self._size_bytes += len(result)
        while len(self._results) > self._most_results or self._size_bytes > self._most_bytes:
            self._drop(next(iter(self._results)))
        return True

    def note_change(self, notification: str, params: bytes) -> None:
        """The server says that something has changed: what shows it is stale. Raises: msgspec.DecodeError."""
        stale = made_stale((key for key, _ in self._results), notification, params)
        for place in [place for place in self._results if place[0] in stale]:
            self._drop(place)

    def clear(self) -> None:
        """Nothing can be known to be fresh any more."""
        self._results.clear()
        self._size_bytes = 0

    def assert_consistent(self) -> None:
        """Check what must hold after every call; for tests."""
        assert len(self._results) <= self._most_results
        assert self._size_bytes == sum(cached.size_bytes for cached in self._results.values()) <= self._most_bytes

    def _drop(self, place: tuple[CacheKey, str]) -> None:
        cached = self._results.pop(place, None)
        if cached is not None:
            self._size_bytes -= cached.size_bytes


def is_public(result: bytes) -> bool:
    """Whether the server gives this result to everybody alike."""
    return _hints(result)[1]


def _hints(result: bytes) -> tuple[int, bool]:
    """(time to live in ms, whether everybody may have it); 0 where the result may not be kept at all."""
    if b'"ttlMs"' not in result:
        return 0, False
    try:
        values = members(result)
        if msgspec.json.decode(values.get("resultType", Raw(b'"complete"'))) != "complete":
            return 0, False
        ttl_ms = msgspec.json.decode(values["ttlMs"])
        scope = msgspec.json.decode(values.get("cacheScope", Raw(b'"private"')))
    except (KeyError, msgspec.DecodeError, RecursionError):
        return 0, False
    if not isinstance(ttl_ms, int) or isinstance(ttl_ms, bool):
        return 0, False
    return min(ttl_ms, _LONGEST_TTL_MS), scope == "public"


def _with_ttl(result: bytes, ttl_ms: int) -> bytes:
    values = members(result)
    values["ttlMs"] = Raw(b"%d" % ttl_ms)
    return msgspec.json.encode(values)
