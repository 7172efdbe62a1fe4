"""The edge between handlers and a chain that the test plays: exchanges become calls, outcomes become answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest
from thespian.actors import ActorAddress

from mcp_gateway.actors.edge.edge import Edge
from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.messages.calls import (
    Call,
    CallAnswered,
    CallEvent,
    CallFailed,
    CancelCall,
    CreditGranted,
    RouteCall,
)
from mcp_gateway.actors.messages.events import EventPublished, EventsLogged, FollowLog, PublishEvent, Subscribe
from mcp_gateway.actors.messages.health import HealthReported, HealthRequested
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.topology import GatewayWired, Topology
from mcp_gateway.actors.messages.transports import RegisterTransport, TransportsChanged
from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.transports.downstream.http.streamable_http import StreamableHttpTransport
from mcp_gateway.transports.policy.actions import Names
from mcp_gateway.transports.policy.permissions import Permissions
from mcp_gateway.transports.policy.policies import Policies
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import SessionIds, SessionState, UpstreamSession
from mcp_gateway.transports.protocol.topics.topic_log import Event, TopicPattern
from tests.doubles.actor_stage import Peer, Stage
from tests.doubles.running_cell import alone, cell_settings

CHAIN = ("event-bus", "transport-registry", "connection-pool", "router", "health-monitor")
REPLICA = "http://127.0.0.1:3001/mcp"
SEAL = Seal(b"0123456789abcdef")
PROGRESS = Notification("notifications/progress", b'{"progress":1}')


class Sink:
    """What a client would read, as a list of steps."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.refused: Refused | None = None

    def answer(self, status: int, body: bytes, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        self.steps.append(("answer", status, json.loads(body) if body else None))

    def refuse(self, refused: Refused, backend: str) -> None:
        self.refused = refused
        self.steps.append(("refuse", refused.reason))

    def begin(self, headers: Mapping[str, str]) -> None:
        self.steps.append("begin")

    def event(self, data: bytes, event_id: str | None) -> None:
        self.steps.append(("event", json.loads(data) if data else None, event_id))

    def end(self, backend: str, upstream_s: float) -> None:
        self.steps.append("end")


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *backends: dict[str, Any], is_wired: bool = True) -> None:
        self.stage = Stage()
        self.stage.take_over_time(monkeypatch)
        default = {"name": "one", "prefix": "", "replicas": [REPLICA], "request_timeout": 30.0}
        self.settings = cell_settings(backends or (default,))
        self.port = LoopPort(self.settings, SessionIds(SEAL), alone(), SEAL)
        self.port.downstream_transports.append(StreamableHttpTransport())
        self.peers: dict[str, Peer] = {name: self.stage.peer() for name in CHAIN}
        self.upstream = self.stage.peer()
        self.incarnations = dict.fromkeys(CHAIN, 1)
        self.edge = self.start()
        if is_wired:
            self.wire()

    def start(self, incarnation: int = 1) -> ActorAddress:
        self.edge = self.stage.start(Edge, {}, self.port, name="cell/0/edge", incarnation=incarnation)
        return self.edge

    def wire(self, *restarted: str) -> None:
        """Tell the edge that the chain is up, these actors with a new incarnation."""
        self.incarnations |= {name: self.incarnations[name] + 1 for name in restarted}
        addresses = {name: peer.address for name, peer in self.peers.items()}
        self.stage.tell(self.edge, GatewayWired(addresses=addresses, incarnations=dict(self.incarnations)))

    def open(self, message: Any = None, **fields: Any) -> tuple[int, Sink]:
        """Open an exchange as a handler does; a tools/call where nothing else is said."""
        if message is None and "kind" not in fields:
            message = Request(b'"mine"', "tools/call", b'{"name":"x"}')
        sink = Sink()
        exchange = Exchange(
            **{
                "exchange_id": self.port.next_exchange_id(),
                "transport": "streamable_http",
                "revision": "2026-07-28",
                "endpoint": "",
                "message": message,
                "kind": RequestKind.of(message),
                "target": "tools/call/x",
                "deadline_s": self.stage.now_s + 60,
                **fields,
            }
        )
        self.port.open(exchange, sink)
        return exchange.exchange_id, sink

    def stream(self) -> tuple[int, Sink]:
        """The GET stream of a session."""
        return self.open(
            kind=RequestKind.STREAM, revision="2025-11-25", target="", session=self.session(), deadline_s=float("inf")
        )

    def session(self) -> SessionState:
        upstreams = (UpstreamSession("one", REPLICA, "s", "2025-11-25"),)
        return SessionState("key", "", "2025-11-25", "", b"{}", upstreams, issued_ms=self.port.now_ms() // 10**6 * 10**6)

    def calls(self) -> list[Call]:
        """What the router was asked since the last look."""
        return [each.call for each in self.peers["router"].take(RouteCall)]

    def call(self) -> Call:
        (call,) = self.calls()
        return call

    def cancelled(self) -> list[int]:
        return [each.call_id for each in self.peers["connection-pool"].take(CancelCall)]

    def tell(self, *messages: object) -> None:
        self.stage.tell(self.edge, *messages)

    def answer(self, call: Call, result: bytes = b'{"ok":1}', status: int = 200) -> None:
        response = Response(call.message.id, result, b"") if isinstance(call.message, Request) else None
        self.tell(CallAnswered(call_id=call.call_id, backend="one", replica=REPLICA, status=status, response=response))

    def fail(self, call: Call, **how: Any) -> None:
        how = {"fate": Fate.UNREACHABLE, "text": "broken", "replica": REPLICA, **how}
        replica = how.pop("replica")
        self.tell(CallFailed(call_id=call.call_id, why=Failure(**how), backend="one", replica=replica))

    def event(self, call: Call, number: int = 1) -> None:
        self.tell(CallEvent(call.call_id, "one", PROGRESS, f"e{number}", self.upstream.address))


def on_loop(body: Callable[[], Awaitable[None] | None]) -> None:
    async def run() -> None:
        waits = body()
        if waits is not None:
            await waits

    asyncio.run(run())


# ---- wiring


def test_it_registers_its_transports_and_subscribes_each_time_the_chain_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        for _ in range(2):
            (registered,) = bench.peers["transport-registry"].take(RegisterTransport)
            assert registered.strategy.name == "streamable_http"
            (subscribed,) = bench.peers["event-bus"].take(Subscribe)
            assert (subscribed.pattern, subscribed.subscriber_id) == ("mcp.session.ended", "cell/0/edge")
            bench.wire("event-bus", *CHAIN[1:])
        bench.tell(TransportsChanged(frozenset({"streamable_http"})))
        assert bench.port.enabled_transports == {"streamable_http"}

    on_loop(body)


def test_a_request_before_the_chain_is_up_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch, is_wired=False)
        _, sink = bench.open()
        assert sink.steps == []
        bench.wire()
        bench.answer(bench.call())
        assert sink.steps == [("answer", 200, {"jsonrpc": "2.0", "id": "mine", "result": {"ok": 1}})]

    on_loop(body)


