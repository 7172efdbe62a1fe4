"""Every message that crosses an actor boundary inside a cell, grouped by conversation.

The conversation of supervision is in `gateway_actor.py` and `supervisor.py`; between processes, in `node_messages.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.config.settings import BackendSettings, RouteSettings
from mcp_gateway.transports.downstream.edge_port import Exchange
from mcp_gateway.transports.protocol.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.session import SessionState
from mcp_gateway.transports.protocol.topic_log import Event

# ---- a client's request: handler -> edge


@attrs.frozen
class ExchangeOpened:
    """Handler -> edge: a client asks for something; its sink waits in the edge's port."""

    exchange: Exchange


@attrs.frozen
class ExchangeClosed:
    """Handler -> edge: the client of this exchange has gone."""

    exchange_id: int


@attrs.frozen
class StreamEnded:
    """Cell -> edge: the gateway ends this stream itself, because it drains."""

    exchange_id: int


@attrs.frozen
class EventsFlushed:
    """Handler -> edge: the client has taken so many events of its stream."""

    exchange_id: int
    event_count: int


@attrs.frozen
class QuestionAsked:
    """Loop -> edge: pass `question` on to the child; its answer carries the same request_id."""

    child: str
    question: Any


@attrs.frozen(kw_only=True)
class GatewayWired:
    """Gateway supervisor -> cell supervisor -> edge: the chain is up; these are its addresses by short name."""

    addresses: Mapping[str, ActorAddress] = attrs.field(repr=False)
    incarnations: Mapping[str, int]


# ---- one call to one backend: edge -> router -> connection pool -> upstream -> edge


class CallKind(Enum):
    """REQUEST waits for a response; MESSAGE is acknowledged; STREAM stays open; TERMINATE ends an upstream session."""

    REQUEST = "request"
    MESSAGE = "message"
    STREAM = "stream"
    TERMINATE = "terminate"


@attrs.frozen(kw_only=True)
class Call:
    """One message for one backend. An exchange makes one call, or several where it spans backends.

    call_id:         unique in this cell; also the request id that a stateless server sees.
    edge:            who gets the frames and the outcome.
    backend:         fixed backend, or "" where the router finds it by the target.
    is_merged:       whether names carry the prefixes of the merged server.
    opens_session:   an `initialize`, which no existing upstream session must pin to a replica.
    excluded:        replicas that have refused this very call already.
    pinned_to:       the replica that holds the parked call which this request goes on with, or "".
    """

    call_id: int
    edge: ActorAddress = attrs.field(repr=False)
    kind: CallKind
    transport: str
    revision: str
    target: str
    backend: str = ""
    is_merged: bool = False
    message: Request | Notification | Response | None = attrs.field(default=None, repr=False)
    session: SessionState | None = attrs.field(default=None, repr=False)
    opens_session: bool = False
    hash_keys: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    deadline_s: float
    excluded: frozenset[str] = frozenset()
    last_event_id: str | None = None
    pinned_to: str = ""


@attrs.frozen
class RouteCall:
    """Edge -> router: find the replica for this call."""

    call: Call


@attrs.frozen(kw_only=True)
class LeaseCall:
    """Router -> connection pool: run this call on this replica as soon as a connection is free.

    route:    pattern of the route that matched; names the circuit breaker.
    is_trial: the breaker is half open and waits for this outcome.
    """

    call: Call
    backend: str
    replica: str
    route: str
    is_trial: bool
    router: ActorAddress = attrs.field(repr=False)


@attrs.frozen
class RunCall:
    """Connection pool -> upstream: the lease is granted, speak to the server."""

    leased: LeaseCall


@attrs.frozen
class LeaseReturned:
    """Upstream -> connection pool: the call is over, its connection free; of a stream too, which held no lease."""

    backend: str
    replica: str
    call_id: int


@attrs.frozen
class CancelCall:
    """Edge -> connection pool -> upstream: nobody waits for this call any more."""

    call_id: int


