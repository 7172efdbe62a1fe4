"""The connection pool with real upstreams on a scripted wire: leases, waiting, refusals, and what an end of an upstream frees."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from thespian.actors import ActorExitRequest

from mcp_gateway.actors.messages.calls import (
    CallAnswered,
    CallFailed,
    CallLeft,
    CancelCall,
    LeaseReturned,
)
from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.actors.messages.health import ComponentProbed, ProbeComponent, ProbeReplicas, ReplicaProbed
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.supervision import RestartChildRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from tests.actors.pool.pool_bench import ONE, TWO, Bench, call_id_of, changed, turn
from tests.doubles.patience import on_loop

# ---- leases


def test_calls_beyond_size_and_overflow_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        assert bench.counts() == (2, 0, 0, 0)
        ids = [await bench.lease() for _ in range(6)]
        assert bench.running() == ids[:3]
        assert bench.counts() == (0, 3, 3, 1)
        await bench.answer(ids[1])
        assert bench.running() == [ids[0], ids[2], ids[3]]
        await bench.answer(ids[3])
        assert bench.running() == [ids[0], ids[2], ids[4]]
        for call_id in (ids[0], ids[2], ids[4], ids[5]):
            await bench.answer(call_id)
        assert [each.call_id for each in bench.edge.take(CallAnswered)] == [ids[1], ids[3], ids[0], ids[2], ids[4], ids[5]]
        assert bench.counts() == (2, 0, 0, 0)
        assert bench.remembered_calls() == 0

    on_loop(body)


def test_a_waiter_is_refused_when_the_checkout_timeout_is_over_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        held = [await bench.lease() for _ in range(3)]
        first = await bench.lease()
        bench.stage.advance(2)
        second = await bench.lease()
        bench.stage.advance(2.99)
        assert bench.failures() == {}
        bench.stage.advance(0.02)
        failures = bench.failures()
        assert list(failures) == [first]
        failed = failures[first]
        assert (failed.why.reason, failed.why.fate.was_sent, failed.replica) == ("pool_exhausted", False, ONE)
        bench.stage.advance(1.97)
        assert bench.failures() == {}
        bench.stage.advance(0.02)
        assert list(bench.failures()) == [second]
        assert bench.running() == held
        for call_id in held:
            await bench.answer(call_id)
        assert bench.counts() == (2, 0, 0, 0)
        assert bench.remembered_calls() == 0

    on_loop(body)


def test_a_waiter_waits_no_longer_than_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3):
            await bench.lease()
        late = await bench.lease()
        hurried = await bench.lease(deadline_s=1.0)
        bench.stage.advance(1.01)
        assert list(bench.failures()) == [hurried]
        bench.stage.advance(4)
        assert list(bench.failures()) == [late]

    on_loop(body)


@pytest.mark.parametrize("passed_s", [1.0, 1.01])
def test_a_call_whose_own_time_is_over_is_not_begun_and_says_so(monkeypatch: pytest.MonkeyPatch, passed_s: float) -> None:
    """Another replica could not serve it either: the refusal names none that the edge would try next."""

    async def body() -> None:
        bench = Bench(monkeypatch)
        held = [await bench.lease() for _ in range(3)]
        hurried = await bench.lease(deadline_s=1.0)
        bench.stage.advance(passed_s)
        late = await bench.lease(deadline_s=0.0)
        refused = bench.failures()
        assert list(refused) == [hurried, late]
        assert {(each.why.reason, each.replica, each.why.fate.was_sent) for each in refused.values()} == {
            ("upstream_timeout", "", False)
        }
        assert bench.running() == held
        for call_id in held:
            await bench.answer(call_id)
        assert await bench.lease(deadline_s=0.0) in bench.failures(), "not even where a connection is free"
        assert bench.remembered_calls() == 0

    on_loop(body)


# ---- adaptive concurrency


class Adaptive(Bench):
    """A pool of 20 that is asked by 40 callers all the time, of a server that takes so long as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch, pool_size=20, adaptive_concurrency=True)
        self.refused: list[CallFailed] = []

    async def serve(self, rounds: int, served_s: float) -> int:
        """How many are on the wire at the end."""
        for _ in range(rounds):
            while sum(self.counts()[1:3]) < 40 and not self.refused:
                await self.lease()
                self.refused += self.edge.take(CallFailed)
            call_id = self.running()[0]
            self.stage.tell(self.pool, LeaseReturned(ReplicaId("files", ONE), call_id, served_s))
            next(each for each in self.wire().open if call_id_of(each) == call_id).answer()
            await turn()
        return self.counts()[1]


