"""What the edge's desk makes of what conversations ask: mail to the chain, and changes of sessions and lists.

That the actor and its desk serve conversations together is tested in `test_edge.py`.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import attrs
import msgspec
import pytest

from mcp_gateway.actors.conversations.desk import CallWish
from mcp_gateway.actors.conversations.retry_budget import RESERVE_S, RETRIES_PER_S
from mcp_gateway.actors.edge import loop_port
from mcp_gateway.actors.edge.edge_desk import EdgeDesk, RetryDue
from mcp_gateway.actors.edge.late_backends import FAN_OUT_S, LATE_FAN_OUT_S
from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.actors.messages.between_cells import EndSession
from mcp_gateway.actors.messages.calls import Call, CancelCall, RouteCall
from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.config.curation_settings import SearchSettings, ServerSettings
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.hash_keys import principal_of
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.call_state import CallState, sealed_state
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import SessionIds
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, sealed_task_id
from tests.doubles.joined_cells import JoinedCells
from tests.doubles.recording_desk import request, session_at
from tests.doubles.running_cell import alone, cell_settings

SEAL = Seal(b"0123456789abcdef")
FILES = {"name": "files", "prefix": "files__", "replicas": ["http://127.0.0.1:3001/mcp"], "request_timeout": 30.0}
MAIL = {"name": "mail", "prefix": "mail__", "replicas": ["http://127.0.0.1:3002/mcp"], "request_timeout": 90.0}
EXCHANGED = {"token_url": "https://id.example/token", "client_id": "gateway"}
SHOWS_USERS: dict[str, dict[str, Any]] = {
    "user": {"auth": "user", "allow_private": True},
    "token_exchange": {"auth": "token_exchange", "allow_private": True, **EXCHANGED},
}
NOW_S = 1_000.0
LEGACY = "2025-11-25"
LISTING = Request(b"1", "tools/list", b"")
EXCHANGE = Exchange(
    exchange_id=1,
    transport="t",
    revision=LEGACY,
    endpoint="",
    kind=RequestKind.REQUEST,
    message=LISTING,
    deadline_s=NOW_S + 60,
)


class Bench:
    """A desk of an edge whose mail is kept. sent: (short name or address, message)."""

    def __init__(self, incarnation: int = 1, cells: Forwarding | None = None, **tables: Any) -> None:
        self.port = LoopPort(cell_settings([FILES, MAIL], **tables), SessionIds(SEAL), cells or alone(), SEAL)
        self.sent: list[tuple[str, Any]] = []
        self.later: list[tuple[float, str, object]] = []
        self.now_s = NOW_S
        self.logged: list[tuple[int, str]] = []
        runtime = SimpleNamespace(post_later=lambda *posted: self.later.append(posted), post=lambda *_: None)
        self.edge: Any = SimpleNamespace(
            runtime=runtime,
            myAddress="edge",
            incarnation=incarnation,
            send=lambda *sent: self.sent.append(sent),
            monotonic_s=lambda: self.now_s,
            log=lambda *logged: self.logged.append(logged),
        )
        self.port.attach(runtime, "edge")
        self.desk = self.serve()

    def serve(self) -> EdgeDesk:
        desk = EdgeDesk(self.edge, self.port)
        desk.wire({name: name for name in ("router", "connection-pool", "event-bus")})
        self.port.exchanges.open(EXCHANGE, None)
        self.port.exchanges.serve(SimpleNamespace(exchange=EXCHANGE))
        return desk

    def call(self, message: Any = LISTING, *, exchange: Exchange = EXCHANGE, **how: Any) -> Call:
        """The call as the router gets it."""
        call_id = self.desk.call(exchange, CallWish(message=message, **how))
        to, routed = self.sent.pop()
        assert (to, type(routed), routed.call.call_id) == ("router", RouteCall, call_id)
        return routed.call


@pytest.mark.parametrize(
    ("how", "left_s"),
    [
        ({"backend": ""}, 60),
        ({"backend": "files"}, 30),
        ({"backend": "mail"}, 60),
        ({"backend": "files", "deadline_s": NOW_S + 5}, 5),
        ({"backend": "files", "deadline_s": NOW_S + 50}, 30),
        ({"backend": "files", "kind": RequestKind.STREAM, "deadline_s": float("inf")}, float("inf")),
    ],
)
def test_a_call_ends_at_the_first_of_its_deadlines(how: dict[str, Any], left_s: float) -> None:
    """Those of the exchange, of the call itself, of the backend; a stream outlives the backend's."""
    assert Bench().call(**how).deadline_s == NOW_S + left_s


