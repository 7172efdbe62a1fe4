"""Circuits, looks and rates of a router: whom it keeps out, how it finds out that he is well, and what it tries all the same."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.actors.messages.calls import (
    CallFailed,
    CallFaulted,
    CallRanLong,
    CallSucceeded,
    CallTimedOut,
    LeaseCall,
    TrialEnded,
)
from mcp_gateway.actors.messages.health import (
    ProbeReplicas,
    ReplicaEjected,
)
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.transports.ports.replica_id import ReplicaId
from tests.actors.routing.router_bench import (
    ADA,
    BOB,
    FILES,
    FIRST,
    NOTES,
    NOTES_ROUTE,
    ROUTE,
    THE_REPLICA,
    Bench,
    faults,
    on_loop,
    probed,
)

# ---- circuits


def test_a_circuit_opens_after_its_failures_refuses_tries_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE])
        bench.events()
        fault, other = faults(ROUTE, THE_REPLICA, 2)
        about = {"route": ROUTE, "replica": THE_REPLICA.address}
        # 1. Two failures, a success, two failures: not three in a row.
        bench.tell(fault, other, CallSucceeded(ROUTE, THE_REPLICA), fault, other)
        assert isinstance(bench.call("tools/call/notes__add"), LeaseCall)
        # 2. The third opens it.
        bench.tell(fault)
        assert bench.events() == [("mcp.circuit.opened", about)]
        failed = bench.call("tools/call/notes__add")
        assert isinstance(failed, CallFailed)
        assert (failed.why.reason, failed.why.fate.was_sent, failed.why.retry_after_s) == (
            "circuit_open",
            False,
            pytest.approx(10.0),
        )
        bench.stage.advance(4)
        failed = bench.call("tools/call/notes__add")
        assert isinstance(failed, CallFailed)
        assert failed.why.retry_after_s == pytest.approx(6.0)
        # 3. After the reset timeout one call tries, and nobody beside it.
        bench.stage.advance(6)
        trial = bench.call("tools/call/notes__add")
        assert isinstance(trial, LeaseCall)
        assert trial.is_trial
        assert bench.events() == [("mcp.circuit.half_open", about)]
        assert bench.reason("tools/call/notes__add") == "circuit_open"
        # 4. It fails: open for another period. The next one succeeds: closed.
        bench.tell(fault)
        assert bench.events() == [("mcp.circuit.opened", about)]
        bench.stage.advance(10)
        trial = bench.call("tools/call/notes__add")
        assert isinstance(trial, LeaseCall)
        assert trial.is_trial
        bench.tell(CallSucceeded(ROUTE, THE_REPLICA))
        assert [topic for topic, _ in bench.events()] == ["mcp.circuit.half_open", "mcp.circuit.closed"]
        leased = bench.call("tools/call/notes__add")
        assert isinstance(leased, LeaseCall)
        assert not leased.is_trial

    on_loop(test)


def half_open(monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, LeaseCall]:
    """A router with one replica, whose circuit is half open, and the trial."""
    bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE])
    bench.tell(*faults(ROUTE, THE_REPLICA, 3))
    bench.stage.advance(10)
    trial = bench.call("tools/call/notes__add")
    assert isinstance(trial, LeaseCall)
    assert trial.is_trial
    bench.events()
    return bench, trial


def test_after_a_trial_without_a_verdict_the_next_call_tries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench, trial = half_open(monkeypatch)
        assert bench.reason("tools/call/notes__add") == "circuit_open"
        bench.tell(TrialEnded(ROUTE, THE_REPLICA, trial.call.call_id))
        second = bench.call("tools/call/notes__add")
        assert isinstance(second, LeaseCall)
        assert second.is_trial
        assert bench.reason("tools/call/notes__add") == "circuit_open"
        assert bench.events() == []

    on_loop(test)


@pytest.mark.parametrize(
    ("verdict", "then"), [(CallSucceeded(ROUTE, THE_REPLICA), None), (CallFaulted(ROUTE, THE_REPLICA, ADA), "circuit_open")]
)
def test_the_end_of_a_trial_does_not_touch_its_verdict(
    monkeypatch: pytest.MonkeyPatch, verdict: object, then: str | None
) -> None:
    def test() -> None:
        bench, trial = half_open(monkeypatch)
        bench.tell(verdict, TrialEnded(ROUTE, THE_REPLICA, trial.call.call_id))
        next_call = bench.call("tools/call/notes__add")
        assert (next_call.why.reason if isinstance(next_call, CallFailed) else None) == then
        assert isinstance(next_call, CallFailed) or not next_call.is_trial

    on_loop(test)


def test_the_end_of_a_trial_that_was_given_up_leaves_its_successor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench, first = half_open(monkeypatch)
        bench.stage.advance(10)  # nothing was heard of it
        second = bench.call("tools/call/notes__add")
        assert isinstance(second, LeaseCall)
        assert second.is_trial
        bench.tell(TrialEnded(ROUTE, THE_REPLICA, first.call.call_id))
        assert bench.reason("tools/call/notes__add") == "circuit_open"

    on_loop(test)


def test_a_replica_that_was_removed_in_a_trial_and_comes_back_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench, trial = half_open(monkeypatch)
        ended = TrialEnded(ROUTE, THE_REPLICA, trial.call.call_id)
        bench.tell(Topology(backends=(), routes=()), ended)
        bench.tell(Topology(backends=bench.settings.backends, routes=bench.settings.routes), ended)
        leased = bench.call("tools/call/notes__add")
        assert isinstance(leased, LeaseCall)
        assert not leased.is_trial

    on_loop(test)


def test_an_open_circuit_sends_calls_to_the_next_replica_and_spares_other_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        preferred = bench.replica("k")
        bench.tell(*faults("tools/call/files__*", ReplicaId("files", preferred), 5))
        assert bench.replica("k") != preferred
        assert bench.replica("k", target="prompts/get/files__x") == preferred
        status = bench.stage.ask(bench.router, StatusRequested("s")).status["files"]
        assert {name: row["circuit"] for name, row in status.items() if row["circuit"] != "closed"} == {preferred: "open"}

    on_loop(test)


# ---- looks


def looks(bench: Bench) -> list[ReplicaId | None]:
    """Whom the router has asked how it does since the last look at it."""
    asked = bench.pool.take(ProbeReplicas)
    assert all(each.asker == bench.router for each in asked)
    return [each.replica for each in asked]


def test_what_one_client_alone_has_seen_keeps_nobody_out_and_makes_the_router_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE])
        bench.events()
        alone = [CallFaulted(ROUTE, THE_REPLICA, ADA)] * 12
        # 1. The server is well by its probe: that client may fail as often as it likes.
        bench.tell(*alone)
        assert looks(bench) == [THE_REPLICA], "one question at a time"
        bench.tell(probed(THE_REPLICA), *alone)
        assert (looks(bench), bench.events()) == ([], [])
        assert isinstance(bench.call("tools/call/notes__add"), LeaseCall)
        # 2. A server that is starting says nothing.
        bench.stage.advance(1)
        bench.tell(*alone, probed(THE_REPLICA, "starting since 1 s", is_starting=True))
        assert (looks(bench), bench.events()) == ([THE_REPLICA], [])
        # 3. The probe fails: that is the second witness.
        bench.stage.advance(1)
        bench.tell(alone[0], probed(THE_REPLICA, "cannot connect"))
        assert [topic for topic, _ in bench.events()] == ["mcp.circuit.opened"]
        assert bench.reason("tools/call/notes__add") == "circuit_open"

    on_loop(test)


def test_the_circuits_of_a_replica_that_is_gone_close_within_a_second_of_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        routes = [NOTES_ROUTE, {**NOTES_ROUTE, "pattern": "prompts/get/notes__*"}]
        bench = Bench(monkeypatch, NOTES, routes=routes)
        for route in routes:
            bench.tell(*[CallFaulted(str(route["pattern"]), THE_REPLICA, ADA)] * 3)
        bench.tell(probed(THE_REPLICA, "cannot connect"))
        assert [topic for topic, _ in bench.events()] == ["mcp.circuit.opened"] * 2
        bench.pool.take(ProbeReplicas)
        for problem in ("cannot connect", "cannot connect", ""):
            assert bench.reason("tools/call/notes__add") == "circuit_open"
            bench.stage.advance(1)
            assert looks(bench) == [THE_REPLICA]
            bench.tell(probed(THE_REPLICA, problem))
        assert [topic for topic, _ in bench.events()] == ["mcp.circuit.closed"] * 2
        leased = bench.call("tools/call/notes__add")
        assert isinstance(leased, LeaseCall)
        assert not leased.is_trial
        bench.stage.advance(5)
        assert looks(bench) == [], "nobody is kept out"

    on_loop(test)


def test_calls_without_an_answer_in_time_open_a_circuit_only_where_the_probe_has_none_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE])
        bench.events()
        slow = [CallTimedOut(ROUTE, THE_REPLICA)] * 12
        bench.tell(*slow)
        assert looks(bench) == [THE_REPLICA]
        bench.tell(probed(THE_REPLICA))
        assert bench.events() == [], "a tool takes its time"
        bench.stage.advance(1)
        bench.tell(*slow)
        assert looks(bench) == [THE_REPLICA]
        bench.tell(probed(THE_REPLICA, "no answer in time"))
        assert [topic for topic, _ in bench.events()] == ["mcp.circuit.opened"]
        # A trial that has no answer in time has no verdict: the next call is one.
        bench.stage.advance(10)
        trial = bench.call("tools/call/notes__add")
        assert isinstance(trial, LeaseCall)
        bench.tell(CallTimedOut(ROUTE, THE_REPLICA), TrialEnded(ROUTE, THE_REPLICA, trial.call.call_id))
        assert isinstance(bench.call("tools/call/notes__add"), LeaseCall)

    on_loop(test)


def test_a_look_whose_answer_is_lost_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool was restarted, for example."""

    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE], health_check_interval=2.0)
        bench.tell(*faults(ROUTE, THE_REPLICA, 3))
        assert looks(bench) == [THE_REPLICA]
        for _ in range(2):
            bench.stage.advance(1)
            assert looks(bench) == []
        bench.stage.advance(1)
        assert looks(bench) == [THE_REPLICA]

    on_loop(test)


