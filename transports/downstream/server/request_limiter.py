"""Holds clients to `[limits]`, on every transport, and in what they publish: who asks too often is told when to come back.

A session is free to open and a header free to choose: a client that is told apart by them has its own limit, and with all others
of its address one of CLIENTS_OF_ADDRESS times that. `user` is who a client has proved to be, not who it says it is.

Where nodes share the limits, each gives out the part of them that it is told to hold, and says what it was asked for.

What may be asked for in a day is counted of who a client has proved to be, or of its address, whatever else it is told apart by.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.daily_quota import DailyQuota
from mcp_gateway.transports.ports.hash_keys import principal_of
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .token_bucket import MOST_KEYS, TokenBuckets

_TELL_S = 1.0
CLIENTS_OF_ADDRESS: Final = 4
"""So many clients' worth may come from one address where each is told apart by what it can change at will."""

EVENTS_PER_S: Final = 1_000.0
EVENT_BURST: Final = 5_000.0
"""What the clients of one address may publish in a node, far above what people and programs have to say: each event goes to all
who follow its topic, and to the disk."""

Publish = Callable[[str, Mapping[str, Any]], None]
_ADDRESS: Final = "address"
_MOST_TOLD: Final = 200
_SHORTEST_LOOK_S: Final = 0.1
_KNOWN_SOURCES: Final = frozenset({"user", "ip"})


class RequestLimiter:
    """Counts the requests of each client; what the node holds is shared out among its cells.

    publish: tells the bus of attenuation, at most once in _TELL_S for all clients together.
    quota:   what clients use of their day, where that is limited. Without a state directory nobody counts for all cells: each
             then gives out its part.
    """

    def __init__(self, settings: Settings, publish: Publish) -> None:
        limits, cell_count = settings.limits, settings.gateway.cell_count
        self._sources = limits.key_sources
        self._publish = publish
        self._buckets: TokenBuckets | None = None
        if limits.requests_per_second > 0:
            rate = limits.requests_per_second / cell_count
            burst = max(1.0, (limits.burst or limits.requests_per_second) / cell_count)
            self._buckets = TokenBuckets(rate, burst)
            self._of_addresses = TokenBuckets(rate * CLIENTS_OF_ADDRESS, burst * CLIENTS_OF_ADDRESS)
            self._limits = {"": limits.requests_per_second, _ADDRESS: limits.requests_per_second * CLIENTS_OF_ADDRESS}
        self.quota: DailyQuota | None = None
        if limits.requests_per_day:
            sharers = cell_count if settings.gateway.state_path is None else 1
            self.quota = DailyQuota(-(-limits.requests_per_day // sharers))
        self._is_shared = False
        self._default, self._parts = 1.0, dict[str, float]()
        self._asked: dict[tuple[str, str], int] = {}  # {(kind of limit, client): requests since the last look}
        self._looked_s = time.monotonic()
        self._events = TokenBuckets(EVENTS_PER_S / cell_count, max(1.0, EVENT_BURST / cell_count))
        self._refused: dict[str, int] = {}
        self._told_s = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether there is a limit at all: without one nobody need look up a client's keys."""
        return self._buckets is not None or self.quota is not None

    def admit(self, keys: Mapping[str, str], request_id: bytes | None = None, *, is_ping: bool = False) -> None:
        """Count one request of the client with these keys ({source: value}, as routes hash on).

        is_ping: it keeps a connection alive, and costs nobody a part of the day.

        Raises: Refused with rate_limited.
        """
        if self._buckets is not None:
            self._admit_at_rate(self._buckets, keys, request_id)
        if self.quota is not None and not is_ping:
            self._admit_today(self.quota, keys, request_id)

    def _admit_at_rate(self, buckets: TokenBuckets, keys: Mapping[str, str], request_id: bytes | None) -> None:
        source, client = self._client(keys)
        now_s = time.monotonic()
        key = f"{source}:{client}"
        wait_s = buckets.take(key, now_s, self._part("", key))
        if not wait_s and source not in _KNOWN_SOURCES:
            address = keys.get("ip", "")
            wait_s, source = self._of_addresses.take(address, now_s, self._part(_ADDRESS, address)), "ip"
        if wait_s:
            raise self._refusal(source, wait_s, now_s, request_id)

    def _admit_today(self, quota: DailyQuota, keys: Mapping[str, str], request_id: bytes | None) -> None:
        principal = principal_of(keys)
        source, client = ("user", principal) if principal else ("ip", keys.get("ip", ""))
        if wait_s := quota.take(_name_of(source, client), time.time()):
            metrics.bounds_reached_total.labels("requests_per_day").inc()
            text = "all requests of this day are used; see retry_after"
            raise self._refusal(source, wait_s, time.monotonic(), request_id, text)

    def hold(self, default: float, parts: Mapping[str, float]) -> None:
        """Give out these parts of the limits from now on: {client, as `take_asked` names it: part}, and of others `default`."""
        self._is_shared = True
        self._default, self._parts = default, dict(parts)

    def take_asked(self) -> dict[str, float]:
        """What clients have asked for since the last time, {client: parts of its limit per second}; those who ask most."""
        now_s = time.monotonic()
        elapsed_s, self._looked_s = max(now_s - self._looked_s, _SHORTEST_LOOK_S), now_s
        asked, self._asked = self._asked, {}
        most = heapq.nlargest(_MOST_TOLD, asked.items(), key=lambda each: each[1] / self._limits[each[0][0]])
        return {_name_of(*client): count / elapsed_s / self._limits[client[0]] for client, count in most}

    def _part(self, kind: str, key: str) -> float:
        if not self._is_shared:
            return 1.0
        client = (kind, key)
        if client in self._asked or len(self._asked) < MOST_KEYS:
            self._asked[client] = self._asked.get(client, 0) + 1
        return self._parts.get(_name_of(kind, key), self._default) if self._parts else self._default

    def admit_event(self, holder: str) -> None:
        """Count one event that a client publishes. holder: see `hash_keys.holder_of`.

        Raises: Refused with rate_limited.
        """
        now_s = time.monotonic()
        if wait_s := self._events.take(holder, now_s):
            raise self._refusal("ip", wait_s, now_s, None)

    def _refusal(
        self,
        source: str,
        wait_s: float,
        now_s: float,
        request_id: bytes | None,
        text: str = "too many requests; see retry_after",
    ) -> Refused:
        metrics.rate_limited_total.labels(source).inc()
        self._refused[source] = self._refused.get(source, 0) + 1
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            refused, self._refused = self._refused, {}
            self._publish("vsm.variety.attenuated", {"refused": refused})
        return Refused("rate_limited", text, request_id=request_id, retry_after_s=round(wait_s, 3))

    def _client(self, keys: Mapping[str, str]) -> tuple[str, str]:
        """(source, value) of the first source by which this client can be told from others."""
        for source in self._sources:
            value = principal_of(keys) if source == "user" else keys.get(source)
            if value:
                return source, value
        return "ip", keys.get("ip", "")


def _name_of(kind: str, key: str) -> str:
    """Of a client, for other nodes: short, and it does not say who it is."""
    return hashlib.blake2b(f"{kind} {key}".encode(errors="surrogatepass"), digest_size=12).hexdigest()