def test_a_call_carries_what_the_exchange_tells_of_its_client() -> None:
    exchange = msgspec.structs.replace(EXCHANGE, endpoint="files", target="ping", hash_keys={"ip": "::1"}, headers={"a": "b"})
    call = Bench().call(exchange=exchange)
    assert (call.edge, call.transport, call.revision, call.target) == ("edge", "t", LEGACY, "ping")
    assert (call.hash_keys, call.headers, call.is_merged) == ({"ip": "::1"}, {"a": "b"}, False)
    assert Bench().call().is_merged


def test_a_request_that_goes_on_with_a_parked_call_is_pinned_to_its_replica() -> None:
    """Within a session the session's own replica decides."""
    state = CallState("cell/0", "1", "files", "files#1", "", "call", 1, float("inf"), b"")
    resumed = request("tools/call", name="x", requestState=sealed_state(SEAL, state))
    bench = Bench()
    assert [bench.call(resumed).pinned_to, bench.call().pinned_to] == ["files#1", ""]
    assert bench.call(resumed, session=session_at("files")).pinned_to == ""


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel", "subscriptions/listen"])
def test_a_request_about_a_task_is_pinned_to_the_replica_that_runs_it(method: str) -> None:
    """Source: SEP-2663, "Routing Headers": to the server instance that holds its state."""
    task_id = sealed_task_id(SEAL, TaskId("files", "files#1", "", "T1"))
    about = {"notifications": {"taskIds": ["T0", task_id]}} if method == "subscriptions/listen" else {"taskId": task_id}
    bench = Bench()
    assert bench.call(request(method, **about)).pinned_to == "files#1"
    assert bench.call(request("tasks/get", taskId="T1")).pinned_to == ""
    assert bench.call(request("subscriptions/listen", notifications={})).pinned_to == ""


def test_ids_of_calls_differ_from_those_of_the_incarnation_before() -> None:
    first, second = Bench(1), Bench(2)
    ids = [first.call().call_id, first.call().call_id, second.call().call_id]
    assert len(set(ids)) == 3


def test_a_call_is_cancelled_once_and_one_with_an_outcome_never() -> None:
    bench = Bench()
    cancelled, ended = bench.call().call_id, bench.call().call_id
    bench.port.exchanges.end_call(ended)
    for call_id in (cancelled, cancelled, ended):
        bench.desk.cancel(call_id)
    assert bench.sent == [("connection-pool", CancelCall(cancelled))]


def test_a_farewell_is_short_and_nobody_hears_how_it_went() -> None:
    bench = Bench()
    bench.desk.dismiss(EXCHANGE, session_at("files"), "files")
    ((_, routed),) = bench.sent
    call = routed.call
    assert (call.kind, call.backend, call.deadline_s) == (RequestKind.TERMINATE, "files", NOW_S + FAN_OUT_S)
    assert bench.port.exchanges.calls == []


def test_a_delay_comes_back_with_its_cause() -> None:
    bench = Bench()
    bench.desk.retry_later(EXCHANGE, 0.5, "files")
    assert bench.later == [(0.5, "edge", RetryDue(1, "files"))]


def test_a_backend_that_was_late_gets_less_time_until_it_answers() -> None:
    bench = Bench()
    left_s = []
    for was_late in (True, False):
        bench.desk.note_punctuality("files", was_late=was_late)
        left_s.append([bench.desk.fan_out_deadline_s(EXCHANGE, name) - NOW_S for name in ("files", "mail")])
    assert left_s == [[LATE_FAN_OUT_S, FAN_OUT_S], [FAN_OUT_S, FAN_OUT_S]]
    assert bench.desk.fan_out_deadline_s(msgspec.structs.replace(EXCHANGE, deadline_s=NOW_S + 1), "mail") == NOW_S + 1


def test_each_backend_has_a_retry_budget_that_its_answers_fill_and_a_reload_keeps() -> None:
    bench = Bench()
    backends = cell_settings([FILES, {**MAIL, "retry_budget": 0.0}]).backends
    bench.desk.configure(backends)
    retries = sum(bench.desk.may_retry("files") for _ in range(1_000))
    assert retries == RETRIES_PER_S * RESERVE_S
    bench.desk.configure(backends)
    for backend in ("files", "files", "files", "files", "files", "mail", "gone"):
        bench.desk.note_answer(backend)
    assert [bench.desk.may_retry(backend) for backend in ("files", "files", "mail", "gone")] == [True, False, False, False]
    bench.now_s += 0.1
    assert bench.desk.may_retry("files")