def test_a_server_that_becomes_slower_gets_fewer_calls_and_the_newest_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Adaptive(monkeypatch)
        assert await bench.serve(40, 0.1) == 21  # with max_overflow
        assert bench.refused == []
        fewest = await bench.serve(25, 2.0)
        assert fewest < 16
        assert bench.refused
        newest = bench.refused[0]
        assert (newest.why.reason, newest.replica, newest.call_id) == ("pool_exhausted", ONE, bench._call_id)
        assert newest.why.retry_after_s is not None
        assert newest.why.retry_after_s > 5.0, "longer than it would have waited"

    on_loop(body)


def test_an_idle_gateway_refuses_nothing_below_pool_size_whatever_its_calls_take(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch, pool_size=20, adaptive_concurrency=True)
        for served_s in (0.001, 100.0) * 20:
            call_id = await bench.lease()
            bench.stage.tell(bench.pool, LeaseReturned(ReplicaId("files", ONE), call_id, served_s))
            await bench.answer(call_id)
        for _ in range(21):
            await bench.lease()
        assert bench.counts() == (0, 21, 0, 1)
        assert bench.failures() == {}

    on_loop(body)


def test_without_it_a_slow_server_gets_what_its_pool_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Adaptive(monkeypatch)
        await bench.serve(40, 0.1)
        await bench.serve(25, 2.0)
        backends = tuple(attrs.evolve(each, adaptive_concurrency=False) for each in bench.settings.backends)
        bench.stage.tell(bench.pool, Topology(backends=backends, routes=()))
        await turn()
        assert bench.counts()[1] == 21

    on_loop(body)


def test_a_lease_that_comes_free_at_the_last_moment_is_granted_or_refused_never_both(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        held = [await bench.lease() for _ in range(3)]
        waiter = await bench.lease()
        bench.stage.now_s += 5.0  # the deadline has come, its timer has not fired yet
        await bench.answer(held[0])
        assert bench.running() == held[1:]
        bench.stage.advance(0.01)
        assert list(bench.failures()) == [waiter]
        assert bench.counts() == (0, 2, 0, 0)

    on_loop(body)


def test_too_many_waiters_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3 + 300):
            await bench.lease()
        assert bench.failures() == {}
        too_many = await bench.lease()
        assert [(each, failed.why.reason) for each, failed in bench.failures().items()] == [(too_many, "pool_exhausted")]

    on_loop(body)


def test_exhaustion_is_an_event_once_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3 + 4):
            await bench.lease()
        bench.stage.advance(5.01)
        assert len(bench.failures()) == 4
        events = bench.bus.take(PublishEvent)
        assert [(each.topic, each.payload) for each in events] == [("mcp.pool.exhausted", {"backend": "files", "replica": ONE})]
        await bench.lease()
        bench.stage.advance(5.01)
        assert len(bench.bus.take(PublishEvent)) == 1

    on_loop(body)


def test_streams_use_no_lease_and_are_forgotten_when_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        streams = [await bench.lease(kind=RequestKind.STREAM) for _ in range(10)]
        assert bench.counts() == (2, 0, 0, 0)
        assert len(bench.wire().open) == 10
        bench.stage.tell(bench.pool, CancelCall(streams[0]))
        await turn()
        assert [each.is_cancelled for each in bench.wire().exchanges] == [True] + [False] * 9
        for stream in bench.wire().open:  # the server ends the others
            stream.answer()
        await turn()
        assert len(bench.edge.take(CallAnswered)) == 9
        assert bench.remembered_calls() == 0

    on_loop(body)


