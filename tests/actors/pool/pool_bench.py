"""A connection pool on a stage, with the backends that its tests lease from."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.messages.calls import (
    Call,
    CallFailed,
    LeaseCall,
    TrialEnded,
)
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.messages.transports import ResolveScheme, SchemeResolved
from mcp_gateway.actors.pool.connection_pool import ConnectionPool, ConnectionPoolArguments
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from tests.doubles.actor_stage import Stage
from tests.doubles.running_cell import alone, cell_settings
from tests.doubles.scripted_wire import Exchange, ScriptedTransport, ScriptedWire

ONE, TWO = "http://127.0.0.1:3001/mcp", "http://127.0.0.1:3002/mcp"


class Bench:
    """A pool whose registry is the test: `transport` speaks http."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **backend: Any) -> None:
        self.stage = Stage()
        self.stage.take_over_time(monkeypatch)
        gateway = {"max_overflow": 1, "checkout_timeout": 5.0}
        self.settings = cell_settings([{"name": "files", "replicas": [ONE], "pool_size": 2, **backend}], gateway=gateway)
        self.bus, self.registry, self.edge, self.router = (self.stage.peer() for _ in range(4))
        self.transport = ScriptedTransport()
        peers = {"event-bus": self.bus, "transport-registry": self.registry}
        arguments = ConnectionPoolArguments(settings=self.settings, cells=alone(), seal=Seal(b"0123456789abcdef"))
        self.pool = self.stage.start(ConnectionPool, peers, arguments, name="cell/0/connection-pool")
        self.answer_registry()
        self._call_id = 0

    def answer_registry(self) -> None:
        for question in self.registry.take(ResolveScheme):
            strategy = self.transport if question.scheme == "http" else None
            self.registry.say(self.pool, SchemeResolved(question.request_id, question.scheme, strategy))

    def wire(self, replica: str = ONE) -> ScriptedWire:
        return self.transport.wire(replica)

    async def lease(self, *arguments: Any, **fields: Any) -> int:
        """Ask for the lease of the next call; its id."""
        leased = self.leased(*arguments, **fields)
        self.stage.tell(self.pool, leased)
        await turn()
        return leased.call.call_id

    def leased(
        self, replica: str = ONE, kind: RequestKind = RequestKind.REQUEST, deadline_s: float = 60.0, *, is_trial: bool = False
    ) -> LeaseCall:
        self._call_id += 1
        call = Call(
            call_id=self._call_id, edge=self.edge.address, kind=kind, transport="streamable_http", revision="2026-07-28",
            target="tools/call/files__x", backend="files",
            message=Request(b'"c%d"' % self._call_id, "tools/call", b'{"name":"x"}') if kind is RequestKind.REQUEST else None,
            deadline_s=self.stage.now_s + deadline_s,
        )  # fmt: skip
        return LeaseCall(call=call, replica=ReplicaId("files", replica), route="r", is_trial=is_trial, router=self.router.address)

    def running(self, replica: str = ONE) -> list[int]:
        """Ids of the calls on the wire, the first one first."""
        return [call_id_of(each) for each in self.wire(replica).open]

    async def answer(self, call_id: int, replica: str = ONE) -> None:
        next(each for each in self.wire(replica).open if call_id_of(each) == call_id).answer()
        await turn()

    def counts(self, replica: str = ONE) -> tuple[int, int, int, int]:
        """(idle, leased, waiting, overflow)"""
        pool = self.stage.ask(self.pool, StatusRequested("s")).status["files"][replica]
        return pool["idle"], pool["leased"], pool["waiting"], pool["overflow"]

    def failures(self) -> dict[int, CallFailed]:
        return {each.call_id: each for each in self.edge.take(CallFailed)}

    def ended_trials(self) -> list[tuple[str, str, int]]:
        """(route, replica, call id) of the trials that the router need not wait for any more, since the last look."""
        return [(each.route, each.replica.address, each.call_id) for each in self.router.take(TrialEnded)]

    def remembered_calls(self) -> int:
        return len(self.stage.instance(self.pool)._leased)

    def crash_upstream(self) -> None:
        """As a defect in it would."""
        (name,) = self.stage.instance(self.pool).supervision.names
        self.stage.tell(self.stage.instance(self.pool).child_address(name), CrashRequested())


def call_id_of(exchange: Exchange) -> int:
    assert isinstance(exchange.request.message, Request)
    return int(exchange.request.message.id)


async def turn() -> None:
    """Let the tasks of the upstreams run."""
    for _ in range(5):
        await asyncio.sleep(0)


def changed(bench: Bench, **fields: Any) -> Topology:
    backend = attrs.evolve(bench.settings.backends[0], **fields)
    return Topology(backends=(backend,), routes=())