@pytest.mark.parametrize("auth", ["user", "token_exchange"])
def test_what_a_server_lists_to_one_user_never_stands_in_for_another(auth: str) -> None:
    """In revisions without `cacheScope` nothing in the list itself says that it is private."""
    bench = Bench()
    mine = [attrs.evolve(each, **SHOWS_USERS[auth]) if each.name == "files" else each for each in bench.port.settings.backends]
    bench.desk.remember_list("files", "tools/list", LEGACY, [b"everybody's"])
    assert bench.desk.configure(mine), "shown its users, it is another server"
    bench.desk.remember_list("files", "tools/list", LEGACY, [b"ann's"])
    assert bench.desk.last_known_list("files", "tools/list", LEGACY) is None
    bench.desk.remember_list("mail", "tools/list", LEGACY, [b"{}"])
    assert bench.desk.last_known_list("mail", "tools/list", LEGACY) == ((b"{}",), 0.0)


def test_clients_are_told_when_they_are_shown_another_part_of_the_same_servers() -> None:
    bench = Bench()
    backends = bench.port.settings.backends
    for other in ({"servers": (ServerSettings(name="part", include=("mail/*",)),)}, {"search": SearchSettings(above=3)}):
        bench.port.take_settings(attrs.evolve(bench.port.settings, **other))
        assert [bench.desk.configure(backends) for _ in range(2)] == [True, False]


def test_a_list_is_kept_until_its_backend_is_another_server() -> None:
    bench = Bench()
    backends = bench.port.settings.backends
    bench.desk.remember_list("files", "tools/list", LEGACY, [b"{}"])
    bench.now_s += 2
    assert not bench.desk.configure([attrs.evolve(each, request_timeout=1.0) for each in backends]), "limits make no other server"
    assert bench.serve().last_known_list("files", "tools/list", LEGACY) == ((b"{}",), 2.0), "not even a crash of the edge"
    assert bench.desk.configure(backends[1:])
    assert bench.desk.last_known_list("files", "tools/list", LEGACY) is None
    assert bench.desk.namings(EXCHANGE) == (Naming("mail", "mail__"),)
    assert (bench.desk.merged_naming("mail"), bench.desk.merged_naming("files")) == (Naming("mail", "mail__"), None)
    mail, files = (msgspec.structs.replace(EXCHANGE, endpoint=name) for name in ("mail", "files"))
    assert (bench.desk.namings(mail), bench.desk.namings(files)) == ((Naming("mail", ""),), ())


def test_pages_are_held_for_their_session_until_their_time_has_passed_or_other_servers_are_asked() -> None:
    bench = Bench()
    own = msgspec.structs.replace(EXCHANGE, session=session_at("files"))
    for let_go in (lambda: bench.desk.sweep(NOW_S + 30), lambda: bench.desk.configure(bench.port.settings.backends[1:])):
        bench.desk.hold_pages(own, {1000: b"{}"})
        assert (bench.desk.held_page(own, 1000), bench.desk.held_page(EXCHANGE, 1000)) == (b"{}", None)
        let_go()
        assert bench.desk.held_page(own, 1000) is None


def test_pages_are_held_for_who_their_reader_was_and_the_policies_of_the_day() -> None:
    bench = Bench()
    ada = Principal(issuer="api-key", subject="ada")
    own = msgspec.structs.replace(EXCHANGE, session=session_at("files"), principal=ada)
    bench.desk.hold_pages(own, {1000: b"{}"})
    assert bench.desk.held_page(own, 1000) == b"{}"
    for other in (None, attrs.evolve(ada, subject="eve"), attrs.evolve(ada, groups=frozenset({"staff"}))):
        assert bench.desk.held_page(msgspec.structs.replace(own, principal=other), 1000) is None
    bench.port.permissions = object()  # type: ignore[assignment]
    assert bench.desk.held_page(own, 1000) is None


def test_a_flaw_of_a_backends_list_is_said_once_and_again_when_it_is_another_server() -> None:
    bench = Bench()
    for why in ("names more than once: a", "names more than once: b", "cut", "cut; this is its list of 5 s ago"):
        bench.desk.note_flaw("files", "tools/list", why)
    bench.desk.note_flaw("files", "prompts/list", "cut")
    bench.desk.note_flaw("mail", "tools/list", "cut")
    assert [text for _, text in bench.logged] == [
        "backend 'files', tools/list: names more than once: a; said once",
        "backend 'files', tools/list: cut; said once",
        "backend 'files', prompts/list: cut; said once",
        "backend 'mail', tools/list: cut; said once",
    ]
    moved = cell_settings([{**FILES, "replicas": ["http://127.0.0.1:3009/mcp"]}, MAIL]).backends
    bench.desk.configure(moved)
    bench.desk.note_flaw("files", "tools/list", "cut")
    bench.desk.note_flaw("mail", "tools/list", "cut")
    assert len(bench.logged) == 5


