"""The upstream actor on a scripted wire: what the edge, the pool and the router are told of each call."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

import pytest

from mcp_gateway.actors.messages.calls import (
    Call,
    CallAnswered,
    CallEvent,
    CallFailed,
    CallFaulted,
    CallRanLong,
    CallSucceeded,
    CallTimedOut,
    CancelCall,
    CreditGranted,
    LeaseCall,
    LeaseReturned,
    RunCall,
    TryAgain,
)
from mcp_gateway.actors.messages.health import ProbeReplicas, ReplicaProbed
from mcp_gateway.actors.messages.lifecycle import CrashRequested, StopRequested
from mcp_gateway.actors.pool.upstream import Upstream, UpstreamArguments
from mcp_gateway.transports.ports.credit import EVENT_WINDOW
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL, owner_of
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.eras.questions import MOST_QUESTIONS
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, read_task_id, sealed_task_id
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.actor_stage import Stage
from tests.doubles.patience import on_loop
from tests.doubles.running_cell import alone
from tests.doubles.scripted_wire import REFUSED, ScriptedWire

REPLICA = ReplicaId("files", "http://127.0.0.1:3001/mcp")
LEGACY = "2025-11-25"
SEAL = Seal(b"0123456789abcdef")
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class Bench:
    """An upstream; its supervisor stands for the pool."""

    def __init__(self, *, is_one_of_several: bool = False) -> None:
        self.stage = Stage()
        self.edge, self.router = self.stage.peer(), self.stage.peer()
        self.pool = self.stage.supervisor
        self.wire = ScriptedWire()
        arguments = UpstreamArguments(
            replica=REPLICA,
            naming=Naming("files", "files__"),
            connect=lambda: self.wire,
            cells=alone(),
            seal=SEAL,
            is_one_of_several=is_one_of_several,
        )
        self.upstream = self.stage.start(Upstream, {}, arguments)
        self.pool.received.clear()

    async def run(self, call_id: int = 1, *, is_trial: bool = False, slow_after_s: float = math.inf, **fields: Any) -> None:
        values: dict[str, Any] = {
            "call_id": call_id,
            "edge": self.edge.address,
            "kind": RequestKind.REQUEST,
            "transport": "streamable_http",
            "revision": "2026-07-28",
            "target": "tools/call/files__x",
            "message": Request(b'"mine"', "tools/call", b'{"name":"files__x"}'),
            "deadline_s": time.monotonic() + 60,
        }
        leased = LeaseCall(
            call=Call(**{**values, **fields}), replica=REPLICA, route="r", is_trial=is_trial, slow_after_s=slow_after_s,
            router=self.router.address,
        )  # fmt: skip
        self.stage.tell(self.upstream, RunCall(leased))
        await turn()

    @property
    def sent(self) -> Any:
        """The newest request on the wire."""
        return self.wire.exchanges[-1].request

    async def answer(self, **how: Any) -> None:
        self.wire.open[0].answer(**how)
        await turn()

    async def fail(self, error: Exception) -> None:
        self.wire.open[0].fail(error)
        await turn()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def session(revision: str = "2025-11-25") -> SessionState:
    return SessionState("key", "", revision, "", b"{}", (UpstreamSession(*REPLICA, "their-session", "2025-06-18"),))


# ---- what metrics learn


def test_the_tools_that_a_server_lists_are_known_to_metrics_under_both_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = metrics.ToolLabel(most_unlisted=0)
    monkeypatch.setattr(metrics, "tool_label", labels)

    async def body() -> None:
        bench = Bench()
        for call_id, result in ((41, b'{"tools":[{"name":"read","inputSchema":{}}]}'), (42, b'{"tools":3}')):
            await bench.run(call_id, message=Request(b"1", "tools/list", b""))
            await bench.answer(result=result)
        shown = [labels("files", name) for name in ("read", "files__read", "files__write")]
        assert shown == ["read", "files__read", "other"]

    on_loop(body)


# ---- what the server sees


def test_a_stateless_server_sees_an_id_of_ours_and_the_client_its_own() -> None:
    """Two clients may use the same id at once; ours are unique in the cell."""

    async def body() -> None:
        bench = Bench()
        await bench.run(41)
        await bench.run(42)
        assert [each.request.message.id for each in bench.wire.exchanges] == [b"41", b"42"]
        await bench.answer(result=b'{"n":1}')
        await bench.answer(result=b'{"n":2}')
        answers = bench.edge.take(CallAnswered)
        assert [(each.call_id, each.response.id, each.response.result) for each in answers if each.response is not None] == [
            (41, b'"mine"', b'{"n":1}'),
            (42, b'"mine"', b'{"n":2}'),
        ]

    on_loop(body)


@pytest.mark.parametrize(("transport", "has_headers"), [("streamable_http", True), ("websocket", False), ("http_sse", False)])
def test_the_wire_knows_whether_the_client_could_send_headers(transport: str, has_headers: bool) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(transport=transport)
        assert bench.sent.has_headers is has_headers

    on_loop(body)


def test_a_session_keeps_its_ids_its_revision_and_the_servers_session() -> None:
    """Ids are unique per session there, and cancellations name them."""

    async def body() -> None:
        bench = Bench()
        await bench.run(revision="2025-11-25", session=session())
        sent = bench.sent
        assert (sent.message.id, sent.session_id, sent.revision) == (b'"mine"', "their-session", "2025-06-18")
        await bench.run(2, revision="2025-11-25", session=session(), opens_session=True)
        assert (bench.sent.session_id, bench.sent.revision) == (None, "2025-11-25")

    on_loop(body)


@pytest.mark.parametrize(("is_merged", "name"), [(True, "x"), (False, "files__x")])
def test_names_lose_the_prefix_of_the_merged_server(is_merged: bool, name: str) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(is_merged=is_merged)
        assert json.loads(bench.sent.message.params)["name"] == name

    on_loop(body)


OUTER_TASK = sealed_task_id(SEAL, TaskId(*REPLICA, "ada", "T1"))


@pytest.mark.parametrize(
    ("is_merged", "is_one_of_several", "how", "shown"),
    [
        (True, False, {}, OUTER_TASK),
        (True, False, {"revision": "2025-11-25", "session": session()}, OUTER_TASK),
        (False, True, {}, OUTER_TASK),
        (False, True, {"revision": "2025-11-25", "session": session()}, "T1"),
        (False, False, {}, "T1"),
    ],
    ids=["merged", "merged session", "one of several", "session at one of several", "alone"],
)
def test_a_task_has_the_servers_own_id_towards_the_server_and_one_of_ours_where_there_are_others(
    is_merged: bool, is_one_of_several: bool, how: dict[str, Any], shown: str
) -> None:
    """A session is bound to its replica, which tells whose the task is."""

    async def body() -> None:
        bench = Bench(is_one_of_several=is_one_of_several)
        asked = Request(b"1", "tasks/get", json.dumps({"taskId": shown}).encode())
        await bench.run(message=asked, is_merged=is_merged, hash_keys={"user": "ada"}, **how)
        assert json.loads(bench.sent.message.params) == {"taskId": "T1"}
        await bench.wire.exchanges[-1].event(Notification("notifications/tasks/status", b'{"taskId":"T1"}'))
        await turn()
        (event,) = bench.edge.take(CallEvent)
        await bench.answer(result=b'{"taskId":"T1","status":"working"}')
        (answer,) = bench.edge.take(CallAnswered)
        assert isinstance(event.message, Notification)
        assert answer.response is not None
        assert json.loads(event.message.params)["taskId"] == json.loads(answer.response.result)["taskId"] == shown

    on_loop(body)


@pytest.mark.parametrize("how", [{}, {"revision": "2025-11-25", "session": session()}], ids=["stateless", "in a session"])
def test_a_task_of_a_client_that_is_known_has_an_id_of_ours_everywhere(how: dict[str, Any]) -> None:
    """Attack: whoever guesses the server's own id asks for somebody else's task."""

    async def body() -> None:
        bench = Bench()
        ann = {PRINCIPAL: "https://id.example ann", "user": "https://id.example ann"}
        call = Request(b"1", "tools/call", b'{"name":"x","arguments":{}}')
        await bench.run(message=call, hash_keys=ann, **how)
        await bench.answer(result=b'{"resultType":"task","taskId":"T1","status":"working"}')
        (answer,) = bench.edge.take(CallAnswered)
        assert answer.response is not None
        shown = json.loads(answer.response.result)["taskId"]
        task = read_task_id(SEAL, shown)
        assert task is not None
        assert (task.backend, task.task, task.principal) == ("files", "T1", owner_of(ann))
        asked = Request(b"2", "tasks/get", json.dumps({"taskId": shown}).encode())
        await bench.run(2, message=asked, hash_keys=ann, **how)
        assert json.loads(bench.sent.message.params) == {"taskId": "T1"}

    on_loop(body)


def test_a_request_has_until_its_deadline_and_a_stream_has_no_end() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(deadline_s=time.monotonic() + 200.0, headers={"traceparent": "00-1"})
        assert 100 < bench.sent.timeout_s <= 200
        assert bench.sent.headers == {"traceparent": "00-1"}
        await bench.run(2, deadline_s=time.monotonic() - 5)
        assert 0 < bench.sent.timeout_s < 0.1  # it has passed: the wire ends it, in the usual way
        await bench.run(3, kind=RequestKind.STREAM, message=None, deadline_s=float("inf"), last_event_id="e7")
        assert (bench.sent.kind, bench.sent.timeout_s, bench.sent.last_event_id) == (RequestKind.STREAM, None, "e7")

    on_loop(body)


# ---- outcomes


def test_an_answer_returns_the_lease_and_tells_the_breaker_nothing_it_does_not_wait_for() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(5)
        await bench.answer(status=200, session_id="s")
        answer = bench.edge.only(CallAnswered)
        assert (answer.call_id, answer.backend, answer.replica, answer.status) == (5, *REPLICA, 200)
        assert answer.upstream_session_id == "s"
        assert 0 <= answer.upstream_s < 1
        assert bench.pool.only(LeaseReturned) == LeaseReturned(REPLICA, 5)
        assert bench.router.received == []

    on_loop(body)


@pytest.mark.parametrize(
    ("status", "revision", "shown"),
    [
        (500, "2025-11-25", 200),
        (404, "2025-11-25", 200),
        (401, "2026-07-28", 200),
        (404, "2026-07-28", 404),
        (400, "2025-11-25", 400),
    ],
)
def test_an_answer_never_counts_against_the_server_and_its_status_says_nothing_of_the_gateway(
    status: int, revision: str, shown: int
) -> None:
    async def body() -> None:
        bench = Bench()
        for call_id in range(6):
            await bench.run(call_id, revision=revision)
            await bench.answer(status=status)
        assert {answer.status for answer in bench.edge.of(CallAnswered)} == {shown}
        assert bench.router.received == []

    on_loop(body)


@pytest.mark.parametrize("fate", [Fate.BROKEN, Fate.CUT, Fate.TIMED_OUT, Fate.REFUSED])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (RequestKind.STREAM, None),
        (RequestKind.TERMINATE, None),
        (RequestKind.STREAM, Request(b"1", "subscriptions/listen", b"")),
        (RequestKind.REQUEST, Request(b"1", "logging/setLevel", b"")),
        (RequestKind.REQUEST, Request(b"1", "resources/subscribe", b"")),
        (RequestKind.REQUEST, Request(b"1", "resources/unsubscribe", b"")),
    ],
)
def test_how_a_server_fails_at_what_is_optional_never_counts_against_its_calls(
    kind: RequestKind, message: Request | None, fate: Fate
) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1, kind=kind, message=message, session=session(), revision=LEGACY)
        await bench.fail(UpstreamError(fate, "broken"))
        assert bench.edge.only(CallFailed).why.fate is fate
        assert bench.router.received == []

    on_loop(body)


def test_the_breaker_hears_of_faults_and_of_the_first_success_after_them() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        await bench.fail(UpstreamError(Fate.BROKEN, "broken"))
        assert bench.router.only(CallFaulted) == CallFaulted("r", REPLICA, "")
        for call_id in (2, 3):
            await bench.run(call_id)
            await bench.answer()
        assert bench.router.received == [CallSucceeded("r", REPLICA)]
        bench.router.received.clear()
        await bench.run(4, is_trial=True)
        await bench.answer()
        assert bench.router.received == [CallSucceeded("r", REPLICA)]

    on_loop(body)


def test_a_fault_says_how_many_calls_went_well_before_it() -> None:
    async def body() -> None:
        bench = Bench()
        for call_id in range(3):
            await bench.run(call_id)
            await bench.answer()
        assert bench.router.received == []
        for call_id in (4, 5):
            await bench.run(call_id)
            await bench.fail(UpstreamError(Fate.CUT, "cut"))
        assert bench.router.take(CallFaulted) == [CallFaulted("r", REPLICA, "", 3), CallFaulted("r", REPLICA, "", 0)]
        await bench.run(6)
        await bench.answer()
        await bench.run(7)
        await bench.fail(UpstreamError(Fate.CUT, "cut"))
        assert bench.router.take(CallFaulted) == [CallFaulted("r", REPLICA, "", 1)]

    on_loop(body)


def test_an_answer_that_took_too_long_is_told_where_its_route_asks_for_that() -> None:
    async def body() -> None:
        bench = Bench()
        for call_id, slow_after_s in ((1, 60.0), (2, 0.0), (3, 0.0), (4, math.inf)):
            await bench.run(call_id, slow_after_s=slow_after_s, hash_keys={"ip": "192.0.2.1"})
            await bench.answer()
        assert bench.router.received == [CallRanLong("r", REPLICA, "192.0.2.1", 1), CallRanLong("r", REPLICA, "192.0.2.1", 0)]
        bench.router.received.clear()
        # A breaker that waits for its trial hears of that first.
        await bench.run(5, slow_after_s=0.0, is_trial=True)
        await bench.answer()
        assert bench.router.received == [CallSucceeded("r", REPLICA)]

    on_loop(body)


def test_a_refusal_that_is_no_fault_of_the_server_counts_as_a_success() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1, is_trial=True)
        await bench.fail(UpstreamError(Fate.REFUSED, "unknown", reason="unknown_method"))
        failed = bench.edge.only(CallFailed)
        assert (failed.why.reason, failed.why.fate) == ("unknown_method", Fate.REFUSED)
        assert bench.router.received == [CallSucceeded("r", REPLICA)]

    on_loop(body)


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        (Fate.BROKEN, [CallFaulted("r", REPLICA, "")]),
        (Fate.CUT, [CallFaulted("r", REPLICA, "")]),
        (Fate.UNREACHABLE, [CallFaulted("r", REPLICA, "")]),
        (Fate.TIMED_OUT, [CallTimedOut("r", REPLICA)]),
        (Fate.REFUSED, [CallSucceeded("r", REPLICA)]),
        (Fate.UNSUPPORTED, [CallSucceeded("r", REPLICA)]),
        (Fate.TURNED_AWAY, []),
        (Fate.SESSION_LOST, []),
        (Fate.CELL_LOST, []),
        (Fate.ENDED, []),
    ],
)
def test_a_trial_that_the_server_was_not_asked_or_not_heard_out_in_has_no_verdict(fate: Fate, told: list[object]) -> None:
    """A connection that another cell lost, or a client that has cancelled, must not close the circuit of a dead server."""

    async def body() -> None:
        bench = Bench()
        await bench.run(1, is_trial=True)
        await bench.fail(UpstreamError(fate, "why"))
        assert bench.edge.only(CallFailed).why.text == "backend 'files': why"
        assert bench.router.received == told

    on_loop(body)


@pytest.mark.parametrize("fate", [Fate.UNREACHABLE, Fate.TIMED_OUT, Fate.BROKEN])
def test_how_long_a_server_takes_is_reason_to_look_and_its_failures_name_whose_call_it_was(fate: Fate) -> None:
    """A server may read nothing, or open no session, while it is busy with what another client has asked."""

    async def body() -> None:
        bench = Bench()
        await bench.run(1, hash_keys={"ip": "192.0.2.1", "session": "s", "user": "ada"})
        await bench.fail(UpstreamError(fate, "the server does not read what it is sent", reason="upstream_timeout"))
        assert bench.router.received == [CallTimedOut("r", REPLICA)]
        bench.router.received.clear()
        await bench.run(2, hash_keys={"ip": "192.0.2.1", "session": "s", "user": "ada"})
        await bench.fail(UpstreamError(Fate.CUT, "cut"))
        assert bench.router.received == [CallFaulted("r", REPLICA, "192.0.2.1")]

    on_loop(body)


def test_the_breaker_still_waits_for_its_success_after_a_failure_that_says_nothing() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        await bench.fail(UpstreamError(Fate.BROKEN, "broken"))
        await bench.run(2)
        await bench.fail(UpstreamError(Fate.TURNED_AWAY, "in use", reason="pool_exhausted"))
        await bench.run(3)
        await bench.answer()
        assert bench.router.received == [CallFaulted("r", REPLICA, ""), CallSucceeded("r", REPLICA)]

    on_loop(body)


def test_a_failure_tells_whether_the_server_may_have_seen_the_call() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        await bench.fail(REFUSED)
        await bench.run(2)
        await bench.fail(UpstreamError(Fate.TIMED_OUT, "late", error=b'{"code":1}'))
        first, second = bench.edge.take(CallFailed)
        assert (first.call_id, first.why.reason, first.why.fate.was_sent) == (1, "upstream_failed", False)
        assert (second.call_id, second.why.reason, second.why.fate.was_sent, second.why.error) == (
            2,
            "upstream_timeout",
            True,
            b'{"code":1}',
        )
        assert first.why.text == "backend 'files': cannot connect"
        assert [each.call_id for each in bench.pool.take(LeaseReturned)] == [1, 2]

    on_loop(body)


def test_a_defect_in_a_transport_ends_only_its_own_call() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        await bench.run(2)
        await bench.fail(ZeroDivisionError("a defect"))
        failed = bench.edge.only(CallFailed)
        assert (failed.call_id, failed.why.reason) == (1, "upstream_failed")
        assert "a defect" not in failed.why.text
        await bench.answer()
        assert bench.edge.only(CallAnswered).call_id == 2
        assert [each.call_id for each in bench.pool.take(LeaseReturned)] == [1, 2]
        assert bench.router.received == []

    on_loop(body)


def test_a_cancelled_call_is_over_without_a_word() -> None:
    """The pool has taken the lease back when it passes the cancellation on."""

    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        bench.stage.tell(bench.upstream, CancelCall(1), CancelCall(1), CancelCall(99))
        await turn()
        assert bench.wire.exchanges[0].is_cancelled
        assert bench.edge.received == bench.pool.received == bench.router.received == []

    on_loop(body)


def test_a_call_that_its_own_connection_ends_has_an_outcome() -> None:
    """The bridge does so where a session is ended, or makes room, with calls under way."""

    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        bench.wire.exchanges[0].result.cancel()
        await turn()
        failed = bench.edge.only(CallFailed)
        assert (failed.call_id, failed.why.reason, failed.why.fate.was_sent) == (1, "upstream_failed", True)
        assert bench.pool.only(LeaseReturned).call_id == 1
        assert bench.router.received == [], "it says nothing of the server"

    on_loop(body)


# ---- events


def test_events_go_to_the_edge_until_the_window_is_used_up_and_on_with_each_credit() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        exchange = bench.wire.open[0]
        taken = 0

        async def speak() -> None:
            nonlocal taken
            for number in range(EVENT_WINDOW + 10):
                await exchange.event(Notification("notifications/progress", b'{"progress":%d}' % number), f"e{number}")
                taken += 1

        speaking = asyncio.create_task(speak())
        for _ in range(100):
            await turn()
        assert taken == EVENT_WINDOW
        events = bench.edge.take(CallEvent)
        assert [each.event_id for each in events] == [f"e{number}" for number in range(EVENT_WINDOW)]
        assert {(each.call_id, each.backend, each.upstream == bench.upstream) for each in events} == {(1, "files", True)}
        bench.stage.tell(bench.upstream, CreditGranted(1, 3))
        for _ in range(20):
            await turn()
        assert taken == EVENT_WINDOW + 3
        bench.stage.tell(bench.upstream, CreditGranted(1, 7), CreditGranted(99, 1))
        await speaking
        assert len(bench.edge.take(CallEvent)) == 10

    on_loop(body)


def bounds_reached(bound: str) -> float:
    return float(metrics.bounds_reached_total.labels(bound)._value.get())


def test_what_is_named_beyond_any_use_is_not_listed_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        bench = Bench()
        before = bounds_reached("names")
        for number in (1, 2):
            await bench.run(number, message=Request(b"1", "tools/list", b"{}"))
            await bench.answer(result=json.dumps({"tools": [{"name": "x" * 100_000}, {"name": "fine"}]}).encode())
            answer = bench.edge.only(CallAnswered)
            bench.edge.received.clear()
            assert answer.response is not None
            assert json.loads(answer.response.result) == {"tools": [{"name": "fine"}]}
        (warning,) = [line for line in caplog.messages if "left out of tools/list" in line]
        assert "'files'" in warning
        assert bounds_reached("names") == before + 2

    on_loop(body)


def test_a_call_asks_so_many_questions_and_the_server_is_refused_any_more() -> None:
    async def body() -> None:
        bench = Bench()
        before = bounds_reached("questions")
        await bench.run(revision=LEGACY)
        (exchange,) = bench.wire.exchanges

        async def ask() -> None:
            for number in range(MOST_QUESTIONS + 2):
                await exchange.on_event(Request(b"%d" % number, "roots/list", b""), None)

        bench.stage.tell(bench.upstream, CreditGranted(1, MOST_QUESTIONS))
        asking = asyncio.ensure_future(ask())
        refusals: list[bytes] = []
        while not asking.done():
            await turn()
            for told in bench.wire.open:
                if isinstance(told.request.message, Response):
                    assert told.request.kind is RequestKind.MESSAGE
                    assert b"too many questions" in told.request.message.error
                    refusals.append(told.request.message.id)
                    told.result.set_result(UpstreamAnswer(202, None))
        assert len(bench.edge.take(CallEvent)) == MOST_QUESTIONS
        assert refusals == [b"%d" % MOST_QUESTIONS, b"%d" % (MOST_QUESTIONS + 1)]
        assert bounds_reached("questions") == before + 2
        exchange.result.set_result(UpstreamAnswer(200, Response(b"1", b"{}", b"")))
        await turn()
        assert bench.edge.only(CallAnswered).response is not None

    on_loop(body)


def test_a_call_that_waits_for_credit_can_be_cancelled_and_does_not_hold_up_others() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        await bench.run(2)
        slow, quick = bench.wire.open

        async def speak() -> None:
            for _ in range(EVENT_WINDOW + 1):
                await slow.event(Notification("notifications/message", b"{}"))

        speaking = asyncio.create_task(speak())
        for _ in range(100):
            await turn()
        assert not speaking.done()
        await quick.event(Notification("notifications/message", b"{}"))
        quick.answer()
        await turn()
        assert bench.edge.only(CallAnswered).call_id == 2
        bench.stage.tell(bench.upstream, CancelCall(1))
        await turn()
        assert slow.is_cancelled
        speaking.cancel()

    on_loop(body)


def test_a_subscription_has_the_clients_id_in_events_and_in_the_answer() -> None:
    """Source: MCP 2026-07-28, basic/patterns/subscriptions: notifications carry the id of the listen request."""

    async def body() -> None:
        bench = Bench()
        listen = Request(b'"mine"', "subscriptions/listen", b"{}")
        await bench.run(7, kind=RequestKind.STREAM, message=listen, deadline_s=float("inf"))
        assert bench.sent.message.id == b"7"
        shown = json.dumps({"_meta": {SUBSCRIPTION: 7, "other": 1}, "uri": "x:y"}).encode()
        await bench.wire.open[0].event(Notification("notifications/resources/updated", shown))
        await bench.wire.open[0].event(Notification("notifications/message", b'{"level":"info"}'))
        first, second = bench.edge.take(CallEvent)
        assert isinstance(first.message, Notification)
        assert json.loads(first.message.params) == {"_meta": {SUBSCRIPTION: "mine", "other": 1}, "uri": "x:y"}
        assert second.message == Notification("notifications/message", b'{"level":"info"}')
        await bench.answer(result=shown)
        answer = bench.edge.only(CallAnswered)
        assert answer.response is not None
        assert json.loads(answer.response.result)["_meta"][SUBSCRIPTION] == "mine"

    on_loop(body)


# ---- probes


@pytest.mark.parametrize(
    ("error", "hangs", "problem"),
    [
        (None, False, ""),
        (UpstreamError(Fate.BROKEN, "broken"), False, "broken"),
        (UpstreamError(Fate.STARTING, "starting since 3 s"), False, "starting since 3 s"),
        (None, True, "no answer in time"),
    ],
)
def test_a_probe_is_reported_to_the_monitor(error: Exception | None, hangs: bool, problem: str) -> None:
    async def body() -> None:
        bench = Bench()
        bench.wire.probe_error, bench.wire.probe_hangs = error, hangs
        monitor = bench.stage.peer()
        bench.stage.tell(bench.upstream, ProbeReplicas("p1", 0.05, monitor.address))
        async with asyncio.timeout(5):
            while not monitor.received:
                await asyncio.sleep(0.005)
        probed = monitor.only(ReplicaProbed)
        assert (probed.request_id, probed.replica, probed.problem) == ("p1", REPLICA, problem)
        assert probed.is_starting == problem.startswith("starting")

    on_loop(body)


# ---- the end


@pytest.mark.parametrize("end", [CrashRequested(), StopRequested()], ids=["crash", "stop"])
def test_an_upstream_that_ends_answers_its_calls_and_closes_its_wire(end: object) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.run(1)
        await bench.run(2)
        bench.stage.tell(bench.upstream, end)
        await turn()
        failed = bench.edge.take(CallFailed)
        assert [(each.call_id, each.why.reason, each.why.fate.was_sent) for each in failed] == [
            (1, "upstream_failed", True),
            (2, "upstream_failed", True),
        ]
        assert bench.wire.is_closed
        assert all(each.is_cancelled for each in bench.wire.exchanges)

    on_loop(body)


def test_a_call_behind_the_crash_is_answered_once() -> None:
    async def body() -> None:
        bench = Bench()
        call = Call(
            call_id=9, edge=bench.edge.address, kind=RequestKind.REQUEST, transport="t", revision="2026-07-28", target="x",
            message=Request(b"1", "ping", b""), deadline_s=0.0,
        )  # fmt: skip
        leased = LeaseCall(call=call, replica=REPLICA, route="r", is_trial=False, router=bench.router.address)
        bench.stage.system.post_all([(bench.upstream, CrashRequested()), (bench.upstream, RunCall(leased))])
        await turn()
        assert bench.edge.only(CallFailed).call_id == 9
        assert bench.wire.exchanges == []

    on_loop(body)


def test_a_server_that_is_left_alone_for_a_while_is_tried_at_once_when_somebody_may_have_mended_it() -> None:
    async def body() -> None:
        bench = Bench()
        first = bench.wire
        bench.wire = ScriptedWire()
        bench.stage.tell(bench.upstream, TryAgain())
        for calls in (1, 2):
            bench.stage.tell(bench.upstream, TryAgain())
            await bench.run(calls)
            assert len(first.exchanges) == calls, "a sound wire stays"
            why = Failure(Fate.TURNED_AWAY, "crash loop", retry_after_s=30.0)
            first.open[0].fail(UpstreamError.of(why) if calls == 2 else UpstreamError(Fate.UNREACHABLE, "refused"))
            await turn()
        bench.stage.tell(bench.upstream, TryAgain())
        await bench.run(3)
        assert (len(first.exchanges), len(bench.wire.exchanges)) == (2, 1)
        await turn()
        assert first.is_closed

    on_loop(body)