def test_of_many_failing_replicas_a_share_is_kept_out_and_the_others_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        files = {"name": "files", "replicas": [f"http://127.0.0.1:300{number}/mcp" for number in range(4)]}
        bench = Bench(monkeypatch, files)
        replicas = [ReplicaId("files", address) for address in files["replicas"]]
        for replica in replicas:
            bench.tell(*faults("tools/call/files__*", replica, 5))
        opened = [payload["replica"] for topic, payload in bench.events() if topic == "mcp.circuit.opened"]
        assert opened == [replica.address for replica in replicas[:2]]
        assert {bench.replica(f"k{number}") for number in range(60)} == {replica.address for replica in replicas[2:]}
        # One of those that were kept out is well again: there is room for the next failure of another one.
        bench.tell(probed(replicas[0], "cannot connect"), probed(replicas[0]))
        bench.tell(CallFaulted("tools/call/files__*", replicas[2], ADA))
        assert {bench.replica(f"k{number}") for number in range(60)} == {replicas[0].address, replicas[3].address}

    on_loop(test)


def test_outcomes_for_routes_and_replicas_that_are_gone_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.bus.received.clear()
        bench.tell(
            CallFaulted("tools/call/gone__*", ReplicaId("gone", FIRST), ADA),
            CallSucceeded("tools/call/gone__*", ReplicaId("gone", FIRST)),
        )
        bench.tell(
            CallFaulted("backend/gone", ReplicaId("gone", FIRST), ADA), CallTimedOut("backend/gone", ReplicaId("gone", FIRST))
        )
        assert bench.events() == []
        assert bench.stage.is_alive(bench.router)

    on_loop(test)