@pytest.mark.parametrize("kind", [RequestKind.MESSAGE, RequestKind.TERMINATE])
def test_what_calls_may_wait_for_needs_no_lease_and_cannot_outlive_its_deadline(
    monkeypatch: pytest.MonkeyPatch, kind: RequestKind
) -> None:
    """A call that has asked its client something holds its lease until the answer has passed."""

    async def body() -> None:
        bench = Bench(monkeypatch, request_timeout=20.0)
        held = [await bench.lease() for _ in range(3)]
        waiting = await bench.lease()
        await bench.lease(kind=kind)
        assert bench.counts() == (0, 3, 1, 1)
        told = bench.wire().open[-1]
        assert (told.request.kind, len(bench.wire().open)) == (kind, 4)
        assert told.request.timeout_s is not None
        told.answer()
        await turn()
        assert len(bench.edge.take(CallAnswered)) == 1
        assert bench.running() == held, "its end frees nobody else's lease"
        await bench.answer(held[0])
        assert bench.running() == [*held[1:], waiting]
        assert bench.remembered_calls() == 3

    on_loop(body)


def test_the_router_hears_once_of_the_end_of_each_call_that_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        counted = [msgspec.structs.replace(bench.leased(), is_counted=True) for _ in range(5)]
        for leased in counted:
            bench.stage.tell(bench.pool, leased)
        await turn()
        first, second = [each.call.call_id for each in counted[:2]]
        assert bench.router.take(CallLeft) == []
        await bench.answer(first)  # the fourth runs now
        bench.stage.tell(bench.pool, CancelCall(second), CancelCall(second))  # the fifth as well
        await turn()
        bench.crash_upstream()
        await turn()
        assert bench.router.take(CallLeft) == [CallLeft(ReplicaId("files", ONE))] * 5
        await bench.lease()
        bench.crash_upstream()
        assert bench.router.of(CallLeft) == []

    on_loop(body)


# ---- cancellation


def test_the_cancellation_of_a_waiter_and_of_a_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        held = [await bench.lease() for _ in range(3)]
        first, second, third = [await bench.lease() for _ in range(3)]
        bench.stage.tell(bench.pool, CancelCall(second))
        assert bench.counts() == (0, 3, 2, 1)
        bench.stage.tell(bench.pool, CancelCall(held[1]))
        await turn()
        assert [call_id_of(each) for each in bench.wire().exchanges if each.is_cancelled] == [held[1]]
        assert bench.running() == [held[0], held[2], first]
        await bench.answer(first)
        assert bench.running() == [held[0], held[2], third]
        bench.stage.advance(10)
        assert bench.failures() == {}  # nobody waits for the cancelled ones
        for call_id in (held[0], held[2], third):
            await bench.answer(call_id)
        assert bench.counts() == (2, 0, 0, 0)
        assert bench.remembered_calls() == 0

    on_loop(body)