def test_what_is_not_permitted_reaches_no_actor_and_what_is_listed_is_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        policies = Policies([PolicySettings(effect="allow", tools=("x",))])
        names = Names([Naming("one", "")], lambda _: "")
        bench.port.permissions = Permissions(policies, names, knows_clients=False)
        _, sink = bench.open(Request(b"1", "tools/call", b'{"name":"y"}'), target="tools/call/y")
        assert sink.refused is not None
        assert (sink.refused.reason, sink.refused.request_id, bench.port.waiting) == ("forbidden", b"1", {})
        assert bench.calls() == []
        _, sink = bench.open(Request(b"2", "tools/list", b""), target="tools/list")
        bench.answer(bench.call(), b'{"tools":[{"name":"y"},{"name":"x"}]}')
        assert sink.steps[0][2]["result"] == {"tools": [{"name": "x"}]}
        _, sink = bench.open()
        bench.answer(bench.call())
        assert sink.steps[0][:2] == ("answer", 200)

    on_loop(body)


def test_new_rules_hold_for_events_that_have_been_read_under_the_old_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found for one reader is kept for the next: who has lost a topic must not find it there, who got one must."""

    def body() -> None:
        bench = Bench(monkeypatch)
        event = Event(id=1, topic="client.a", payload_json=b"{}", timestamp_ms=0)
        bench.port.topics.take([event], is_caught_up=True)
        seen = []
        for topic in ("client.a", "client.b", "client.a"):
            policies = Policies([PolicySettings(effect="allow", topics=(topic,))])
            bench.port.permit(Permissions(policies, Names([], lambda _: ""), knows_clients=False))
            pattern = bench.port.permitted_topics(None, TopicPattern("client.*"))
            seen.append(bench.port.topics.read(0, pattern, 10).events)
        assert seen == [(event,), (), (event,)]

    on_loop(body)


def test_streams_follow_the_policies_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscription ends whose right is gone, others and the stream of a session go on with what they may still hear."""

    def permissions(*resources: str, backend: str = "one") -> Permissions:
        policies = Policies([PolicySettings(effect="allow", backends=(backend,), resources=resources)])
        return Permissions(policies, Names([Naming("one", "")], lambda _: "one"), knows_clients=False)

    def body() -> None:
        bench = Bench(monkeypatch)
        bench.port.permit(permissions("a:*"))
        listens = {}
        for uri in ("a:kept", "a:lost"):
            params = json.dumps({"notifications": {"resourceSubscriptions": [uri]}}).encode()
            message = Request(b"1", "subscriptions/listen", params)
            _, sink = bench.open(message, target="subscriptions/listen", deadline_s=float("inf"))
            listens[uri] = (sink, bench.call())
        _, own = bench.stream()
        stream = bench.call()
        _, running = bench.open(Request(b"2", "resources/read", b'{"uri":"a:lost"}'), target="resources/read/a:lost")
        bench.port.permit(permissions("a:kept"))
        bench.port.review_streams()
        assert bench.cancelled() == [listens["a:lost"][1].call_id]
        assert listens["a:lost"][0].steps[-1][:2] == ("answer", 200)
        assert (listens["a:kept"][0].steps, running.steps) == ([], [])
        for uri in ("a:kept", "a:lost"):
            updated = Notification("notifications/resources/updated", json.dumps({"uri": uri}).encode())
            bench.tell(CallEvent(stream.call_id, "one", updated, None, bench.upstream.address))
        assert [step[1]["params"]["uri"] for step in own.steps if step != "begin"] == ["a:kept"]
        bench.port.permit(permissions("*", backend="two"))
        before = list(own.steps)
        bench.event(stream)
        assert own.steps == before
        assert bench.upstream.of(CreditGranted), "what is not heard keeps nothing waiting"

    on_loop(body)


