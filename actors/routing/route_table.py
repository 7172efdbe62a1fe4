"""Which route a request takes: patterns over targets such as `tools/call/files__read`, the most literal one wins. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import attrs

from mcp_gateway.config.backend_settings import TRANSPORT_NAMES, BackendSettings, RouteSettings
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.merging.wildcard import Wildcard

# Clients choose the targets: neither many nor long ones may fill the memory of a cell.
_CACHED_TARGETS = 4_096
_ROUTED_AS = {"grpc": "streamable_http"}  # the stateless revision on another wire: routes do not tell the two apart
_LONGEST_CACHED_TARGET = 512


@attrs.frozen(kw_only=True)
class Route:
    """One route as the router uses it.

    pattern:    matched against `tools/call/<name>`, `resources/read/<uri>`, `prompts/get/<name>` or `<method>`.
    hash_on:    where the key for the ring is taken from, in order of preference: ("user", "header:X-Tenant").
    max_ejected_share: of its backend's replicas, how many calls that fail may keep out at one time.
    failure_rate_threshold, slow_call_rate_threshold: shares of the calls to a replica within rate_window_s, if there were so many
                as rate_minimum_calls; a call is slow that takes longer than slow_call_duration_s. 0.0 asks for none of them.
    panic:      where no replica may take a call, one that is out is tried.
    hash_balance_factor: of the mean load, how much a replica may have before its keys go to the next one; 0.0 for any.
    slow_start_s: for how long a replica that returns takes only part of its keys; 0.0 for none.
    transports: names of the client-side transports that this route serves.
    """

    pattern: str
    backend: str
    hash_on: tuple[str, ...] = ("user", "session", "ip")
    failure_threshold: int = 5
    reset_timeout_s: float = 30.0
    max_ejected_share: float = 0.5
    failure_rate_threshold: float = 0.5
    slow_call_rate_threshold: float = 0.5
    slow_call_duration_s: float = 0.0
    rate_window_s: float = 10.0
    rate_minimum_calls: int = 20
    panic: bool = False
    hash_balance_factor: float = 0.0
    slow_start_s: float = 0.0
    transports: frozenset[str] = frozenset(TRANSPORT_NAMES)


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
        self._cached_is_routed = lru_cache(maxsize=_CACHED_TARGETS)(self._is_routed)

    def match(self, target: str, transport: str) -> Route | None:
        """The route for a target that came in over a transport; None when nothing serves it."""
        transport = _ROUTED_AS.get(transport, transport)
        if len(target) > _LONGEST_CACHED_TARGET:
            return self._find(target, transport)
        return self._cached_find(target, transport)

    def is_routed(self, target: str) -> bool:
        """Whether a route serves the target over any transport at all."""
        if len(target) > _LONGEST_CACHED_TARGET:
            return self._is_routed(target)
        return self._cached_is_routed(target)

    def _is_routed(self, target: str) -> bool:
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
        failure_rate_threshold=route.failure_rate_threshold,
        slow_call_rate_threshold=route.slow_call_rate_threshold,
        slow_call_duration_s=route.slow_call_duration,
        rate_window_s=route.rate_window,
        rate_minimum_calls=route.rate_minimum_calls,
        panic=route.panic,
        hash_balance_factor=route.hash_balance_factor,
        slow_start_s=route.slow_start,
        transports=frozenset(route.transports),
    )
