"""The router: which replica gets a call, and what the call reads where none may take it."""

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
    CallLeft,
    CallRanLong,
    CallSucceeded,
    CallTimedOut,
    LeaseCall,
    RouteCall,
    TrialEnded,
)
from mcp_gateway.actors.messages.events import EventPublished, PublishEvent, Subscribe
from mcp_gateway.actors.messages.health import (
    ComponentProbed,
    ProbeComponent,
    ProbeReplicas,
    ReplicaEjected,
    ReplicaProbed,
    ReplicaRestored,
)
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.routing.router import Router
from mcp_gateway.transports.ports.failure import Fate
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


# ---- targets


@pytest.mark.parametrize(
    ("target", "backend", "route"),
    [
        ("tools/call/files__read", "files", "tools/call/files__*"),
        ("tools/call/notes__add", "notes", "tools/call/notes__*"),
        ("prompts/get/notes__greet", "notes", "prompts/get/notes__*"),
    ],
)
def test_a_call_goes_to_the_backend_whose_prefix_its_target_has(
    monkeypatch: pytest.MonkeyPatch, target: str, backend: str, route: str
) -> None:
    def test() -> None:
        leased = Bench(monkeypatch).call(target)
        assert isinstance(leased, LeaseCall)
        assert (leased.replica.backend, leased.route, leased.is_trial) == (backend, route, False)

    on_loop(test)


def test_configured_routes_replace_those_by_prefix_and_the_most_literal_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        routes = [
            {"pattern": "tools/call/*", "backend": "notes"},
            {"pattern": "tools/call/files__*", "backend": "files"},
            {"pattern": "tools/call/files__special", "backend": "notes", "transports": ["websocket"]},
        ]
        bench = Bench(monkeypatch, routes=routes)
        found = {
            target: bench.call(f"tools/call/{target}").replica.backend for target in ("other", "files__read", "files__special")
        }
        assert found == {"other": "notes", "files__read": "files", "files__special": "files"}
        assert bench.call("tools/call/files__special", transport="websocket").replica.backend == "notes"

    on_loop(test)


@pytest.mark.parametrize(
    ("target", "fields", "reason"),
    [
        ("tools/call/nobody__read", {}, "invalid_params"),
        ("resources/read/x:y/z", {}, "invalid_params"),
        ("prompts/get/nothing", {}, "invalid_params"),
        ("no/such/method", {}, "invalid_params"),  # with an item, it looks like a call for something that nobody offers
        ("nonsense", {}, "unknown_method"),
        ("tools/nonsense", {}, "unknown_method"),
        ("logging/setLevel", {"revision": "2025-11-25"}, "invalid_params"),
        ("logging/setLevel", {"revision": "2026-07-28"}, "unknown_method"),
        ("tools/call/files__read", {"backend": "gone"}, "no_backend"),
    ],
)
def test_a_target_that_nobody_serves_is_refused_as(
    monkeypatch: pytest.MonkeyPatch, target: str, fields: dict[str, Any], reason: str
) -> None:
    on_loop(lambda: _assert_equal(Bench(monkeypatch).reason(target, **fields), reason))


def _assert_equal(found: object, expected: object) -> None:
    assert found == expected