def test_a_backend_of_which_a_client_may_use_nothing_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        backends = [{"name": name, "replicas": [REPLICA]} for name in ("one", "two")]
        bench = Bench(monkeypatch, *backends)
        policies = Policies([PolicySettings(effect="allow", subjects=("ann",), tools=("two__*",))])
        names = Names([Naming("one", "one__"), Naming("two", "two__")], lambda _: "")
        bench.port.permissions = Permissions(policies, names, knows_clients=True)
        for subject, asked in (("ann", ["two"]), ("bob", ["one", "two"])):
            listing = Request(b"1", "tools/list", b"")
            bench.open(listing, target="tools/list", principal=Principal(issuer="https://id.example", subject=subject))
            assert [call.backend for call in bench.calls()] == asked

    on_loop(body)


def test_a_request_that_comes_while_the_chain_starts_again_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer lets a client ask on at once: the news of its request is then behind that of the chain, which opens it, too."""

    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.open()
        first = bench.call()
        monkeypatch.setattr(sink, "answer", lambda *_: bench.open())
        assert isinstance(first.message, Request)
        answered = CallAnswered(
            call_id=first.call_id, backend="one", replica=REPLICA, status=200, response=Response(first.message.id, b"{}", b"")
        )
        addresses = {name: peer.address for name, peer in bench.peers.items()}
        wired = GatewayWired(addresses=addresses, incarnations=dict(bench.incarnations))
        bench.stage.post_all([(bench.edge, answered), (bench.edge, wired)])
        assert len(bench.calls()) == 1

    on_loop(body)


def test_before_there_is_an_edge_clients_are_asked_to_come_back() -> None:
    port = LoopPort(cell_settings(), SessionIds(SEAL), alone(), SEAL)
    sink = Sink()
    port.open(Exchange(exchange_id=1, transport="t", revision="r", endpoint="", kind=RequestKind.MESSAGE, deadline_s=0.0), sink)
    assert sink.steps == [("refuse", "draining")]
    with pytest.raises(LookupError, match="router is not running"):
        port.tell("router", CrashRequested())


# ---- requests


def test_a_request_becomes_one_call_and_its_outcome_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.open(hash_keys={"ip": "::1"}, headers={"traceparent": "00-1"})
        call = bench.call()
        assert (call.kind, call.backend, call.target) == (RequestKind.REQUEST, "one", "tools/call/x")
        assert (call.hash_keys, call.headers, call.excluded) == ({"ip": "::1"}, {"traceparent": "00-1"}, frozenset())
        assert call.deadline_s == bench.stage.now_s + 30  # the backend's own limit is the shorter one
        bench.answer(call)
        assert [step[0] for step in sink.steps] == ["answer"]
        assert bench.port.waiting == {}
        bench.answer(call)  # a second outcome of the same call meets nobody
        assert len(sink.steps) == 1

    on_loop(body)


def test_a_call_that_no_server_saw_is_tried_at_other_replicas_four_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.open()
        for number in range(4):
            call = bench.call()
            assert call.excluded == {f"r{earlier}" for earlier in range(number)}
            bench.fail(call, replica=f"r{number}", fate=Fate.UNREACHABLE)
        assert bench.calls() == []
        assert sink.steps == [("refuse", "upstream_failed")]

    on_loop(body)


def test_a_call_that_a_server_may_have_seen_is_never_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.open()
        bench.fail(bench.call(), error=b'{"code":1}', retry_after_s=None, fate=Fate.BROKEN)
        assert bench.calls() == []
        assert sink.refused is not None
        error = json.loads(sink.refused.body())
        assert (error["id"], error["error"]["data"]) == (
            "mine",
            {"reason": "upstream_failed", "backend": "one", "upstream_error": {"code": 1}, "request_id": "cell/0#1"},
        )

    on_loop(body)


def test_a_client_that_leaves_cancels_its_calls_and_a_late_answer_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        exchange_id, sink = bench.open()
        call = bench.call()
        bench.port.close(exchange_id)
        assert bench.cancelled() == [call.call_id]
        bench.port.close(exchange_id)
        bench.answer(call)
        assert (bench.cancelled(), sink.steps, bench.port.waiting) == ([], [], {})

    on_loop(body)


def test_events_begin_a_stream_and_each_one_taken_is_credit_for_its_upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        exchange_id, sink = bench.open()
        call = bench.call()
        for number in (1, 2, 3):
            bench.event(call, number)
        assert sink.steps[0] == "begin"
        assert [step[2] for step in sink.steps[1:]] == ["e1", "e2", "e3"]
        assert bench.upstream.received == []
        bench.port.flushed(exchange_id, 2)
        assert bench.upstream.take(CreditGranted) == [CreditGranted(call.call_id, 2)]
        bench.answer(call)
        assert sink.steps[-2][0] == "event"
        assert sink.steps[-1] == "end"

    on_loop(body)


def test_a_client_that_reads_no_streams_gets_one_answer_and_events_are_credited_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.open(takes_events=False)
        call = bench.call()
        bench.event(call)
        assert bench.upstream.take(CreditGranted) == [CreditGranted(call.call_id, 1)]
        bench.answer(call)
        assert [step[0] for step in sink.steps] == ["answer"]

    on_loop(body)


def test_an_endpoint_without_a_backend_is_refused_as_the_contract_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.open(endpoint="nobody")
        assert sink.refused is not None
        assert (sink.refused.reason, sink.refused.status, sink.refused.request_id) == ("no_backend", 503, b'"mine"')
        assert bench.port.waiting == {}
        bench.tell(Topology(backends=cell_settings([{"name": "nobody", "replicas": [REPLICA]}]).backends, routes=()))
        bench.open(endpoint="nobody")
        assert bench.call().backend == "nobody"

    on_loop(body)


def test_what_nobody_answers_is_refused_after_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream reports a timeout first; this is for a call whose actor has died with it."""

    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.open(deadline_s=bench.stage.now_s + 10)
        _, stream = bench.stream()
        calls = bench.calls()
        bench.stage.advance(11.5)
        assert sink.steps == []
        bench.stage.advance(2)
        assert sink.steps == [("refuse", "upstream_timeout")]
        assert bench.cancelled() == [calls[0].call_id]
        assert stream.steps == ["begin"]

    on_loop(body)


