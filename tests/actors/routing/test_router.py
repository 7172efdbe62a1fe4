"""The router: which replica gets a call, and what the call reads where none may take it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from mcp_gateway.actors.messages.calls import (
    Call,
    CallFailed,
    CallLeft,
    LeaseCall,
    RouteCall,
)
from mcp_gateway.actors.messages.events import EventPublished, Subscribe
from mcp_gateway.actors.messages.health import (
    ComponentProbed,
    ProbeComponent,
    ReplicaEjected,
    ReplicaRestored,
)
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from tests.actors.routing.router_bench import (
    FILES,
    FIRST,
    NOTES,
    NOTES_ROUTE,
    SECOND,
    THE_REPLICA,
    THIRD,
    Bench,
    faults,
    on_loop,
    probed,
    session_at,
)
from tests.doubles.running_cell import cell_settings

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
