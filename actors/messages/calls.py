"""One call to one backend: edge -> router -> connection pool -> upstream -> edge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import attrs
import msgspec
from thespian.actors import ActorAddress

from mcp_gateway.transports.ports.failure import Failure
from mcp_gateway.transports.ports.lean_message import LeanMessage
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.sealed.session import SessionState


class Call(LeanMessage, frozen=True, kw_only=True):
    """One message for one backend. An exchange makes one call, or several where it spans backends.

    call_id:         unique in this cell; also the request id that a stateless server sees.
    edge:            who gets the frames and the outcome.
    backend:         fixed backend, or "" where the router finds it by the target.
    is_merged:       whether names carry the prefixes of the merged server.
    opens_session:   an `initialize`, which no existing upstream session must pin to a replica.
    excluded:        replicas that have refused this very call already.
    is_rewritten:    the message is another one than its headers tell of.
    hedges:          the call whose replica must not be the one, or 0.
    pinned_to:       the replica that holds the parked call which this request goes on with, or "".
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"edge", "message", "session", "hash_keys", "headers"})

    call_id: int
    edge: ActorAddress
    kind: RequestKind
    transport: str
    revision: str
    target: str
    backend: str = ""
    is_merged: bool = False
    message: Request | Notification | Response | None = None
    session: SessionState | None = None
    opens_session: bool = False
    hash_keys: Mapping[str, str] = msgspec.field(default_factory=dict)
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    deadline_s: float
    excluded: frozenset[str] = frozenset()
    last_event_id: str | None = None
    pinned_to: str = ""
    hedges: int = 0
    is_rewritten: bool = False

    @property
    def client(self) -> str:
        """Whose call it is, as far as the gateway knows that by itself: an address, or "" for its own."""
        return self.hash_keys.get("ip", "")


class RouteCall(LeanMessage, frozen=True):
    """Edge -> router: find the replica for this call."""

    call: Call


class LeaseCall(LeanMessage, frozen=True, kw_only=True):
    """Router -> connection pool: run this call on this replica as soon as a connection is free.

    route:    pattern of the route that matched; names the circuit breaker.
    is_trial: the breaker is half open and waits for this outcome.
    slow_after_s: an answer that took longer is told as CallRanLong.
    is_counted: the router counts what runs, and waits for CallLeft.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"router"})

    call: Call
    replica: ReplicaId
    route: str
    is_trial: bool
    slow_after_s: float = math.inf
    is_counted: bool = False
    router: ActorAddress


class RunCall(LeanMessage, frozen=True):
    """Connection pool -> upstream: the lease is granted, speak to the server."""

    leased: LeaseCall


@attrs.frozen
class TryAgain:
    """Connection pool -> upstream: somebody may have mended the server; where it is left alone for a while, do not wait."""


@attrs.frozen
class LeaseReturned:
    """Upstream -> connection pool: the call is over, its connection free; of a stream too, which held no lease.

    served_s: how long the server took, where it has answered or had no time left to.
    """

    replica: ReplicaId
    call_id: int
    served_s: float | None = attrs.field(default=None, eq=False)


@attrs.frozen
class UpstreamEnding:
    """Upstream -> connection pool: it ends, and has answered these calls; what is sent to it from now on is lost."""

    replica: ReplicaId
    call_ids: frozenset[int]


@attrs.frozen
class CancelCall:
    """Edge -> connection pool -> upstream: nobody waits for this call any more."""

    call_id: int


class CallAnswered(LeanMessage, frozen=True, kw_only=True):
    """Upstream -> edge: the server has answered.

    status:              HTTP status for the client; servers without HTTP give 200.
    response:            None where a notification was accepted.
    upstream_session_id: the id that the server assigned in this answer.
    upstream_revision:   what the server speaks, where its answer to `initialize` was translated.
    upstream_s:          seconds from the first byte sent to the last one read.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"response", "upstream_session_id"})

    call_id: int
    backend: str
    replica: str
    status: int
    response: Response | None
    upstream_session_id: str | None = None
    upstream_revision: str | None = None
    upstream_s: float = 0.0


class CallEvent(LeanMessage, frozen=True, gc=False):
    """Upstream -> edge: a message before the answer, or on a stream. message is None for a priming event (an id alone)."""

    HIDDEN: ClassVar[frozenset[str]] = frozenset({"message", "upstream"})

    call_id: int
    backend: str
    message: Request | Notification | Response | None
    event_id: str | None
    upstream: ActorAddress


@attrs.frozen
class CreditGranted:
    """Edge -> upstream: the client has taken so many events of this call; read on."""

    call_id: int
    event_count: int


@attrs.frozen(kw_only=True)
class CallFailed:
    """Router, connection pool or upstream -> edge: the call has no answer.

    replica:   "" where none was chosen.
    upstream_s: seconds that the server took, 0 where it was not asked.
    """

    call_id: int
    why: Failure
    backend: str = ""
    replica: str = ""
    upstream_s: float = 0.0


@attrs.frozen
class CallSucceeded:
    """Upstream -> router: told only where the breaker waits for it (a trial, or the first success after failures)."""

    route: str
    replica: ReplicaId


@attrs.frozen
class CallFaulted:
    """Upstream -> router: the server failed in a way that counts against it.

    client: whose call it was, as far as the gateway knows that by itself: its address.
    success_count: calls of this route that went well since the last CallFaulted or CallRanLong of it.
    """

    route: str
    replica: ReplicaId
    client: str
    success_count: int = 0


@attrs.frozen
class CallRanLong:
    """Upstream -> router: the server has answered, later than the route's `slow_call_duration`. Fields as of CallFaulted."""

    route: str
    replica: ReplicaId
    client: str
    success_count: int = 0


@attrs.frozen
class CallTimedOut:
    """Upstream -> router: the server did not answer in time, which may be its tool's own time: reason to look, no more."""

    route: str
    replica: ReplicaId


@attrs.frozen
class TrialEnded:
    """Connection pool -> router: do not wait for the outcome of this trial.

    Where it has brought no verdict (refused, cancelled, its upstream crashed, a stream that stays open), the next call may try
    at once. The verdict of a call that has ended comes before it.
    """

    route: str
    replica: ReplicaId
    call_id: int


@attrs.frozen
class CallLeft:
    """Connection pool -> router: a call that is counted is over, however it went."""

    replica: ReplicaId