def test_a_session_that_ends_is_refused_here_at_once_and_told_to_the_other_cells() -> None:
    bench = Bench()
    state = session_at("files")
    bench.desk.use_session(state)
    assert not bench.desk.is_session_ended(state)
    assert bench.desk.end_session(EXCHANGE, state, "told")
    assert bench.desk.is_session_ended(state)
    assert bench.sent == [("event-bus", PublishEvent(topic="mcp.session.ended", payload={"session": "key"}))]


def test_a_session_that_makes_room_for_a_new_one_is_ended_at_its_servers() -> None:
    bench = Bench(transports={"streamable_http": {"max_sessions": 1}})
    ann = Principal(issuer="https://id.example", subject="ann")
    first, second = (msgspec.structs.replace(session_at("files"), key=key, principal=ann.key) for key in ("first", "second"))
    sealed = bench.desk.issue_session(first)
    assert bench.port.read_session(sealed, ann) is not None
    bench.desk.issue_session(second)
    assert bench.port.read_session(sealed, ann) is None
    ((farewell, _),) = [waits for waits in bench.port.waiting.values() if waits[0] is not EXCHANGE]
    assert (farewell.kind, farewell.session.key, farewell.deadline_s) == (RequestKind.TERMINATE, "first", NOW_S + FAN_OUT_S)
    assert principal_of(farewell.hash_keys) == ann.key, "a server that is shown its users ends a session for its own user alone"


def test_what_a_client_asks_for_is_kept_within_the_bound_of_its_session() -> None:
    bench = Bench(gateway={"max_session_bytes": 1_024})
    state = session_at("files")
    bench.desk.issue_session(state)
    for number in range(100):
        kept = bench.desk.note_facts(state, "files", "resources/subscribe", b'{"uri":"a:%d"}' % number)
    assert kept.size_bytes <= 1_024
    assert bench.desk.refresh_session(state) == kept
    assert kept.facts.of_backend("files")[-1] == "a:99"


def test_a_session_that_is_too_large_is_refused_and_nobody_makes_room_for_it() -> None:
    bench = Bench(transports={"streamable_http": {"max_sessions": 1}})
    first = bench.desk.issue_session(session_at("files"))
    with pytest.raises(Refused) as caught:
        bench.desk.issue_session(msgspec.structs.replace(session_at("files"), key="second", initialize=b"x" * 8_192))
    assert caught.value.reason == "too_large"
    assert bench.port.read_session(first, None) is not None


def test_what_a_client_asks_of_its_session_is_known_in_every_cell_before_it_is_answered() -> None:
    async def body() -> None:
        node = JoinedCells("cell/0", "cell/1")
        one, two = (Bench(cells=cells) for cells in node.cells.values())
        state = session_at("files")
        for bench in (one, two):
            bench.desk.use_session(state)
        changed = one.desk.note_facts(state, "files", "logging/setLevel", b'{"level":"error"}')
        assert not one.desk.tell_of_session(EXCHANGE, changed, "told")
        async with asyncio.timeout(5):
            while not one.later:
                await asyncio.sleep(0.005)
        assert one.later == [(0.0, "edge", RetryDue(1, "told"))]
        assert two.desk.use_session(state).facts.log_level == "error"

    asyncio.run(body())


def test_who_ends_a_session_is_told_when_every_cell_that_runs_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hangs, one ends meanwhile: neither is waited for longer than the bound."""
    monkeypatch.setattr(loop_port, "_TELL_CELLS_S", 0.05)

    async def body() -> None:
        node = JoinedCells("cell/0", "cell/1", "cell/2", "cell/3")
        benches = [Bench(cells=cells) for cells in node.cells.values()]
        state = session_at("files")
        for bench in benches:
            bench.desk.use_session(state)
        node.cells["cell/2"].answer_cells(EndSession, lambda _: asyncio.Event().wait())
        assert not benches[0].desk.end_session(EXCHANGE, state, "told")
        node.kill("cell/3")
        assert benches[0].later == []
        async with asyncio.timeout(5):
            while not benches[0].later:
                await asyncio.sleep(0.005)
        assert benches[0].later == [(0.0, "edge", RetryDue(1, "told"))]
        assert [bench.desk.is_session_ended(state) for bench in benches[:2]] == [True, True]

    asyncio.run(body())