def test_an_ejected_replica_is_asked_until_it_answers_and_then_takes_calls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has ejected it may be slower to find out, in another cell."""

    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE])
        bench.tell(*faults(ROUTE, THE_REPLICA, 3), probed(THE_REPLICA, "cannot connect"))
        bench.tell(ReplicaEjected(THE_REPLICA, "down"))
        assert bench.reason("tools/call/notes__add") == "no_backend"
        bench.events()
        bench.stage.advance(0.25)
        assert looks(bench) == [THE_REPLICA]
        bench.tell(probed(THE_REPLICA, "starting", is_starting=True))
        assert bench.reason("tools/call/notes__add") == "no_backend"
        bench.stage.advance(0.25)
        assert looks(bench) == [THE_REPLICA]
        bench.tell(probed(THE_REPLICA))
        assert [topic for topic, _ in bench.events()] == ["mcp.circuit.closed"]
        leased = bench.call("tools/call/notes__add")
        assert isinstance(leased, LeaseCall)
        assert not leased.is_trial
        bench.stage.advance(5)
        assert looks(bench) == []

    on_loop(test)


def test_a_server_that_answers_its_probes_all_the_time_is_tried_at_once_and_back_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was away for less time than it takes to ask it."""

    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE])
        bench.tell(*faults(ROUTE, THE_REPLICA, 3))
        assert bench.reason("tools/call/notes__add") == "circuit_open"
        bench.tell(probed(THE_REPLICA))
        trial = bench.call("tools/call/notes__add")
        assert isinstance(trial, LeaseCall)
        assert trial.is_trial
        bench.stage.advance(0.25)
        assert looks(bench) == [THE_REPLICA]
        bench.tell(probed(THE_REPLICA))
        assert bench.events()[-1][0] == "mcp.circuit.closed"

    on_loop(test)