def test_a_call_that_names_its_backend_needs_no_matching_target(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        leased = Bench(monkeypatch).call("tools/list", backend="notes")
        assert isinstance(leased, LeaseCall)
        assert (leased.replica.backend, leased.route) == ("notes", "backend/notes")

    on_loop(test)


def test_a_configured_route_holds_for_calls_that_name_its_backend_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that stands alone is named by its exchanges; what its route says of hashing and failures must hold as well."""

    def test() -> None:
        routes = [
            {"pattern": "tools/call/files__*", "backend": "files", "hash_on": "header:X-Tenant", "failure_threshold": 1},
            {"pattern": "tools/call/sockets__*", "backend": "files", "transports": ["websocket"]},
        ]
        bench = Bench(monkeypatch, routes=routes)
        keys = [{"header:X-Tenant": "t", "session": f"s{number}"} for number in range(20)]
        leased = [bench.call("tools/call/files__read", backend="files", hash_keys=key) for key in keys]
        assert {each.route for each in leased} == {"tools/call/files__*"}
        assert len({each.replica for each in leased}) == 1
        bench.tell(*faults("tools/call/files__*", leased[0].replica, 2))
        moved = bench.call("tools/call/files__read", backend="files", hash_keys=keys[0])
        assert moved.replica != leased[0].replica
        assert bench.call("tools/call/other", backend="files").route == "backend/files"
        assert bench.reason("tools/call/sockets__a", backend="files", is_merged=True) == "invalid_params"

    on_loop(test)


# ---- replicas


def test_the_same_key_goes_to_the_same_replica_and_keys_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        found = {f"k{number}": bench.replica(f"k{number}") for number in range(60)}
        assert set(found.values()) == {FIRST, SECOND, THIRD}
        assert {key: bench.replica(key) for key in found} == found

    on_loop(test)


def test_keys_are_taken_in_the_order_of_hash_on_and_calls_without_any_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        routes = [{"pattern": "tools/call/files__*", "backend": "files", "hash_on": "header:x-tenant|user"}]
        bench = Bench(monkeypatch, FILES, NOTES, routes=routes)

        def at(**keys: str) -> str:
            leased = bench.call(hash_keys={name.replace("tenant", "header:x-tenant"): value for name, value in keys.items()})
            assert isinstance(leased, LeaseCall)
            return leased.replica.address

        tenants = {at(tenant="t1", user=f"u{number}", session=f"s{number}") for number in range(20)}
        assert len(tenants) == 1
        assert at(tenant="t1") in tenants
        assert {at(user="u1", session=f"s{number}") for number in range(20)} == {at(user="u1")}
        assert {at(session="s1") for _ in range(60)} == {FIRST, SECOND, THIRD}

    on_loop(test)


def test_a_session_stays_at_its_replica_whatever_its_key_prefers(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        for replica in (FIRST, SECOND, THIRD):
            assert {bench.replica(f"k{number}", session=session_at(replica)) for number in range(9)} == {replica}
        # An initialize is not bound to where the session was.
        found = {bench.replica(f"k{number}", session=session_at(FIRST), opens_session=True) for number in range(30)}
        assert found == {FIRST, SECOND, THIRD}

    on_loop(test)


def test_a_session_stays_where_a_drain_lets_no_new_call_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.drain("files")
        assert bench.replica("k", session=session_at(FIRST)) == FIRST

    on_loop(test)


@pytest.mark.parametrize("disturbance", ["ejected", "circuit"])
def test_a_request_moves_its_session_off_a_replica_that_takes_no_calls(monkeypatch: pytest.MonkeyPatch, disturbance: str) -> None:
    """Lost at this replica means: the edge opens it again, at another one. What belongs to a running request does not move."""

    def test() -> None:
        bench = Bench(monkeypatch)
        failing = faults("tools/call/files__*", ReplicaId("files", FIRST), 5)
        bench.tell(*([ReplicaEjected(ReplicaId("files", FIRST), "down")] if disturbance == "ejected" else failing))
        failed = bench.call(session=session_at(FIRST))
        assert isinstance(failed, CallFailed)
        assert (failed.why.reason, failed.why.fate is Fate.SESSION_LOST, failed.why.fate.was_sent) == (
            "upstream_failed",
            True,
            False,
        )
        if disturbance == "ejected":
            assert bench.replica("k", session=session_at(FIRST), kind=RequestKind.MESSAGE) == FIRST
        # With nowhere to go it stays.
        for replica in (SECOND, THIRD):
            bench.tell(ReplicaEjected(ReplicaId("files", replica), "down"))
        if disturbance == "ejected":
            assert bench.replica("k", session=session_at(FIRST)) == FIRST
        else:
            assert bench.reason(session=session_at(FIRST)) == "circuit_open"

    on_loop(test)


def test_a_session_is_lost_where_its_replica_was_removed_or_its_backend_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        removed = bench.call(session=session_at("http://127.0.0.1:1/mcp"))
        never = bench.call("tools/call/notes__add", session=session_at(FIRST))
        for failed, backend in ((removed, "files"), (never, "notes")):
            assert isinstance(failed, CallFailed)
            assert (failed.why.reason, failed.why.fate is Fate.SESSION_LOST, failed.why.fate.was_sent) == (
                "upstream_failed",
                True,
                False,
            )
            assert failed.backend == backend

    on_loop(test)


def test_a_call_fails_over_along_the_preference_list_and_then_has_nowhere_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        order: list[str] = []
        for _ in range(3):
            order.append(bench.replica("k", excluded=frozenset(order)))
        assert sorted(order) == [FIRST, SECOND, THIRD]
        assert bench.reason(hash_keys={"session": "k"}, excluded=frozenset(order)) == "upstream_failed"
        # The same order is taken when replicas are ejected instead.
        bench.tell(ReplicaEjected(ReplicaId("files", order[0]), "down"))
        assert bench.replica("k") == order[1]
        bench.tell(ReplicaEjected(ReplicaId("files", order[1]), "down"))
        assert bench.replica("k") == order[2]
        bench.tell(ReplicaRestored(ReplicaId("files", order[0])))
        assert bench.replica("k") == order[0]

    on_loop(test)


def test_without_a_replica_left_calls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        for replica in (FIRST, SECOND, THIRD):
            bench.tell(ReplicaEjected(ReplicaId("files", replica), "down"))
        assert bench.reason() == "no_backend"
        bench.drain("notes")
        assert bench.reason("tools/call/notes__add") == "draining"
        bench.drain()
        assert isinstance(bench.call("tools/call/notes__add"), LeaseCall)

    on_loop(test)


def test_a_circuit_counts_anew_where_its_route_has_changed_and_goes_on_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        routes = [
            {"pattern": f"tools/call/{name}__*", "backend": name, "failure_threshold": 2, "max_ejected_share": 1}
            for name in ("files", "notes")
        ]
        bench = Bench(monkeypatch, FILES, NOTES, routes=routes)
        for name, replicas in (("files", FILES["replicas"]), ("notes", NOTES["replicas"])):
            for replica in replicas:
                bench.tell(*faults(f"tools/call/{name}__*", ReplicaId(name, replica), 2))
        assert (bench.reason(), bench.reason("tools/call/notes__add")) == ("circuit_open", "circuit_open")
        changed = (attrs.evolve(bench.settings.routes[0], failure_threshold=3), bench.settings.routes[1])
        bench.tell(Topology(backends=bench.settings.backends, routes=changed))
        assert isinstance(bench.call(), LeaseCall)
        assert bench.reason("tools/call/notes__add") == "circuit_open"
        for replica in FILES["replicas"]:
            bench.tell(*faults("tools/call/files__*", ReplicaId("files", replica), 2))
        assert isinstance(bench.call(), LeaseCall)
        for replica in FILES["replicas"]:
            bench.tell(*faults("tools/call/files__*", ReplicaId("files", replica), 1))
        assert bench.reason() == "circuit_open"

    on_loop(test)


def test_only_replicas_that_exist_can_be_ejected(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        before = bench.replica("k")
        bench.tell(
            ReplicaEjected(ReplicaId("files", "http://elsewhere/mcp"), "down"), ReplicaEjected(ReplicaId("nobody", FIRST), "down")
        )
        bench.tell(ReplicaRestored(ReplicaId("nobody", FIRST)))
        assert bench.replica("k") == before
        assert bench.stage.is_alive(bench.router)

    on_loop(test)


def test_ejections_that_another_cell_has_found_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        assert [(each.pattern, each.subscriber_id) for each in bench.bus.take(Subscribe)] == [("mcp.replica.*", "cell/0/router")]
        replica = bench.replica("k")
        payload = {"backend": "files", "replica": replica, "reason": "down"}
        bench.tell(EventPublished(event_id=1, topic="mcp.replica.ejected", payload=payload, timestamp_ms=0))
        assert bench.replica("k") != replica
        bench.tell(EventPublished(event_id=2, topic="mcp.replica.restored", payload=payload, timestamp_ms=0))
        assert bench.replica("k") == replica

    on_loop(test)


# ---- circuits

ROUTE = "tools/call/notes__*"
NOTES_ROUTE = {"pattern": ROUTE, "backend": "notes", "failure_threshold": 3, "reset_timeout": 10.0}
THE_REPLICA = ReplicaId("notes", NOTES["replicas"][0])


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


def probed(replica: ReplicaId, problem: str = "", *, is_starting: bool = False) -> ReplicaProbed:
    return ReplicaProbed(request_id="look", replica=replica, problem=problem, is_starting=is_starting, elapsed_s=0.0)


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


# ---- bounded loads, slow start


def test_the_calls_under_way_are_counted_where_a_route_bounds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        routes = [{"pattern": "tools/call/files__*", "backend": "files", "hash_balance_factor": 1.25}]
        bench = Bench(monkeypatch, FILES, routes=routes)

        def lease(**fields: Any) -> LeaseCall:
            leased = bench.call(hash_keys={"session": "k"}, **fields)
            assert isinstance(leased, LeaseCall)
            return leased

        leases = [lease() for _ in range(9)]
        counts = [sum(each.replica.address == address for each in leases) for address in (FIRST, SECOND, THIRD)]
        assert max(counts) <= 4  # ceil(1.25 * 9 / 3)
        assert all(each.is_counted for each in leases)
        bench.tell(*(CallLeft(each.replica) for each in leases))
        assert lease().replica == leases[0].replica
        assert not lease(kind=RequestKind.STREAM).is_counted

    on_loop(test)


@pytest.mark.parametrize("how", ["restored", "circuit closed", "added"])
def test_a_replica_that_returns_or_is_new_starts_slowly(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def test() -> None:
        routes = [{"pattern": "tools/call/files__*", "backend": "files", "slow_start": 60.0}]
        bench = Bench(monkeypatch, FILES, routes=routes)
        before = {f"k{number}": bench.replica(f"k{number}") for number in range(60)}
        third = ReplicaId("files", THIRD)
        if how == "added":
            both = tuple(attrs.evolve(each, replicas=each.replicas[:2]) for each in bench.settings.backends)
            bench.tell(Topology(backends=both, routes=bench.settings.routes))
            bench.tell(Topology(backends=bench.settings.backends, routes=bench.settings.routes))
        elif how == "restored":
            bench.tell(ReplicaEjected(third, "down"), ReplicaRestored(third))
        else:
            bench.tell(*faults("tools/call/files__*", third, 5), probed(third, "cannot connect"), probed(third))
        own = [key for key, replica in before.items() if replica == THIRD]
        assert sum(bench.replica(key) == THIRD for key in own) < len(own) / 2
        bench.stage.advance(60.0)
        assert {key: bench.replica(key) for key in before} == before

    on_loop(test)


# ---- topology


def _with_replicas(bench: Bench, *ports: int) -> Topology:
    files = attrs.evolve(bench.settings.backends[0], replicas=tuple(f"http://127.0.0.1:{port}/mcp" for port in ports))
    return Topology(backends=(files, *bench.settings.backends[1:]), routes=())


def test_a_removed_replica_loses_its_keys_and_no_others_move(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        before = {f"k{number}": bench.replica(f"k{number}") for number in range(300)}
        bench.tell(_with_replicas(bench, 3000, 3001))
        after = {key: bench.replica(key) for key in before}
        moved = {key for key in before if before[key] != after[key]}
        assert moved == {key for key, replica in before.items() if replica == THIRD}
        assert 60 < len(moved) < 140  # about a third
        bench.tell(_with_replicas(bench, 3000, 3001, 3002))
        assert {key: bench.replica(key) for key in before} == before

    on_loop(test)


def test_a_change_keeps_what_is_known_of_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.tell(*faults("tools/call/files__*", ReplicaId("files", SECOND), 5))
        bench.tell(ReplicaEjected(ReplicaId("files", FIRST), "down"), ReplicaEjected(ReplicaId("files", THIRD), "down"))
        bench.tell(_with_replicas(bench, 3000, 3001))
        assert bench.reason() == "circuit_open"
        bench.tell(_with_replicas(bench, 3000, 3001, 3002))
        assert bench.replica("k") == THIRD  # it is another one, and nothing is known against it

    on_loop(test)


def test_a_removed_backend_is_no_more_and_an_added_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        more = cell_settings([{"name": "more", "replicas": ["http://127.0.0.1:5000/mcp"]}]).backends
        bench.tell(Topology(backends=more, routes=()))
        assert bench.reason() == "invalid_params"
        leased = bench.call("tools/call/more__x")
        assert isinstance(leased, LeaseCall)
        assert leased.replica.backend == "more"

    on_loop(test)


def test_a_route_to_a_backend_that_was_removed_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch, FILES, NOTES, routes=[NOTES_ROUTE])
        bench.tell(Topology(backends=bench.settings.backends[:1], routes=bench.settings.routes))
        assert bench.reason("tools/call/notes__add") == "invalid_params"

    on_loop(test)


# ---- questions, crash


def test_it_says_that_it_is_well_or_has_nothing_to_route_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        assert bench.stage.ask(bench.router, ProbeComponent("r1")) == ComponentProbed("r1", "router")
        bench.tell(Topology(backends=(), routes=()))
        assert bench.stage.ask(bench.router, ProbeComponent("r2")) == ComponentProbed("r2", "router", "no backend is configured")

    on_loop(test)


def test_the_status_shows_health_circuit_and_share_of_each_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    def test() -> None:
        bench = Bench(monkeypatch)
        bench.tell(ReplicaEjected(ReplicaId("files", FIRST), "down"))
        status = bench.stage.ask(bench.router, StatusRequested("s")).status
        assert {name: row["health"] for name, row in status["files"].items()} == {
            FIRST: "unhealthy", SECOND: "healthy", THIRD: "healthy",
        }  # fmt: skip
        assert sum(row["ring_share"] for row in status["files"].values()) == pytest.approx(1.0, abs=0.001)
        assert status["notes"] == {THE_REPLICA.address: {"health": "healthy", "circuit": "closed", "ring_share": 1.0}}

    on_loop(test)


def test_a_call_that_meets_a_crashed_router_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail behind the crash is answered for as well: nobody waits for his deadline."""

    def test() -> None:
        bench = Bench(monkeypatch)
        call = Call(
            call_id=7, edge=bench.edge.address, kind=RequestKind.REQUEST, transport="streamable_http", revision="2026-07-28",
            target="tools/call/files__read", deadline_s=0.0,
        )  # fmt: skip
        bench.stage.system.post_all([(bench.router, CrashRequested()), (bench.router, RouteCall(call))])
        failed = bench.edge.only(CallFailed)
        assert (failed.call_id, failed.why.reason, failed.why.fate.was_sent) == (7, "upstream_failed", False)
        assert not bench.stage.is_alive(bench.router)

    on_loop(test)
