"""Which route a request takes: patterns over targets such as `tools/call/files__read`, the most literal one wins. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import attrs

from mcp_gateway.config.settings import TRANSPORT_NAMES, BackendSettings, RouteSettings
from mcp_gateway.transports.protocol.merging.naming import Naming

# Clients choose the targets: neither many nor long ones may fill the memory of a cell.
_CACHED_TARGETS = 4_096
_LONGEST_CACHED_TARGET = 512


@attrs.frozen(kw_only=True)
class Route:
    """One route as the router uses it.

    pattern:    matched against `tools/call/<name>`, `resources/read/<uri>`, `prompts/get/<name>` or `<method>`.
    hash_on:    where the key for the ring is taken from, in order of preference: ("user", "header:X-Tenant").
    max_ejected_share: of its backend's replicas, how many calls that fail may keep out at one time.
    transports: names of the client-side transports that this route serves.
    """

    pattern: str
    backend: str
    hash_on: tuple[str, ...] = ("user", "session", "ip")
    failure_threshold: int = 5
    reset_timeout_s: float = 30.0
    max_ejected_share: float = 0.5
    transports: frozenset[str] = frozenset(TRANSPORT_NAMES)


class Wildcard:
    """A pattern in which `*` stands for any run of characters, "/" and none included, and everything else for itself.

    The parts between the stars are searched one after the other, each at its first place: that is enough, because taking an
    earlier place never rules out a later part. So there is no backtracking and no expression that a hostile target can slow down.
    """

    __slots__ = ("_first", "_last", "_middle", "literal_count", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        parts = pattern.split("*")
        self.literal_count = sum(map(len, parts))
        self._first = parts[0]
        self._middle = [part for part in parts[1:-1] if part]
        self._last = parts[-1] if len(parts) > 1 else None

    def matches(self, text: str) -> bool:
        if self._last is None:
            return text == self._first
        end = len(text) - len(self._last)
        position = len(self._first)
        if position > end or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._middle:
            found = text.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True


class RouteTable:
    """Finds the route of a target. A table does not change; the router replaces it.

    Of all routes that match, the one with most literal characters wins, then the one declared first.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        wildcards = [(Wildcard(route.pattern), route) for route in self.routes]
        # sorted() is stable: equals stay in the order of declaration.
        self._by_precedence = sorted(wildcards, key=lambda entry: -entry[0].literal_count)
        self._cached_find = lru_cache(maxsize=_CACHED_TARGETS)(self._find)

    def match(self, target: str, transport: str) -> Route | None:
        """The route for a target that came in over a transport; None when nothing serves it."""
        if len(target) > _LONGEST_CACHED_TARGET:
            return self._find(target, transport)
        return self._cached_find(target, transport)

    def is_routed(self, target: str) -> bool:
        """Whether a route serves the target over any transport at all."""
        return any(wildcard.matches(target) for wildcard, _ in self._by_precedence)

    def _find(self, target: str, transport: str) -> Route | None:
        for wildcard, route in self._by_precedence:
            if transport in route.transports and wildcard.matches(target):
                return route
        return None


def default_routes(backends: Iterable[BackendSettings]) -> tuple[Route, ...]:
    """The routes of a file that names none: each backend by its prefix, its resources by their scheme as well."""
    return tuple(
        Route(pattern=pattern, backend=backend.name)
        for backend in backends
        for pattern in Naming(backend.name, backend.prefix).default_patterns
    )


def configured_routes(backends: Iterable[BackendSettings], routes: Iterable[RouteSettings]) -> tuple[Route, ...]:
    """The routes of a configuration: its own, or those by prefix."""
    return tuple(map(route_of, routes)) or default_routes(backends)


def route_of(route: RouteSettings) -> Route:
    """A route of the configuration, as the router uses it."""
    return Route(
        pattern=route.pattern,
        backend=route.backend,
        hash_on=route.hash_sources,
        failure_threshold=route.failure_threshold,
        reset_timeout_s=route.reset_timeout,
        max_ejected_share=route.max_ejected_share,
        transports=frozenset(route.transports),
    )