def test_one_client_whose_trial_fails_keeps_no_other_one_from_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[NOTES_ROUTE])
        target = "tools/call/notes__add"
        # 1. It is out for what two have seen, and answers its probes: one of them may try, and fails.
        bench.tell(*faults(ROUTE, THE_REPLICA, 3), probed(THE_REPLICA))
        trial = bench.call(target, hash_keys={"ip": ADA})
        assert isinstance(trial, LeaseCall)
        assert trial.is_trial
        bench.tell(CallFaulted(ROUTE, THE_REPLICA, ADA), probed(THE_REPLICA))
        # 2. That one waits, the other does not; what the first has on its way fails no trial but its own.
        bench.stage.advance(0.1)
        assert bench.reason(target, hash_keys={"ip": ADA}) == "circuit_open"
        trial = bench.call(target, hash_keys={"ip": BOB})
        assert isinstance(trial, LeaseCall)
        assert trial.is_trial
        bench.tell(CallFaulted(ROUTE, THE_REPLICA, ADA), CallSucceeded(ROUTE, THE_REPLICA))
        # 3. All is well for everybody.
        assert isinstance(bench.call(target, hash_keys={"ip": ADA}), LeaseCall)
        assert [topic for topic, _ in bench.events()] == [
            "mcp.circuit.opened",
            "mcp.circuit.half_open",
            "mcp.circuit.opened",
            "mcp.circuit.half_open",
            "mcp.circuit.closed",
        ]

    on_loop(test)


# ---- rates, panic


def by_turns(client_calls: int, message: type[Any], replica: ReplicaId, successes: int) -> list[Any]:
    return [message("tools/call/files__*", replica, (ADA, BOB)[number % 2], successes) for number in range(client_calls)]


@pytest.mark.parametrize("message", [CallFaulted, CallRanLong])
def test_a_replica_whose_calls_go_wrong_too_often_is_left_to_the_others(
    monkeypatch: pytest.MonkeyPatch, message: type[Any]
) -> None:
    def test() -> None:
        routes = [{"pattern": "tools/call/files__*", "backend": "files", "failure_threshold": 10_000, "slow_call_duration": 0.2}]
        bench = Bench(monkeypatch, FILES, routes=routes)
        preferred = bench.replica("k")
        bench.tell(*by_turns(9, message, ReplicaId("files", preferred), 1))
        assert bench.replica("k") == preferred
        bench.tell(*by_turns(9, message, ReplicaId("files", preferred), 1))
        bench.tell(*by_turns(2, message, ReplicaId("files", preferred), 0))
        assert bench.replica("k") != preferred
        leased = bench.call()
        assert isinstance(leased, LeaseCall)
        assert leased.slow_after_s == 0.2

    on_loop(test)


def test_slow_calls_are_asked_for_by_their_route_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        leased = bench.call()
        assert isinstance(leased, LeaseCall)
        assert leased.slow_after_s == float("inf")
        bench.tell(*by_turns(100, CallRanLong, leased.replica, 0))
        assert bench.events() == []

    on_loop(test)


def test_a_route_that_may_panic_tries_a_replica_that_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, NOTES, routes=[{**NOTES_ROUTE, "panic": True}])
        bench.tell(*faults(ROUTE, THE_REPLICA, 3), ReplicaEjected(THE_REPLICA, "down"))
        leased = bench.call("tools/call/notes__add")
        assert isinstance(leased, LeaseCall)
        assert not leased.is_trial

    on_loop(test)
