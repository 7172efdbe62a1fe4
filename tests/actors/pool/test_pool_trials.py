"""Trials of a connection pool: the router hears of the end of each, whatever becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from thespian.actors import ActorExitRequest

from mcp_gateway.actors.messages.calls import (
    CallFaulted,
    CallSucceeded,
    CancelCall,
    TrialEnded,
)
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from tests.actors.pool.pool_bench import ONE, TWO, Bench, call_id_of, changed, turn
from tests.doubles.patience import on_loop

# ---- trials


async def wait_behind_others(bench: Bench) -> int:
    """A trial that waits for a connection."""
    for _ in range(3):
        await bench.lease()
    return await bench.lease(is_trial=True)


def test_the_router_hears_of_a_trials_verdict_first_and_then_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        trial = await bench.lease(is_trial=True)
        assert bench.router.received == []
        await bench.answer(trial)
        assert bench.router.received == [
            CallSucceeded("r", ReplicaId("files", ONE)),
            TrialEnded("r", ReplicaId("files", ONE), trial),
        ]

    on_loop(body)


@pytest.mark.parametrize("replica", [ONE, TWO], ids=["the server has lost its session", "the replica is not there"])
def test_what_the_edge_tries_next_finds_the_trial_over(monkeypatch: pytest.MonkeyPatch, replica: str) -> None:
    """It must not be refused because of the trial whose failure it answers."""

    async def body() -> None:
        bench = Bench(monkeypatch)
        edge = bench.stage.instance(bench.edge.address)
        monkeypatch.setattr(edge, "receiveMessage", lambda *_: edge.send(bench.router.address, "the next try"))
        trial = await bench.lease(replica, is_trial=True)
        if replica == ONE:
            lost = UpstreamError(Fate.SESSION_LOST, "lost")
            bench.wire().open[0].fail(lost)
            await turn()
        assert bench.router.received == [TrialEnded("r", ReplicaId("files", replica), trial), "the next try"]

    on_loop(body)


def test_no_other_call_ends_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        await bench.answer(await bench.lease())
        await bench.lease(TWO)
        bench.stage.tell(bench.pool, CancelCall(await bench.lease()))
        assert bench.router.received == []

    on_loop(body)


def test_a_trial_at_a_replica_that_is_not_there_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        trial = await bench.lease(TWO, is_trial=True)
        assert bench.ended_trials() == [("r", TWO, trial)]

    on_loop(body)


def test_a_trial_that_may_not_even_wait_for_a_connection_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3 + 300):
            await bench.lease()
        trial = await bench.lease(is_trial=True)
        assert bench.ended_trials() == [("r", ONE, trial)]

    on_loop(body)


@pytest.mark.parametrize("deadline_s", [60.0, 1.0], ids=["checkout timeout", "its own deadline"])
def test_a_trial_that_gets_no_connection_in_time_is_over(monkeypatch: pytest.MonkeyPatch, deadline_s: float) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3):
            await bench.lease()
        trial = await bench.lease(is_trial=True, deadline_s=deadline_s)
        assert bench.ended_trials() == []
        bench.stage.advance(5.01)
        assert bench.ended_trials() == [("r", ONE, trial)]

    on_loop(body)


def test_a_trial_whose_client_leaves_is_over_whether_it_waits_or_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        waiting = await wait_behind_others(bench)
        bench.stage.tell(bench.pool, CancelCall(waiting))
        assert bench.ended_trials() == [("r", ONE, waiting)]
        await bench.answer(bench.running()[0])
        running = await bench.lease(is_trial=True)
        bench.stage.tell(bench.pool, CancelCall(running), CancelCall(running))
        await turn()
        assert bench.ended_trials() == [("r", ONE, running)]
        assert [call_id_of(each) for each in bench.wire().exchanges if each.is_cancelled] == [running]

    on_loop(body)


def test_a_trial_that_its_connection_ends_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        trial = await bench.lease(is_trial=True)
        bench.wire().open[0].result.cancel()
        await turn()
        assert bench.ended_trials() == [("r", ONE, trial)]

    on_loop(body)


@pytest.mark.parametrize(
    ("fate", "told"), [(Fate.UNREACHABLE, [CallFaulted("r", ReplicaId("files", ONE), "")]), (Fate.BROKEN, [])]
)
def test_nobody_waits_for_a_trial_that_is_a_stream_and_a_server_that_is_not_there_still_counts(
    fate: Fate, told: list[CallFaulted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions listen again when their server is back: their streams stay open, and say how it is only in the end.

    How it serves a stream, which it need not do at all, says nothing of calls.
    """

    async def body() -> None:
        bench = Bench(monkeypatch)
        stream = await bench.lease(kind=RequestKind.STREAM, is_trial=True)
        assert bench.ended_trials() == [("r", ONE, stream)]
        bench.wire().open[0].fail(UpstreamError(fate, "broken"))
        await turn()
        assert bench.router.of(CallFaulted) == told

    on_loop(body)


def test_a_trial_is_over_with_the_upstream_that_ran_it_but_one_that_waits_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        running = await bench.lease(is_trial=True)
        for _ in range(2):
            await bench.lease()
        waiting = await bench.lease(is_trial=True)
        bench.crash_upstream()
        await turn()
        assert bench.ended_trials() == [("r", ONE, running)]
        await bench.answer(waiting)
        assert bench.ended_trials() == [("r", ONE, waiting)]

    on_loop(body)


def test_a_trial_that_meets_an_upstream_which_is_no_more_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches neither the upstream that has ended nor the next one: only the pool can tell."""

    async def body() -> None:
        bench = Bench(monkeypatch)
        (name,) = bench.stage.instance(bench.pool).supervision.names
        upstream = bench.stage.instance(bench.pool).child_address(name)
        trial = bench.leased(is_trial=True)
        bench.stage.system.post_all([(upstream, ActorExitRequest()), (bench.pool, trial)])
        await turn()
        assert bench.wire().exchanges == []
        assert bench.ended_trials() == [("r", ONE, trial.call.call_id)]
        assert bench.remembered_calls() == 0

    on_loop(body)


@pytest.mark.parametrize("change", [{"replicas": (ONE,)}, {"headers": {"X-Key": "other"}}], ids=["removed", "connected anew"])
def test_a_trial_is_over_when_its_replica_is_removed_or_connected_anew(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch, replicas=[ONE, TWO])
        trials = [await bench.lease(TWO, is_trial=True) for _ in range(4)]
        assert bench.counts(TWO) == (0, 3, 1, 1)
        bench.stage.tell(bench.pool, changed(bench, **change))
        await turn()
        assert sorted(bench.ended_trials()) == [("r", TWO, trial) for trial in trials]

    on_loop(body)


def test_a_trial_behind_the_crash_of_the_pool_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those it held are forgotten with the router, which is started again after it."""

    async def body() -> None:
        bench = Bench(monkeypatch)
        trial = bench.leased(is_trial=True)
        bench.stage.system.post_all([(bench.pool, CrashRequested()), (bench.pool, trial)])
        await turn()
        assert not bench.stage.is_alive(bench.pool)
        assert bench.ended_trials() == [("r", ONE, trial.call.call_id)]

    on_loop(body)