def test_cancellations_and_returns_that_nobody_waits_for_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation may cross the answer on its way, and the other way round."""

    async def body() -> None:
        bench = Bench(monkeypatch)
        done = await bench.lease()
        await bench.answer(done)
        bench.stage.tell(bench.pool, CancelCall(done), CancelCall(4711), LeaseReturned(ReplicaId("files", ONE), done))
        cancelled = await bench.lease()
        bench.stage.tell(bench.pool, CancelCall(cancelled), LeaseReturned(ReplicaId("files", ONE), cancelled))
        bench.stage.tell(bench.pool, LeaseReturned(ReplicaId("gone", ONE), 1))
        assert bench.counts() == (2, 0, 0, 0)
        assert bench.stage.is_alive(bench.pool)

    on_loop(body)


# ---- ends


def test_a_crash_of_an_upstream_answers_its_calls_and_lets_the_next_ones_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        held = [await bench.lease() for _ in range(3)]
        waiting = [await bench.lease() for _ in range(2)]
        old = bench.wire()
        bench.crash_upstream()
        await turn()
        failures = bench.failures()
        assert list(failures) == held
        assert {(each.why.reason, each.why.fate.was_sent) for each in failures.values()} == {("upstream_failed", True)}
        assert old.is_closed
        assert all(each.is_cancelled for each in old.exchanges)
        assert len(bench.transport.wires[ONE]) == 2
        assert bench.running() == waiting  # on the new wire
        assert bench.counts() == (0, 2, 0, 0)
        for call_id in waiting:
            await bench.answer(call_id)
        assert bench.remembered_calls() == 0

    on_loop(body)


def test_a_call_that_is_sent_to_an_upstream_too_late_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not run, so that the edge may try it elsewhere; those that ran have been answered by the upstream, and once."""

    async def body() -> None:
        bench = Bench(monkeypatch)
        ran, lost, stream = await bench.lease(), bench.leased(), bench.leased(kind=RequestKind.STREAM)
        (name,) = bench.stage.instance(bench.pool).supervision.names
        upstream = bench.stage.instance(bench.pool).child_address(name)
        bench.stage.system.post_all([(upstream, ActorExitRequest()), (bench.pool, lost), (bench.pool, stream)])
        await turn()
        failures = [(each.call_id, each.why.reason, each.why.fate) for each in bench.edge.take(CallFailed)]
        assert failures == [
            (ran, "upstream_failed", Fate.ENDED),
            (lost.call.call_id, "upstream_failed", Fate.TURNED_AWAY),
            (stream.call.call_id, "upstream_failed", Fate.TURNED_AWAY),
        ]
        assert bench.counts() == (2, 0, 0, 0)
        assert bench.remembered_calls() == 0

    on_loop(body)


def test_an_upstream_that_is_restarted_on_request_frees_its_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        held = [await bench.lease() for _ in range(3)]
        waiting = await bench.lease()
        (name,) = bench.stage.instance(bench.pool).supervision.names
        bench.stage.tell(bench.pool, RestartChildRequested(name=name, request_id="r"))
        await turn()
        assert list(bench.failures()) == held
        assert bench.running() == [waiting]
        assert bench.counts() == (1, 1, 0, 0)

    on_loop(body)


def test_a_crash_with_very_many_waiters_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch, pool_size=20)
        for _ in range(21 + 2_000):
            await bench.lease()
        bench.crash_upstream()
        await turn()
        assert bench.stage.is_alive(bench.pool)
        assert len(bench.failures()) == 21
        assert bench.counts() == (0, 21, 1979, 1)

    on_loop(body)


def test_a_waiter_that_gives_up_while_its_upstream_restarts_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        for _ in range(3):
            await bench.lease()
        waiter = await bench.lease()
        (name,) = bench.stage.instance(bench.pool).supervision.names
        upstream = bench.stage.instance(bench.pool).child_address(name)
        bench.stage.system.post_all([(upstream, CrashRequested()), (bench.pool, CancelCall(waiter))])
        await turn()
        assert bench.running() == []
        assert bench.counts() == (2, 0, 0, 0)

    on_loop(body)


def test_a_crash_of_the_pool_ends_its_upstreams_and_answers_for_mail_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        held = await bench.lease()
        wire = bench.wire()
        bench.stage.tell(bench.pool, CrashRequested())
        await turn()
        assert list(bench.failures()) == [held]
        assert wire.is_closed
        assert not bench.stage.is_alive(bench.pool)

    on_loop(body)


# ---- topology


async def arrange(bench: Bench, **fields: Any) -> None:
    bench.stage.tell(bench.pool, changed(bench, **fields))
    bench.answer_registry()
    await turn()