# ---- crashes of others


def test_calls_in_a_pool_that_crashed_are_failed_and_those_of_other_crashes_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, kept = bench.open()
        first = bench.call()
        bench.wire("router", "health-monitor")
        assert kept.steps == []
        bench.answer(first)
        assert kept.steps[0][:2] == ("answer", 200)
        _, lost = bench.open()
        second = bench.call()
        bench.wire("connection-pool", "router", "health-monitor")
        assert lost.steps == [("refuse", "upstream_failed")]
        assert bench.calls() == []  # it may have run: it is not tried again
        assert second.call_id not in bench.cancelled()

    on_loop(body)


def test_a_session_stream_is_opened_again_where_its_call_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, sink = bench.stream()
        call = bench.call()
        bench.event(call, 7)
        bench.wire("connection-pool", "router", "health-monitor")
        assert bench.calls() == []
        bench.stage.advance(1.1)
        again = bench.call()
        assert (again.kind, again.last_event_id, again.deadline_s) == (RequestKind.STREAM, "e7", float("inf"))
        bench.event(again, 8)
        assert [step if isinstance(step, str) else step[2] for step in sink.steps] == ["begin", "e7", "e8"]

    on_loop(body)


def test_of_two_requests_that_open_a_session_again_one_says_farewell_and_its_stream_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        bench.stream()
        listening = bench.call()
        opened = Response(b"1", b'{"protocolVersion":"2025-11-25"}', b"")

        def lost() -> Call:
            bench.open(revision="2025-11-25", session=bench.session())
            bench.fail(bench.call(), reason="session_not_found", fate=Fate.SESSION_LOST)
            return bench.call()

        openings = [lost(), lost()]
        assert [call.opens_session for call in openings] == [True, True]
        for number, call in enumerate(openings):
            answer = CallAnswered(call_id=call.call_id, backend="one", replica=REPLICA, status=200, response=opened)
            bench.tell(msgspec.structs.replace(answer, upstream_session_id=f"new{number}"))
        assert bench.cancelled() == [listening.call_id]
        calls = bench.calls()
        assert {(call.kind, call.session.upstreams[0].session_id) for call in calls if call.session} == {
            (RequestKind.STREAM, "new0"),
            (RequestKind.MESSAGE, "new0"),  # initialized
            (RequestKind.TERMINATE, "new1"),
            (RequestKind.REQUEST, "new0"),
        }
        farewell = next(call for call in calls if call.kind is RequestKind.TERMINATE)
        bench.answer(farewell)  # meets nobody
        again = next(call for call in calls if call.kind is RequestKind.REQUEST)
        bench.answer(again)
        assert bench.calls() == []

    on_loop(body)


