"""Every metric of the gateway. With PROMETHEUS_MULTIPROC_DIR set before the import, all processes of a node share them.

Names and labels are the gateway's contract; they may be added to, not changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from .metric_files import use_reserved_files

use_reserved_files()

OTHER = "other"


class BoundedLabel:
    """Keeps the values of a label few: the first `most` that come are shown by name, all later ones share `other`."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value


class ConfiguredLabel:
    """Shows the values that the configuration has, or has had; all others, which clients make up, share `other`."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known = {""}

    def learn(self, values: Iterable[str]) -> None:
        self._known.update(values)

    def __call__(self, value: str) -> str:
        return value if value in self._known else OTHER


class ToolLabel:
    """Shows the tools of each backend that its lists have named, and the first few others; the rest, made up or not, is `other`.

    A call may come before the first list, and some clients never ask for one: hence the few others.

    most_listed:   of a backend, the latest; a name that a series has been made for keeps it.
    most_unlisted: of a backend. longest: characters of a name.
    """

    def __init__(self, most_listed: int = 500, most_unlisted: int = 20, longest: int = 128) -> None:
        self._most_listed, self._most_unlisted, self._longest = most_listed, most_unlisted, longest
        self._listed: dict[str, dict[str, None]] = {}
        self._shown: dict[str, set[str]] = {}
        self._guessed: dict[str, int] = {}

    def learn(self, backend: str, names: Iterable[str]) -> None:
        """The backend has listed these; names as clients write them."""
        listed = self._listed.setdefault(backend, {})
        for name in names:
            if len(name) <= self._longest:
                listed.pop(name, None)
                listed[name] = None
        while len(listed) > self._most_listed:
            del listed[next(iter(listed))]

    def __call__(self, backend: str, name: str) -> str:
        """backend: as `known_backend` shows it, so that there are few."""
        shown = self._shown.setdefault(backend, set())
        if name in shown:
            return name
        guessed = self._guessed.get(backend, 0)
        if name in self._listed.get(backend, ()):
            if len(shown) - guessed >= self._most_listed:
                return OTHER
        elif guessed >= self._most_unlisted or len(name) > self._longest:
            return OTHER
        else:
            self._guessed[backend] = guessed + 1
        shown.add(name)
        return name


BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

downstream_connections = Gauge(
    "mcp_gateway_downstream_connections", "Open connections of clients", ["transport"], multiprocess_mode="livesum"
)
waiting_connections = Gauge(
    "mcp_gateway_waiting_connections", "Connections of clients without a request in flight", multiprocess_mode="livesum"
)
buffered_bytes = Gauge(
    "mcp_gateway_buffered_bytes",
    "Bytes of messages that clients are sending (in) or have not read yet (out)",
    ["direction"],
    multiprocess_mode="livesum",
)
clients_cut_total = Counter(
    "mcp_gateway_clients_cut_total",
    "Connections that were closed because their client did not read: nothing for too long, or too much waited for it",
    ["reason"],
)
requests_total = Counter(
    "mcp_gateway_requests_total", "Requests of clients that have ended", ["transport", "method", "backend", "outcome"]
)
request_duration_seconds = Histogram(
    "mcp_gateway_request_duration_seconds",
    "Seconds from a client's request to the end of its answer",
    ["method", "backend"],
    buckets=BUCKETS,
)
gateway_latency_seconds = Histogram(
    "mcp_gateway_gateway_latency_seconds",
    "Seconds of a request by where they went: the gateway itself, or the server",
    ["stage"],
    buckets=BUCKETS,
)
pool_connections = Gauge(
    "mcp_gateway_pool_connections",
    "Connections to a replica by state: leased, idle; and the calls waiting for one",
    ["backend", "replica", "state"],
    multiprocess_mode="livesum",
)
concurrency_limit = Gauge(
    "mcp_gateway_concurrency_limit",
    "Calls at once that a replica takes without becoming slower, with adaptive_concurrency",
    ["backend", "replica"],
    multiprocess_mode="livesum",
)
pool_exhausted_total = Counter(
    "mcp_gateway_pool_exhausted_total", "Calls refused because no connection became free in time", ["backend"]
)
circuit_state = Gauge(
    "mcp_gateway_circuit_state",
    "Circuit breaker: 0 closed, 1 half open, 2 open",
    ["route", "replica"],
    multiprocess_mode="livesum",
)
circuits_kept_closed_total = Counter(
    "mcp_gateway_circuits_kept_closed_total",
    "Failures that would have opened a circuit, had not max_ejected_share of the route's replicas been out",
    ["route"],
)
retries_total = Counter(
    "mcp_gateway_retries_total",
    "Requests that a server may have seen and that were safe to send again: sent, or over_budget",
    ["backend", "outcome"],
)
panics_total = Counter(
    "mcp_gateway_panics_total", "Calls that went to a replica that was out because all of the route's replicas were", ["route"]
)
ring_members = Gauge("mcp_gateway_ring_members", "Replicas on a route's hash ring", ["route"], multiprocess_mode="livemax")
health_status = Gauge(
    "mcp_gateway_health_status", "2 healthy, 1 degraded, 0 unhealthy", ["component"], multiprocess_mode="livemin"
)
event_loop_lag_seconds = Gauge(
    "mcp_gateway_event_loop_lag_seconds", "How late timers of the latest cell's event loop are", multiprocess_mode="livemax"
)
restarts_total = Counter("mcp_gateway_restarts_total", "Restarts of supervised children", ["child"])
events_published_total = Counter("mcp_gateway_events_published_total", "Events published on the bus", ["topic"])
events_delivered_total = Counter(
    "mcp_gateway_events_delivered_total", "Events of topics that clients' sockets have taken", ["transport"]
)
events_lost_total = Counter(
    "mcp_gateway_events_lost_total", "Events that a client missed because it came back too late, or was too slow", ["transport"]
)
sessions = Gauge("mcp_gateway_sessions", "Sessions in use by revision", ["revision"], multiprocess_mode="livesum")
refusals_total = Counter(
    "mcp_gateway_refusals_total",
    "Requests and upgrades over HTTP that were refused, by reason, also those that were no request of MCP yet",
    ["reason"],
)
rate_limited_total = Counter(
    "mcp_gateway_rate_limited_total", "Requests refused by a rate limit, by the source of the client's key", ["key"]
)
bridge_total = Counter(
    "mcp_gateway_bridge_total",
    "Exchanges that were translated between revisions, by the eras of the two sides",
    ["client_era", "server_era", "method"],
)
algedonic_signals_total = Counter(
    "mcp_gateway_algedonic_signals_total", "Signals of pain, pleasure and emergency by what they come from", ["kind", "source"]
)
bounds_reached_total = Counter(
    "mcp_gateway_bounds_reached_total",
    "Times that clients or servers have come to a bound on what they may hold or say, by bound",
    ["bound"],
)
tool_refusals_total = Counter(
    "mcp_gateway_tool_refusals_total",
    "Calls and results of tools that a rule of their backend has refused, or cut, by rule",
    ["backend", "rule"],
)
tool_changes_total = Counter(
    "mcp_gateway_tool_changes_total", "Times that a tool was not what was approved and had not been seen so before", ["backend"]
)
tool_calls_total = Counter("mcp_gateway_tool_calls_total", "Calls of tools that have ended", ["backend", "tool", "outcome"])
upstream_messages_dropped_total = Counter(
    "mcp_gateway_upstream_messages_dropped_total",
    "Messages of servers that belong to none of their own exchanges, by what they are",
    ["backend", "kind"],
)
authentications_total = Counter(
    "mcp_gateway_authentications_total",
    "Credentials that were checked because they were not known yet (bearer, proxy, certificate), by outcome",
    ["kind", "outcome"],
)
logins_refused_total = Counter(
    "mcp_gateway_logins_refused_total",
    "Requests and handshakes whose client was not let in, by what it has shown and the reason of the refusal",
    ["shown", "reason"],
)
consents_total = Counter(
    "mcp_gateway_consents_total",
    "Consents of users to what servers ask for, asked, begun, given or failed",
    ["backend", "outcome"],
)
token_requests_total = Counter(
    "mcp_gateway_token_requests_total",
    "Requests for tokens that servers are shown, by how they are asked for and how that ended",
    ["backend", "grant", "outcome"],
)
logouts_total = Counter("mcp_gateway_logouts_total", "Logout tokens that issuers have sent, by outcome", ["outcome"])
audit_entries_total = Counter(
    "mcp_gateway_audit_entries_total", "Decisions of policies, by whether the audit trail has them", ["outcome"]
)
alerts_total = Counter("mcp_gateway_alerts_total", "Alerts by sink and what became of them", ["sink", "outcome"])

cluster_nodes = Gauge(
    "mcp_gateway_cluster_nodes", "Nodes of the cluster that this one sees, itself too", multiprocess_mode="livemax"
)
cluster_fenced_total = Counter("mcp_gateway_cluster_fenced_total", "Times that this node was cut off from its cluster")
cluster_limit_part = Gauge(
    "mcp_gateway_cluster_limit_part", "Part of each client's limit that this node holds by default", multiprocess_mode="livemax"
)
cluster_packets_total = Counter("mcp_gateway_cluster_packets_total", "Packets between nodes: sent, taken, refused", ["outcome"])
cluster_ownership_total = Counter(
    "mcp_gateway_cluster_ownership_total",
    "Writes of owner records by this node: acquired, released, refused, unknown",
    ["outcome"],
)


def forget(gauge: Gauge, *labels: str) -> None:
    """Let a gauge show nothing for what exists no more: a removed backend must not look down for ever.

    The files that processes share cannot drop an entry: it becomes not-a-number, which no scrape shows (`metric_reader`).
    """
    gauge.labels(*labels).set(math.nan)


bounded_source = BoundedLabel(300)
_BOUNDS = (
    *("waiting", "headers", "idle", "descriptors", "connections", "buffered", "messages"),
    *("logins", "logouts", "tickets", "questions", "names", "requests_per_day", "early_mail"),
)
_EARLY_REASONS = ("unauthorized", "forbidden", "origin_forbidden", "invalid_request", "too_large", "too_many_connections")
"""Why a request may be refused before it is known what it asks for."""
CUT_REASONS = ("write_timeout", "address_share", "budget")
known_backend = ConfiguredLabel()
tool_label = ToolLabel()
_TRANSPORTS = ("streamable_http", "http_sse", "websocket")


def start_from_zero(children: Iterable[str]) -> None:
    """Show what has not happened yet as 0: a rate needs a first value, and an alert rule must not miss the first event."""
    for transport in _TRANSPORTS:
        downstream_connections.labels(transport).set(0)
        for counter in (events_delivered_total, events_lost_total):
            counter.labels(transport)
    for child in children:
        restarts_total.labels(child)
    for source in ("restarts", "event-loop", "viability"):
        algedonic_signals_total.labels("pain", bounded_source(source))
    algedonic_signals_total.labels("emergency", bounded_source("viability"))
    for eras in (("legacy", "modern"), ("modern", "legacy")):
        bridge_total.labels(*eras, "tools/call")
    for bound in _BOUNDS:
        bounds_reached_total.labels(bound)
    for reason in _EARLY_REASONS:
        refusals_total.labels(reason)
    for reason in CUT_REASONS:
        clients_cut_total.labels(reason)
    for key in ("user", "session", "ip"):
        rate_limited_total.labels(key)


def show_backends(backends: Iterable[str], replicas: Iterable[tuple[str, str]]) -> None:
    """The same for backends and replicas that are new.

    replicas: (route, replica).
    """
    for backend in backends:
        known_backend.learn((backend,))
        pool_exhausted_total.labels(backend)
        upstream_messages_dropped_total.labels(backend, "response")
        for source in ("errors", "latency", "saturation", "connections"):
            algedonic_signals_total.labels("pain", bounded_source(f"{source}/{backend}"))
    for route, replica in replicas:
        circuit_state.labels(route, replica).set(0)
