"""A router on a stage, with the backends that its tests route to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.messages.calls import (
    Call,
    CallFailed,
    CallFaulted,
    LeaseCall,
    RouteCall,
)
from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.actors.messages.health import ReplicaProbed
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.routing.router import Router
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from tests.doubles.actor_stage import Stage
from tests.doubles.running_cell import cell_settings

FILES = {"name": "files", "replicas": [f"http://127.0.0.1:300{number}/mcp" for number in range(3)]}
NOTES = {"name": "notes", "replicas": ["http://127.0.0.1:4000/mcp"]}


class Bench:
    """A router between an edge and a connection pool that record."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *backends: Any, routes: Any = (), **gateway: Any) -> None:
        self.stage = Stage()
        self.stage.take_over_time(monkeypatch)
        self.settings = cell_settings(backends or (FILES, NOTES), routes, gateway={"hash_ring_size": 64, **gateway})
        self.bus, self.pool, self.edge = (self.stage.peer() for _ in range(3))
        peers = {"event-bus": self.bus, "connection-pool": self.pool}
        self.router = self.stage.start(Router, peers, self.settings, name="cell/0/router")
        self._call_id = 0

    def call(self, target: str = "tools/call/files__read", **fields: Any) -> LeaseCall | CallFailed:
        """Route one call; gives the lease that the pool was asked for, or the failure that the edge was told."""
        self._call_id += 1
        values: dict[str, Any] = {
            "call_id": self._call_id,
            "edge": self.edge.address,
            "kind": RequestKind.REQUEST,
            "transport": "streamable_http",
            "revision": "2026-07-28",
            "target": target,
            "message": Request(b"1", target.partition("/")[0], b""),
            "deadline_s": self.stage.now_s + 60,
        }
        self.stage.tell(self.router, RouteCall(Call(**{**values, **fields})))
        leases, failures = self.pool.take(LeaseCall), self.edge.take(CallFailed)
        assert len(leases) + len(failures) == 1
        outcome = (leases + failures)[0]
        assert (outcome.call.call_id if isinstance(outcome, LeaseCall) else outcome.call_id) == self._call_id
        return outcome

    def replica(self, key: str, **fields: Any) -> str:
        """Where a call with this session key goes."""
        leased = self.call(hash_keys={"session": key}, **fields)
        assert isinstance(leased, LeaseCall), leased
        return leased.replica.address

    def reason(self, *arguments: Any, **fields: Any) -> str:
        failed = self.call(*arguments, **fields)
        assert isinstance(failed, CallFailed), failed
        assert failed.why.fate.was_sent is False
        return failed.why.reason

    def tell(self, *messages: object) -> None:
        self.stage.tell(self.router, *messages)

    def drain(self, *names: str) -> None:
        """These backends and no others are draining from now on."""
        backends = tuple(attrs.evolve(each, draining=each.name in names) for each in self.settings.backends)
        self.tell(Topology(backends=backends, routes=self.settings.routes))

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """(topic, payload) of what was published since the last look."""
        return [(event.topic, dict(event.payload)) for event in self.bus.take(PublishEvent)]


def on_loop(test: Callable[[], None]) -> None:
    async def body() -> None:
        test()

    asyncio.run(body())


def session_at(replica: str, backend: str = "files") -> SessionState:
    return SessionState("key", "", "2025-11-25", "", b"{}", (UpstreamSession(backend, replica, "s", "2025-11-25"),))


FIRST, SECOND, THIRD = FILES["replicas"]
ADA, BOB = "192.0.2.1", "192.0.2.2"


def faults(route: str, replica: ReplicaId, count: int) -> list[CallFaulted]:
    """So many failures in a row, of two clients by turns."""
    return [CallFaulted(route, replica, (ADA, BOB)[number % 2]) for number in range(count)]


ROUTE = "tools/call/notes__*"
NOTES_ROUTE = {"pattern": ROUTE, "backend": "notes", "failure_threshold": 3, "reset_timeout": 10.0}
THE_REPLICA = ReplicaId("notes", NOTES["replicas"][0])


def probed(replica: ReplicaId, problem: str = "", *, is_starting: bool = False) -> ReplicaProbed:
    return ReplicaProbed(request_id="look", replica=replica, problem=problem, is_starting=is_starting, elapsed_s=0.0)
