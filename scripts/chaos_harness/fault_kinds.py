"""The faults: whom they meet, what of them clients may feel, and how soon all must be well again. Pure."""

from __future__ import annotations

from typing import Final

import attrs

EVERYTHING: Final = "*"
PAIR, ALONE, LOCAL, DEMO = "pair", "alone", "local", "demo"
"""Backends of the gateway under test: two replicas over Streamable HTTP; one; a stdio server; the built-in one."""
BACKENDS: Final = (PAIR, ALONE, LOCAL, DEMO)
REPLICAS: Final = {PAIR: ("pair-0", "pair-1"), ALONE: ("alone-0",), LOCAL: ("local-0",)}
"""{backend: names of its servers}"""
ACTORS: Final = ("event-bus", "transport-registry", "connection-pool", "router", "health-monitor", "edge")

REQUEST_TIMEOUT_S: Final = 5.0
PROBE_S: Final = 1.0
GRACE_S: Final = 2.0
"""After a fault is over clients may still read of it: a probe must have found that all is well. Source: issue of this harness, "a
breaker that learns within a second of recovery", and a second for a busy machine."""
LEARN_S: Final = REQUEST_TIMEOUT_S + 2 * PROBE_S
"""How long it may take to learn that one replica of several is gone: calls it has taken run into their timeout."""

NODE, EMBEDDED, CLUSTER = "node", "embedded", "cluster"
FULL_DISK: Final = "full disk"
CELL, LOG, SOCKETS = "cell", "log", "sockets"


_ONE_GATEWAY: Final = frozenset({NODE, EMBEDDED})


@attrs.frozen(kw_only=True)
class FaultKind:
    """One kind of fault.

    name:        as reports and scenario files have it.
    forms:       of the gateway for which it exists.
    targets:     whom it can meet; "cell/*" stands for each cell.
    lasts_s:     from its beginning until its cause is taken away, at least and at most; (0, 0): it is over at once.
    hurts:       what of the gateway may refuse while it lasts: EVERYTHING, or a backend; "" where nothing may. "target": the
                 backend of the server that it meets.
    recovers_s:  within this time after its end everything is whole.
    needs_root:  whether only root can bring it about.
    ends:        CELL: a process that serves clients, with what only it had. LOG: the event log, or who would start it again.
                 SOCKETS: in order, those of clients whose session is their connection; one may have a request on its way.
    """

    name: str
    targets: tuple[str, ...]
    hurts: str = ""
    forms: frozenset[str] = _ONE_GATEWAY
    lasts_s: tuple[float, float] = (0.0, 0.0)
    recovers_s: float = 5.0
    needs_root: bool = False
    ends: tuple[str, ...] = ()


_ON_A_NODE: Final = frozenset({NODE})
_CLUSTER: Final = frozenset({CLUSTER})
_NODES: Final = ("node/*",)
_NATS: Final = ("nats/*",)
_ALONE: Final = frozenset({EMBEDDED})
_SERVERS: Final = (*REPLICAS[PAIR], *REPLICAS[ALONE])
_AWHILE: Final = (1.0, 4.0)
_ACTOR_TARGETS: Final = tuple(f"cell/*/{actor}" for actor in ACTORS)
_STOPPED_S: Final = (2.0, 2.0)