@attrs.frozen(kw_only=True)
class CallAnswered:
    """Upstream -> edge: the server has answered.

    status:              HTTP status for the client; servers without HTTP give 200.
    response:            None where a notification was accepted.
    upstream_session_id: the id that the server assigned in this answer.
    upstream_revision:   what the server speaks, where its answer to `initialize` was translated.
    upstream_s:          seconds from the first byte sent to the last one read.
    """

    call_id: int
    backend: str
    replica: str
    status: int
    response: Response | None = attrs.field(repr=False)
    upstream_session_id: str | None = attrs.field(default=None, repr=False)
    upstream_revision: str | None = None
    upstream_s: float = 0.0


@attrs.frozen
class CallEvent:
    """Upstream -> edge: a message before the answer, or on a stream. message is None for a priming event (an id alone)."""

    call_id: int
    backend: str
    message: Request | Notification | Response | None = attrs.field(repr=False)
    event_id: str | None
    upstream: ActorAddress = attrs.field(repr=False)


@attrs.frozen
class CreditGranted:
    """Edge -> upstream: the client has taken so many events of this call; read on."""

    call_id: int
    event_count: int


@attrs.frozen(kw_only=True)
class CallFailed:
    """Router, connection pool or upstream -> edge: the call has no answer.

    reason:          a key of `refusals.REFUSALS`.
    was_sent:        whether the server may have seen the message; False makes another try safe.
    is_session_lost: the server does not know its session any more.
    is_cut:          the connection has ended before the answer: nobody knows whether the request ran.
    error:           the JSON-RPC error that the server gave, if any.
    """

    call_id: int
    reason: str
    text: str
    backend: str = ""
    replica: str = ""
    was_sent: bool = False
    is_session_lost: bool = False
    is_cut: bool = False
    is_unsupported: bool = False
    error: bytes = attrs.field(default=b"", repr=False)
    retry_after_s: float | None = None
    upstream_s: float = 0.0


@attrs.frozen
class CallSucceeded:
    """Upstream -> router: told only where the breaker waits for it (a trial, or the first success after failures)."""

    route: str
    replica: str


@attrs.frozen
class CallFaulted:
    """Upstream -> router: the server failed in a way that counts against it."""

    route: str
    replica: str


# ---- what runs: backends, routes, replicas


@attrs.frozen(kw_only=True)
class Topology:
    """Cell -> its supervisors -> edge and chain: the backends and routes that shall run; sent again after each change."""

    backends: tuple[BackendSettings, ...]
    routes: tuple[RouteSettings, ...]


@attrs.frozen
class ReplicaEjected:
    """Health monitor -> router: this replica takes no traffic until it is restored."""

    backend: str
    replica: str
    reason: str


@attrs.frozen
class ReplicaRestored:
    """Health monitor -> router: this replica answers its probes again."""

    backend: str
    replica: str


# ---- health


@attrs.frozen
class ProbeComponent:
    """Health monitor -> actor: are you there?"""

    request_id: str


@attrs.frozen
class ComponentProbed:
    """Actor -> health monitor: yes. problem: why it is only half well, or ""."""

    request_id: str
    component: str
    problem: str = ""


@attrs.frozen
class ProbeReplicas:
    """Health monitor -> connection pool -> upstreams: ask each server whether it is well, and tell `monitor`."""

    request_id: str
    timeout_s: float
    monitor: ActorAddress = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ReplicaProbed:
    """Upstream -> health monitor: one probe has ended. problem: "" where all is well."""

    request_id: str
    backend: str
    replica: str
    problem: str
    elapsed_s: float


@attrs.frozen
class HealthRequested:
    request_id: str


@attrs.frozen(kw_only=True)
class HealthReported:
    """Health monitor -> edge: overall status and {component: {"status", "since", "reason"?}}.

    history: the last changes, oldest first: {"at", "component", "was", "status", "reason"?}; times are RFC 3339.
    """

    request_id: str
    status: str
    components: Mapping[str, Mapping[str, str]]
    history: tuple[Mapping[str, str], ...] = attrs.field(default=(), repr=False)