@pytest.mark.parametrize("way", ["in time", "by a request"])
def test_a_stream_follows_its_session_to_where_another_cell_has_opened_it(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        monkeypatch.setattr(type(bench.port.settings.gateway), "cell_count", 2)
        bench.stream()
        listening = bench.call()
        # As the journal tells it once the other cell has written it.
        bench.port.sessions.replace_upstream("key", UpstreamSession("one", REPLICA, "new", "2025-11-25"))
        assert bench.cancelled() == []
        if way == "in time":
            bench.stage.advance(2.0)
        else:
            bench.open(revision="2025-11-25", session=bench.session())
            bench.fail(bench.call(), reason="session_not_found", fate=Fate.SESSION_LOST)
        assert bench.cancelled() == [listening.call_id]
        kinds = {call.kind: call.session.upstreams[0].session_id for call in bench.calls() if call.session}
        assert kinds[RequestKind.STREAM] == "new"
        bench.stage.advance(5.0)
        assert bench.cancelled() == [], "it is there already"

    on_loop(body)


# ---- its own crash


def test_a_new_edge_refuses_what_waited_ends_its_calls_and_carries_streams_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, request = bench.open()
        _, stream = bench.stream()
        old_calls = [call.call_id for call in bench.calls()]
        bench.tell(CrashRequested())
        assert bench.cancelled() == old_calls
        assert request.steps == []
        bench.start(incarnation=2)
        assert request.steps == [("refuse", "upstream_failed")]
        assert request.refused is not None
        assert request.refused.request_id == b'"mine"'
        bench.wire()
        again = bench.call()
        assert again.kind is RequestKind.STREAM
        assert again.call_id not in old_calls
        bench.event(again, 9)
        # A handler takes a second `begin` for what it is: the same stream goes on.
        assert [step if isinstance(step, str) else step[2] for step in stream.steps] == ["begin", "begin", "e9"]
        # Outcomes of the old calls meet nobody.
        bench.tell(CallFailed(call_id=old_calls[0], why=Failure(Fate.UNREACHABLE, "late")))
        assert len(request.steps) == 1

    on_loop(body)


def test_mail_behind_the_crash_loses_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        bench.tell(CrashRequested())
        _, sink = bench.open()  # posted to the address of the dead
        bench.start(incarnation=2)
        assert sink.steps == [("refuse", "upstream_failed")]

    on_loop(body)


# ---- topics


def logged(*ids: int) -> EventsLogged:
    return EventsLogged(tuple(Event(id=number, topic="a.b", payload_json=b"{}", timestamp_ms=0) for number in ids))


def test_it_follows_the_log_and_goes_on_where_it_was_after_each_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        bus = bench.peers["event-bus"]
        assert bus.only(FollowLog) == FollowLog(0)
        bench.tell(logged(1, 2))
        bench.wire("event-bus", *CHAIN[1:])
        assert bus.only(FollowLog) == FollowLog(2)
        bench.tell(logged(2, 3), CrashRequested())
        bench.start(incarnation=2)
        bench.wire()
        assert bus.only(FollowLog) == FollowLog(3)
        bench.tell(logged(4))
        assert [event.id for event in bench.port.topics.read(0, TopicPattern("all"), 10).events] == [1, 2, 3, 4]

    on_loop(body)


def test_what_clients_publish_reaches_the_bus_even_if_there_is_no_edge_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        bench.port.topics.publish("client.a", {"n": 1})
        bench.tell(CrashRequested())
        bench.port.topics.publish("client.b", {"n": 2})  # told to the address of the dead
        bench.start(incarnation=2)
        bench.port.topics.publish("client.c", {"n": 3})  # told to one that does not know the bus yet
        bench.wire()
        assert [event.topic for event in bench.peers["event-bus"].of(PublishEvent)] == ["client.a", "client.b", "client.c"]

    on_loop(body)


# ---- sessions, drain, questions


def test_a_session_that_another_cell_has_ended_is_refused_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        session_id = bench.port.session_ids.issue(bench.session())
        assert bench.port.read_session(session_id, None) == bench.session()
        payload = {"session": "key"}
        bench.tell(EventPublished(event_id=1, topic="mcp.session.ended", payload=payload, timestamp_ms=0))
        assert bench.port.read_session(session_id, None) is None
        assert bench.port.read_session("forged", None) is None

    on_loop(body)


def test_a_drain_ends_streams_and_lets_requests_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        bench = Bench(monkeypatch)
        _, request = bench.open()
        _, stream = bench.stream()
        calls = bench.calls()
        bench.port.end_streams()
        assert stream.steps == ["begin", "end"]
        assert bench.cancelled() == [calls[1].call_id]
        bench.answer(calls[0])
        assert request.steps[0][0] == "answer"
        assert bench.port.waiting == {}

    on_loop(body)


def test_questions_are_passed_on_and_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        bench = Bench(monkeypatch)
        question = bench.port.ask("health-monitor", HealthRequested("q1"))
        assert bench.peers["health-monitor"].only(HealthRequested) == HealthRequested("q1")
        report = HealthReported(request_id="q1", status="healthy", components={})
        bench.peers["health-monitor"].say(bench.edge, report)
        assert await question == report
        with pytest.raises(LookupError, match="nobody is not running"):
            await bench.port.ask("nobody", HealthRequested("q2"))
        bench.peers["health-monitor"].say(bench.edge, report)  # nobody waits any more
        assert bench.stage.is_alive(bench.edge)

    on_loop(body)