FAULTS: Final = tuple(
    [
        # A cell takes its connections along; what hangs is found by two heartbeats, and ended.
        FaultKind(name="kill cell", targets=("cell/*",), ends=(CELL,), hurts=EVERYTHING, forms=_ON_A_NODE),
        FaultKind(name="stop cell", targets=("cell/*",), ends=(CELL,), hurts=EVERYTHING, forms=_ON_A_NODE, recovers_s=10.0),
        FaultKind(name="restart cell", targets=("cell/*",), ends=(SOCKETS,), forms=_ON_A_NODE, recovers_s=20.0),
        # Every cell in turn, which is no fault at all: nobody may feel it.
        FaultKind(name="rolling restart", targets=("node",), ends=(SOCKETS,), forms=_ON_A_NODE, recovers_s=20.0),
        FaultKind(name="upgrade", targets=("node",), ends=(SOCKETS,), forms=_ON_A_NODE, recovers_s=20.0),
        FaultKind(name="reload", targets=("node",), forms=_ON_A_NODE),
        FaultKind(name="crash actor", targets=_ACTOR_TARGETS, hurts=EVERYTHING, forms=_ON_A_NODE),
        FaultKind(name="kill event log", targets=("event-log",), ends=(LOG,), forms=_ON_A_NODE),
        FaultKind(name="stop event log", targets=("event-log",), ends=(LOG,), forms=_ON_A_NODE, recovers_s=10.0),
        FaultKind(
            name="kill supervisor",
            targets=("node-supervisor",),
            ends=(CELL, LOG),
            hurts=EVERYTHING,
            forms=_ON_A_NODE,
            recovers_s=15.0,
        ),
        FaultKind(
            name="stop supervisor",
            targets=("node-supervisor",),
            ends=(CELL, LOG),
            hurts=EVERYTHING,
            forms=_ON_A_NODE,
            recovers_s=20.0,
        ),
        FaultKind(name="kill admin", targets=("admin",), ends=(CELL, LOG), hurts=EVERYTHING, forms=_ON_A_NODE, recovers_s=15.0),
        FaultKind(name="pause admin", targets=("admin",), forms=_ON_A_NODE, lasts_s=_STOPPED_S),
        FaultKind(name="kill gateway", targets=("gateway",), ends=(CELL, LOG), hurts=EVERYTHING, forms=_ALONE, recovers_s=15.0),
        FaultKind(name="pause gateway", targets=("gateway",), hurts=EVERYTHING, forms=_ALONE, lasts_s=_STOPPED_S),
        FaultKind(name="kill server", targets=_SERVERS, hurts="target", lasts_s=_AWHILE),
        FaultKind(name="hang server", targets=_SERVERS, hurts="target", lasts_s=_AWHILE),
        FaultKind(name="garbage from server", targets=_SERVERS, hurts="target", lasts_s=_AWHILE),
        FaultKind(name="nothing from server", targets=_SERVERS, hurts="target", lasts_s=_AWHILE),
        FaultKind(name="slow server", targets=_SERVERS, lasts_s=_AWHILE),
        FaultKind(name="500 from server", targets=_SERVERS, hurts="target", lasts_s=_AWHILE),
        FaultKind(name="reset by server", targets=_SERVERS, hurts="target", lasts_s=_AWHILE),
        FaultKind(name="kill process", targets=REPLICAS[LOCAL], hurts="target", recovers_s=10.0),
        FaultKind(name="garbage from process", targets=REPLICAS[LOCAL], hurts="target", lasts_s=_AWHILE, recovers_s=10.0),
        FaultKind(name=FULL_DISK, targets=("gateway",), lasts_s=_AWHILE),
        FaultKind(name="no descriptors", targets=("gateway",), hurts=EVERYTHING, lasts_s=_AWHILE),
        FaultKind(name="no memory", targets=("machine",), lasts_s=_AWHILE),
        FaultKind(name="cutting clients", targets=("clients",), lasts_s=_AWHILE),
        FaultKind(name="slow loris", targets=("clients",), lasts_s=_AWHILE),
        FaultKind(name="half-open sockets", targets=("clients",), lasts_s=_AWHILE),
        # Of a cluster: what needs another node, or the one that is gone, may be refused until all are one again. A node that dies
        # is missed after 10 s, one that is cut off comes back when it has reached a NATS server and its presence has ended.
        FaultKind(
            name="kill node", targets=_NODES, ends=(CELL, LOG), hurts=EVERYTHING, forms=_CLUSTER, lasts_s=_AWHILE, recovers_s=40.0
        ),
        FaultKind(name="stop node", targets=_NODES, hurts=EVERYTHING, forms=_CLUSTER, lasts_s=_AWHILE, recovers_s=30.0),
        FaultKind(name="kill nats", targets=_NATS, hurts=EVERYTHING, forms=_CLUSTER, lasts_s=_AWHILE, recovers_s=30.0),
        FaultKind(name="kill most nats", targets=_NATS, hurts=EVERYTHING, forms=_CLUSTER, lasts_s=_AWHILE, recovers_s=40.0),
        FaultKind(name="cut off node", targets=_NODES, hurts=EVERYTHING, forms=_CLUSTER, lasts_s=(2.0, 12.0), recovers_s=40.0),
        FaultKind(name="slow links", targets=("links",), forms=_CLUSTER, lasts_s=_AWHILE, recovers_s=10.0),
        FaultKind(name="network cut", targets=("pair-1",), hurts="target", lasts_s=_AWHILE, needs_root=True),
    ]
)
"""Not among them: a jump of the clock. Only the whole machine's can be set; what reads it has tests that pass it in."""

KINDS: Final = {kind.name: kind for kind in FAULTS}


def backend_of(server: str) -> str:
    """Raises: KeyError where no backend has a server of this name."""
    return {each: backend for backend, servers in REPLICAS.items() for each in servers}[server]


def hurt_backends(kind: FaultKind, target: str) -> tuple[str, ...]:
    if kind.hurts == EVERYTHING:
        return BACKENDS
    return (backend_of(target),) if kind.hurts == "target" else ()


def leaves_a_replica(kind: FaultKind, target: str) -> bool:
    """Whether another server of the same backend is well: then calls may be refused only until that is found out."""
    return kind.hurts == "target" and len(REPLICAS[backend_of(target)]) > 1