@attrs.frozen(kw_only=True)
class RegisterHealthCheck:
    """Any actor -> health monitor: send me `ProbeComponent` each round, and judge `name` by my `ComponentProbed`.

    is_critical: nothing is served without it, so the whole is unhealthy when it is. Registering again replaces.
    """

    request_id: str
    name: str
    is_critical: bool = False


@attrs.frozen
class RemoveHealthCheck:
    request_id: str
    name: str


@attrs.frozen
class HealthCheckRegistered:
    """Health monitor -> asker: the check runs from the next round on; it is forgotten when the monitor restarts."""

    request_id: str
    name: str


@attrs.frozen
class HealthCheckRemoved:
    request_id: str
    name: str


@attrs.frozen
class HealthCheckRefused:
    """Health monitor -> asker: the name belongs to the gateway itself, or is unknown."""

    request_id: str
    problem: str


# ---- viability


@attrs.frozen
class ViabilityRequested:
    request_id: str


@attrs.frozen
class ViabilityReported:
    """Viability monitor -> edge: what `/metrics/dashboard` shows of the node, JSON-able; {} in a cell that does not judge."""

    request_id: str
    report: Mapping[str, Any] = attrs.field(repr=False)


# ---- status, for the admin commands


@attrs.frozen
class StatusRequested:
    request_id: str


@attrs.frozen
class StatusReported:
    """Any actor -> edge: what `mcp-gateway status` shows of it, as JSON-able values."""

    request_id: str
    status: Mapping[str, Any] = attrs.field(repr=False)


# ---- transports


@attrs.frozen(kw_only=True)
class RegisterTransport:
    """Owner of a transport -> transport registry: serve or speak it by this strategy from now on; replaces one of that name."""

    request_id: str
    strategy: Any = attrs.field(repr=False)


@attrs.frozen
class RemoveTransport:
    request_id: str
    name: str


@attrs.frozen
class TransportRefused:
    """Transport registry -> asker: the strategy is not valid, or the name is unknown."""

    request_id: str
    problem: str


@attrs.frozen
class TransportRegistered:
    request_id: str
    name: str


@attrs.frozen
class TransportRemoved:
    request_id: str
    name: str


@attrs.frozen
class ResolveScheme:
    """Connection pool -> transport registry: who speaks to `scheme` ("http")?"""

    request_id: str
    scheme: str


@attrs.frozen
class SchemeResolved:
    """Transport registry -> connection pool. strategy is None where nobody does."""

    request_id: str
    scheme: str
    strategy: Any = attrs.field(repr=False)


@attrs.frozen
class TransportsChanged:
    """Transport registry -> edge: the client transports that are registered now."""

    names: frozenset[str]


# ---- events


@attrs.frozen(kw_only=True)
class PublishEvent:
    """Any actor -> event bus. payload: JSON-able."""

    topic: str
    payload: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Subscribe:
    """Any actor -> event bus: send `EventPublished` for topics that match ("mcp.replica.*", "all").

    after_id: first those that the log still has after this one; None sends only what comes.
    """

    pattern: str
    subscriber_id: str
    after_id: int | None = None


@attrs.frozen
class Unsubscribe:
    pattern: str
    subscriber_id: str


@attrs.frozen(kw_only=True)
class EventPublished:
    """Event bus -> subscriber: one event, in the order of the log. event_id: increasing, without gaps per log."""

    event_id: int
    topic: str
    payload: Mapping[str, Any] = attrs.field(repr=False)
    timestamp_ms: int


@attrs.frozen
class EventsLogged:
    """Cell -> event bus -> edge: events that the log has ordered, of this cell and of others.

    is_caught_up: whether the cell holds, with these, all that the log had when the cell joined it.
    """

    events: tuple[Event, ...] = attrs.field(repr=False)
    is_caught_up: bool = True


@attrs.frozen
class FollowLog:
    """Edge -> event bus: send `EventsLogged` with what the cell holds after this id, then with all that comes."""

    after_id: int


@attrs.frozen
class ClientEventsWaiting:
    """Loop -> edge: the topic feed holds events that shall be published."""
