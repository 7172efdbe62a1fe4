"""Calls that the upstream actor begins without a task: the same is told of them as of any other."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from mcp_gateway.actors.messages.calls import Call, CallAnswered, CallFailed, CancelCall, LeaseCall, LeaseReturned, RunCall
from mcp_gateway.actors.messages.lifecycle import CrashRequested, StopRequested
from mcp_gateway.actors.pool.upstream import Upstream, UpstreamArguments
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.untasked_exchange import OnEnd, UntaskedExchange
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from tests.doubles.actor_stage import Stage
from tests.doubles.patience import on_loop
from tests.doubles.running_cell import alone
from tests.doubles.scripted_wire import ScriptedWire

REPLICA = ReplicaId("files", "http://127.0.0.1:3001/mcp")


class Begun(UntaskedExchange):
    """Ends as the test says, and does not look whether it was cancelled."""

    def __init__(self) -> None:
        self._coroutine = None
        self.is_cancelled = False
        self.end: OnEnd

    def begin(self, on_end: OnEnd) -> None:
        self.end = on_end

    def cancel(self) -> None:
        self.is_cancelled = True

    def awaited(self) -> Coroutine[Any, Any, UpstreamAnswer]:
        raise NotImplementedError


class UntaskedWire(ScriptedWire):
    """begun: its exchanges. defect: what is raised in place of one."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Begun] = []
        self.defect: Exception | None = None

    def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> Coroutine[Any, Any, UpstreamAnswer]:
        if self.defect is not None:
            raise self.defect
        self.begun.append(Begun())
        return self.begun[-1]


class Bench:
    """An upstream; its supervisor stands for the pool."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.edge, self.router = self.stage.peer(), self.stage.peer()
        self.pool = self.stage.supervisor
        self.wire = UntaskedWire()
        arguments = UpstreamArguments(
            replica=REPLICA,
            naming=Naming("files", ""),
            connect=lambda: self.wire,
            cells=alone(),
            seal=Seal(b"0123456789abcdef"),
        )
        self.upstream = self.stage.start(Upstream, {}, arguments)
        self.pool.received.clear()

    def run(self, call_id: int = 1) -> None:
        call = Call(
            call_id=call_id, edge=self.edge.address, kind=RequestKind.REQUEST, transport="t", revision="2026-07-28",
            target="tools/call/x", message=Request(b'"mine"', "tools/call", b'{"name":"x"}'), deadline_s=time.monotonic() + 60,
        )  # fmt: skip
        leased = LeaseCall(call=call, replica=REPLICA, route="r", is_trial=False, router=self.router.address)
        self.stage.tell(self.upstream, RunCall(leased))


ANSWER = UpstreamAnswer(200, Response(b"1", b"{}", b""))


def test_an_answer_goes_to_the_client_and_returns_the_lease() -> None:
    async def body() -> None:
        bench = Bench()
        bench.run()
        bench.wire.begun[0].end(ANSWER)
        answered = bench.edge.only(CallAnswered)
        assert (answered.call_id, answered.response) == (1, Response(b'"mine"', b"{}", b""))
        assert bench.pool.only(LeaseReturned).call_id == 1

    on_loop(body)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_nothing_is_left_of_a_call_for_the_garbage_collector(is_cancelled: bool) -> None:
    async def body() -> None:
        bench = Bench()
        bench.run()
        begun = bench.wire.begun.pop()
        left = weakref.ref(begun)
        gc.disable()
        try:
            if is_cancelled:
                bench.stage.tell(bench.upstream, CancelCall(1))
            else:
                begun.end(ANSWER)
            del begun
            assert left() is None
        finally:
            gc.enable()

    on_loop(body)


def test_a_failure_is_told_and_a_defect_ends_its_own_call_only() -> None:
    async def body() -> None:
        bench = Bench()
        bench.run(1)
        bench.run(2)
        bench.wire.begun[0].end(UpstreamError(Fate.UNREACHABLE, "refused"))
        bench.wire.begun[1].end(ValueError("a defect"))
        bench.wire.defect = KeyError("a defect")
        bench.run(3)
        bench.wire.defect = UpstreamError(Fate.STARTING, "starting")
        bench.run(4)
        failed = [(each.call_id, each.why.fate) for each in bench.edge.take(CallFailed)]
        assert failed == [(1, Fate.UNREACHABLE), (2, Fate.ENDED), (3, Fate.ENDED), (4, Fate.STARTING)]
        assert [each.call_id for each in bench.pool.take(LeaseReturned)] == [1, 2, 3, 4]
        bench.wire.defect = None
        bench.run(5)
        bench.wire.begun[-1].end(ANSWER)
        assert bench.edge.only(CallAnswered).call_id == 5

    on_loop(body)


def test_a_cancelled_call_is_over_without_a_word() -> None:
    async def body() -> None:
        bench = Bench()
        bench.run()
        bench.stage.tell(bench.upstream, CancelCall(1))
        (begun,) = bench.wire.begun
        assert begun.is_cancelled
        begun.end(ANSWER)
        assert not bench.edge.received
        assert not bench.pool.take(LeaseReturned)

    on_loop(body)


@pytest.mark.parametrize("end", [CrashRequested(), StopRequested()], ids=["crash", "stop"])
def test_an_upstream_that_ends_answers_its_calls(end: object) -> None:
    async def body() -> None:
        bench = Bench()
        bench.run()
        bench.stage.tell(bench.upstream, end)
        (begun,) = bench.wire.begun
        assert begun.is_cancelled
        assert bench.edge.only(CallFailed).why.fate is Fate.ENDED
        begun.end(ANSWER)
        assert not bench.edge.take(CallAnswered)

    on_loop(body)