def test_calls_to_a_replica_that_is_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        call_id = await bench.lease(TWO)
        failed = bench.failures()[call_id]
        assert (failed.why.reason, failed.why.fate.was_sent, failed.replica) == ("upstream_failed", False, TWO)
        assert bench.remembered_calls() == 0

    on_loop(body)


def test_a_removed_replica_refuses_those_who_wait_and_frees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch, replicas=[ONE, TWO])
        held = [await bench.lease(TWO) for _ in range(3)]
        waiting = await bench.lease(TWO)
        other = await bench.lease(ONE)
        old = bench.wire(TWO)
        await arrange(bench)  # nothing has changed
        assert bench.failures() == {}
        bench.stage.tell(bench.pool, changed(bench, replicas=(ONE,)))
        bench.answer_registry()
        await turn()
        failures = bench.failures()
        assert sorted(failures) == [*held, waiting]
        assert failures[waiting].why.fate is Fate.TURNED_AWAY
        assert old.is_closed
        assert bench.running(ONE) == [other]
        await bench.answer(other)
        assert bench.remembered_calls() == 0
        assert bench.stage.is_alive(bench.pool)

    on_loop(body)


def test_calls_to_the_replicas_that_stay_are_not_disturbed_by_those_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch, replicas=[ONE, TWO])
        held = await bench.lease(TWO)
        await arrange(bench, replicas=(TWO,))
        assert bench.running(TWO) == [held]
        await arrange(bench, replicas=("http://127.0.0.1:3003/mcp", TWO, ONE))
        assert bench.running(TWO) == [held]
        assert bench.failures() == {}
        for replica in ("http://127.0.0.1:3003/mcp", ONE):
            assert bench.running(replica) == []
            call_id = await bench.lease(replica)
            assert bench.running(replica) == [call_id]
        assert len(bench.transport.wires[TWO]) == 1

    on_loop(body)


def test_a_change_of_size_serves_who_waits_and_keeps_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        ids = [await bench.lease() for _ in range(6)]
        await arrange(bench, pool_size=4)
        assert bench.running() == ids[:5]
        assert bench.counts() == (0, 5, 1, 1)
        assert bench.failures() == {}

    on_loop(body)


def test_a_change_of_headers_connects_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        old = bench.wire()
        await arrange(bench, headers={"X-Key": "other"})
        assert old.is_closed
        assert bench.wire() is not old
        call_id = await bench.lease()
        assert bench.running() == [call_id]

    on_loop(body)


def test_a_scheme_that_nobody_speaks_leaves_its_replica_unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        await arrange(bench, replicas=(ONE, "ws://127.0.0.1:3003/mcp"))
        call_id = await bench.lease("ws://127.0.0.1:3003/mcp")
        assert bench.failures()[call_id].why.reason == "upstream_failed"

    on_loop(body)


# ---- questions


def test_it_is_half_well_while_calls_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        assert bench.stage.ask(bench.pool, ProbeComponent("p")) == ComponentProbed("p", "connection-pool")
        for _ in range(4):
            await bench.lease()
        problem = bench.stage.ask(bench.pool, ProbeComponent("p")).problem
        assert problem == "calls wait for a connection to files"

    on_loop(body)


def test_probes_reach_every_replica_and_those_without_a_connection_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch, replicas=[ONE, "ws://127.0.0.1:3003/mcp"])
        monitor = bench.stage.peer()
        monitor.say(bench.pool, ProbeReplicas("p", 1.0, monitor.address))
        await turn()
        found = {each.replica.address: each.problem for each in monitor.take(ReplicaProbed)}
        assert found == {ONE: "", "ws://127.0.0.1:3003/mcp": "not connected"}
        monitor.say(bench.pool, ProbeReplicas("p", 1.0, monitor.address, ReplicaId("files", ONE)))
        await turn()
        assert [each.replica.address for each in monitor.take(ReplicaProbed)] == [ONE], "the only one to ask"

    on_loop(body)
