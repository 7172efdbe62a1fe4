"""Relay: one request, one answer; tried again only where the server never saw it; one repair of a lost session."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import pytest

from mcp_gateway.actors.conversations.conversation import MAX_ATTEMPTS
from mcp_gateway.actors.conversations.relay import RelayList, RelayRequest
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.framing.pieces import joined
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from tests.doubles.recording_desk import ALONE, FILES, INITIALIZE, MAIL, MODERN, Scene, encoded, request, session_at

CALL = request("tools/call", name="a")
PROGRESS = Notification("notifications/progress", b'{"progress":1}')


def relay(*, namings: tuple[Any, ...] = (ALONE,), **rest: Any) -> Scene:
    return Scene(RelayRequest, *namings, message=rest.pop("message", CALL), arguments=("files",), **rest)


# ---- answers


def test_an_answer_is_relayed_once_with_its_status():
    scene = relay()
    assert (scene.last.message, scene.last.kind, scene.last.backend) == (CALL, RequestKind.REQUEST, "files")
    scene.answer(scene.last, {"content": []})
    assert (scene.sink.status, json.loads(scene.sink.body)) == (200, {"jsonrpc": "2.0", "id": 7, "result": {"content": []}})
    scene.assert_over()


@pytest.mark.parametrize("namings", [(ALONE,), (FILES, MAIL)])
def test_a_large_plain_result_is_relayed_without_a_copy(namings: tuple[Any, ...]):
    scene = relay(namings=namings)
    sent = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%b"}]}}' % (b"x" * 100_000)
    response = jsonrpc.decode_from_server(sent)
    assert isinstance(response, jsonrpc.Response)
    scene.answer(scene.last, response=response.to(b"7"))
    assert any(piece is response.result for piece in scene.sink.body)
    assert joined(scene.sink.body) == sent.replace(b'"id":1', b'"id":7')


def test_what_has_been_answered_is_held_by_nobody():
    """Answers may have megabytes, and the next collection of cycles may be a thousand requests away."""
    scene = relay()
    scene.answer(scene.last, {"content": []})
    conversation = weakref.ref(scene.conversation)
    gc.disable()
    try:
        del scene
        assert conversation() is None
    finally:
        gc.enable()


def test_an_error_of_the_server_is_an_answer():
    scene = relay()
    scene.answer(scene.last, error={"code": -32602, "message": "no"}, status=400)
    assert scene.sink.status == 400
    assert json.loads(scene.sink.body)["error"] == {"code": -32602, "message": "no"}
    scene.assert_over()


def test_resources_are_renamed_for_clients_of_the_merged_server_only():
    link = {"content": [{"type": "resource_link", "uri": "file:///a"}]}
    merged = Scene(RelayRequest, FILES, MAIL, message=CALL, arguments=("",))
    merged.answer(merged.last, link, backend="files")
    assert merged.sink.result["content"][0]["uri"] == "files+file:///a"
    single = relay(namings=(FILES, MAIL), endpoint="files")
    single.answer(single.last, link)
    assert single.sink.result == link


def test_a_list_of_one_backend_has_only_what_the_client_may_use():
    scene = Scene(RelayList, FILES, MAIL, message=request("tools/list"), endpoint="files", arguments=("files",))
    scene.desk.hidden = ["a"]
    scene.answer(scene.last, {"tools": [{"name": "a"}, {"name": "b"}], "nextCursor": "2"})
    assert scene.sink.result == {"tools": [{"name": "b"}], "nextCursor": "2"}


def test_a_stream_that_ends_without_a_response_is_a_failure():
    scene = relay()
    scene.answer(scene.last, has_response=False)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("upstream_failed", b"7")
    scene.assert_over()


def test_a_result_that_cannot_be_read_ends_this_exchange_only():
    scene = Scene(RelayRequest, FILES, message=CALL, arguments=("",))
    scene.answer(scene.last, raw=b'{"contents":[' + b'{"contents":[' * 3_000 + b"]}" * 3_000 + b"]}")
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "upstream_failed"
    scene.assert_over()


# ---- events


def test_events_before_the_answer_make_it_a_stream():
    """Source: MCP 2025-11-25, basic/transports, "Sending Messages": messages, then the response, then the end."""
    scene = relay()
    scene.event(scene.last, None, "e0")
    scene.event(scene.last, PROGRESS, "e1")
    scene.answer(scene.last, {"content": []})
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
    assert scene.sink.events == [(None, "e0"), (progress, "e1"), ({"jsonrpc": "2.0", "id": 7, "result": {"content": []}}, None)]
    scene.assert_over()


def test_an_event_that_says_nothing_does_not_begin_a_stream():
    scene = relay()
    scene.event(scene.last, None, None)
    assert scene.desk.grants == [("upstream of files", 1, 1)]
    scene.answer(scene.last, {})
    assert (scene.sink.begun, scene.sink.status) == (0, 200)


def test_a_failure_within_a_stream_ends_it_with_the_error():
    scene = relay()
    scene.event(scene.last, PROGRESS)
    scene.fail(scene.last, replica="files#0")
    assert len(scene.desk.sent) == 1, "the client has seen events of this call"
    assert scene.sink.refused is not None
    scene.assert_over()


def test_a_client_that_takes_no_events_gets_one_json_answer():
    scene = relay(takes_events=False)
    for number in range(3):
        scene.event(scene.last, PROGRESS, str(number))
    assert scene.desk.grants == [("upstream of files", 1, 1)] * 3
    scene.answer(scene.last, {"content": []})
    assert (scene.sink.begun, scene.sink.result) == (0, {"content": []})
    scene.assert_over()


def test_credit_goes_back_for_each_event_the_client_has_taken():
    scene = relay()
    for _ in range(3):
        scene.event(scene.last, PROGRESS)
    assert scene.desk.grants == []
    scene.conversation.flushed(2)
    scene.conversation.flushed(1)
    assert scene.desk.grants == [("upstream of files", 1, 2), ("upstream of files", 1, 1)]
    scene.conversation.flushed(5)
    assert len(scene.desk.grants) == 2


def test_events_of_the_merged_server_carry_outer_names_and_ids():
    scene = Scene(RelayRequest, FILES, MAIL, message=CALL, arguments=("",))
    scene.event(scene.last, Notification("notifications/resources/updated", b'{"uri":"file:///a"}'), "e1", backend="mail")
    scene.event(scene.last, Request(b'"q"', "sampling/createMessage", b"{}"), None, backend="mail")
    (updated, event_id), (asked, _) = scene.sink.events
    assert (updated["params"], event_id) == ({"uri": "mail+file:///a"}, "mail:e1")
    assert asked["id"] == '/mail/"q"'


# ---- failover


def test_a_call_that_was_never_sent_goes_to_another_replica_and_no_further_than_the_bound():
    scene = relay(revision=MODERN)
    tried = []
    for attempt in range(MAX_ATTEMPTS):
        assert scene.sink.refused is None
        assert scene.last.excluded == frozenset(tried)
        tried.append(f"files#{attempt}")
        scene.fail(scene.last, replica=tried[-1])
    assert len(scene.desk.sent) == MAX_ATTEMPTS
    assert scene.sink.refused is not None
    scene.assert_over()


def test_another_replica_may_answer():
    scene = relay(revision=MODERN)
    scene.fail(scene.last, "pool_exhausted", replica="files#0")
    scene.answer(scene.last, {"ok": True}, replica="files#1")
    assert scene.sink.result == {"ok": True}
    scene.assert_over()


# ---- hedges


def hedged(**rest: Any) -> Scene:
    return Scene(RelayRequest, ALONE, message=rest.pop("message", READ), arguments=("files",), hedge_after_s=0.2, **rest)


READ = request("resources/read", uri="a:b")


def test_what_only_reads_is_asked_of_another_replica_as_well_where_the_first_takes_long():
    scene = hedged(revision=MODERN)
    first = scene.last
    assert scene.desk.retries == [(0.2, "hedge")]
    scene.conversation.delay_passed("hedge")
    assert (scene.last.hedges, scene.last.message) == (first.call_id, first.message)
    assert scene.desk.paid_retries == ["files"]
    scene.answer(scene.last, {"ok": 2})
    assert scene.sink.result == {"ok": 2}
    assert scene.desk.cancelled == [first.call_id]
    scene.assert_over()


def test_the_first_replica_may_still_be_the_first_to_answer():
    scene = hedged(revision=MODERN)
    first = scene.last
    scene.conversation.delay_passed("hedge")
    hedge = scene.last
    scene.answer(first, {"ok": 1})
    assert scene.sink.result == {"ok": 1}
    assert scene.desk.cancelled == [hedge.call_id]


@pytest.mark.parametrize("which", ["first", "hedge"])
def test_where_one_of_two_fails_the_other_may_have_the_answer(which):
    scene = hedged(revision=MODERN)
    first = scene.last
    scene.conversation.delay_passed("hedge")
    failing, other = (first, scene.last) if which == "first" else (scene.last, first)
    scene.fail(failing, fate=Fate.CUT, replica="files#0")
    assert scene.sink.refused is None
    scene.answer(other, {"ok": True})
    assert scene.sink.result == {"ok": True}


def test_where_there_is_no_other_replica_the_failure_of_the_only_one_counts():
    scene = hedged(revision=MODERN)
    first = scene.last
    scene.conversation.delay_passed("hedge")
    hedge = scene.last
    scene.fail(first, fate=Fate.TIMED_OUT, reason="upstream_timeout", replica="files#0")
    scene.fail(hedge, "no_backend", fate=Fate.TURNED_AWAY)
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "upstream_timeout"


def test_once_one_of_two_says_something_the_other_is_heard_no_more():
    scene = hedged(revision=MODERN)
    first = scene.last
    scene.conversation.delay_passed("hedge")
    scene.event(scene.last, PROGRESS)
    assert scene.desk.cancelled == [first.call_id]


@pytest.mark.parametrize(
    "rest",
    [
        {"message": CALL, "revision": MODERN},
        {"message": request("resources/read", uri="a:b", requestState="s"), "revision": MODERN},
        {"session": session_at("files")},
    ],
)
def test_nothing_else_is_hedged(rest):
    scene = hedged(**rest)
    assert scene.desk.retries == []


def test_a_hedge_comes_once_within_the_budget_and_not_after_the_answer_has_begun():
    scene = hedged(revision=MODERN)
    scene.desk.has_retries = False
    scene.conversation.delay_passed("hedge")
    assert len(scene.desk.sent) == 1
    scene.desk.has_retries = True
    scene.conversation.delay_passed("hedge")
    scene.conversation.delay_passed("hedge")
    assert len(scene.desk.sent) == 2
    begun = hedged(revision=MODERN)
    begun.event(begun.last, PROGRESS)
    begun.conversation.delay_passed("hedge")
    assert len(begun.desk.sent) == 1


@pytest.mark.parametrize(
    "failure",
    [
        {"replica": "files#0", "fate": Fate.BROKEN},
        {"replica": ""},
        {"replica": "files#0", "fate": Fate.TIMED_OUT, "reason": "upstream_timeout"},
    ],
)
@pytest.mark.parametrize("session", [None, session_at("files")])
def test_a_tool_never_runs_twice(failure, session):
    """Neither a call that a server may have seen nor one that the router has refused is repeated."""
    scene = relay(session=session)
    scene.fail(scene.last, failure.get("reason", "upstream_failed"), **{k: v for k, v in failure.items() if k != "reason"})
    assert len(scene.desk.sent) == 1
    assert scene.sink.refused is not None
    scene.assert_over()


@pytest.mark.parametrize(
    ("failure", "reason", "status"),
    [
        ({"reason": "circuit_open", "retry_after_s": 9.0}, "circuit_open", 503),
        ({"reason": "upstream_timeout", "fate": Fate.TIMED_OUT}, "upstream_timeout", 504),
        ({"reason": "unknown_method"}, "unknown_method", 404),
        ({"reason": "invalid_params"}, "invalid_params", 400),
        ({"fate": Fate.UNSUPPORTED}, "unsupported_version", 400),
    ],
)
def test_failures_become_the_refusals_of_the_contract(failure, reason, status):
    scene = relay(revision=MODERN)
    scene.fail(scene.last, failure.get("reason", "upstream_failed"), **{k: v for k, v in failure.items() if k != "reason"})
    refused = scene.sink.refused
    assert refused is not None
    assert (refused.reason, refused.status, refused.request_id) == (reason, status, b"7")
    if reason == "circuit_open":
        assert refused.retry_after_s == 9.0


def test_the_error_of_the_server_travels_in_the_refusal():
    scene = relay()
    scene.fail(scene.last, error=b'{"code":-32603,"message":"boom"}', fate=Fate.BROKEN)
    assert scene.sink.refused is not None
    data = json.loads(scene.sink.refused.body())["error"]["data"]
    assert data == {"reason": "upstream_failed", "backend": "files", "upstream_error": {"code": -32603, "message": "boom"}}


def test_when_the_server_says_to_come_back_and_why_travels_in_the_refusal():
    scene = relay()
    scene.fail(scene.last, error=b'"no licence"', fate=Fate.REFUSED, retry_after_s=7.0)
    assert scene.sink.refused is not None
    data = json.loads(scene.sink.refused.body())["error"]["data"]
    assert (data["upstream_error"], data["retry_after"]) == ("no licence", 7.0)


# ---- sessions that were lost

OPENED = {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {}}
LOST = {"replica": "files#0", "fate": Fate.SESSION_LOST}


def test_a_lost_session_is_opened_again_and_the_call_made_once_more():
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "session_not_found", **LOST)
    opening = scene.last
    assert opening.excluded == frozenset(), "the replica is as good as any"
    assert (opening.method, opening.opens_session, opening.backend) == ("initialize", True, "files")
    assert opening.message.params == INITIALIZE, "the client's own parameters"
    scene.answer(opening, OPENED, replica="files#1", session_id="new")
    told = scene.last
    assert (told.method, told.kind) == ("notifications/initialized", RequestKind.MESSAGE)
    scene.answer(told, has_response=False, status=202)
    again = scene.last
    assert again.message == CALL
    upstream = again.session.upstream("files")
    assert (upstream.replica, upstream.session_id, upstream.revision) == ("files#1", "new", "2025-03-26")
    assert told.session == again.session
    scene.answer(again, {"ok": True})
    assert scene.sink.result == {"ok": True}
    assert len(scene.desk.renewed) == 1
    assert len(scene.desk.sent) == 4
    scene.assert_over()


def test_a_session_is_repaired_exactly_once():
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "session_not_found", **LOST)
    scene.answer(scene.last, OPENED, session_id="new")
    scene.answer(scene.last, has_response=False)
    scene.fail(scene.last, "session_not_found", **LOST)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.status) == ("session_not_found", 404)
    assert len(scene.desk.sent) == 4
    scene.assert_over()


@pytest.mark.parametrize("message", [CALL, READ])
def test_a_session_that_was_opened_at_a_cell_which_has_gone_since_is_opened_once_more_for_each_such_change(message):
    """As where a node dies, another one opens the session, and the first one comes back or that one dies as well."""
    scene = relay(session=session_at("files"), message=message)
    for change in range(3):
        scene.fail(scene.last, "session_not_found", **LOST)
        assert (scene.last.method, scene.last.opens_session) == ("initialize", True)
        scene.answer(scene.last, OPENED, session_id=f"new {change}")
        scene.answer(scene.last, has_response=False)
        assert scene.last.session.upstream("files").session_id == f"new {change}"
        scene.desk.view_number += change < 2
    scene.fail(scene.last, "session_not_found", **LOST)
    assert scene.sink.refused is not None, "nobody has gone since it was opened for the last time"
    assert scene.sink.refused.reason == "session_not_found"
    assert [call.method for call in scene.desk.sent].count(message.method) == 4
    scene.assert_over()


@pytest.mark.parametrize("fate", [Fate.SESSION_LOST, Fate.CELL_LOST])
@pytest.mark.parametrize("step", ["initialize", "notifications/initialized"])
def test_a_session_whose_cell_goes_while_it_is_opened_is_opened_elsewhere(fate, step):
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "session_not_found", **LOST)
    if step == "notifications/initialized":
        scene.answer(scene.last, OPENED, session_id="gone")
    assert scene.last.method == step
    scene.desk.view_number += 1
    scene.fail(scene.last, fate=fate, replica="files#0")
    assert (scene.last.method, scene.last.opens_session) == ("initialize", True)
    scene.answer(scene.last, OPENED, session_id="new")
    scene.answer(scene.last, has_response=False)
    assert (scene.last.message, scene.last.session.upstream("files").session_id) == (CALL, "new")
    scene.answer(scene.last, {"ok": True})
    assert scene.sink.result == {"ok": True}
    scene.assert_over()


def test_a_session_that_cannot_be_opened_again_where_no_cell_has_gone_says_nothing_of_a_call_that_may_have_run():
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "session_not_found", **LOST)
    scene.fail(scene.last, fate=Fate.CELL_LOST, replica="files#0")
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.text) == ("upstream_failed", "why")
    assert len(scene.desk.sent) == 2
    scene.assert_over()


def test_a_call_that_may_have_run_where_the_session_was_opened_again_never_runs_twice():
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "session_not_found", **LOST)
    scene.answer(scene.last, OPENED, session_id="new")
    scene.answer(scene.last, has_response=False)
    scene.desk.has_retries = False
    scene.desk.view_number += 1
    scene.fail(scene.last, fate=Fate.CELL_LOST, replica="files#0")
    assert scene.sink.refused is not None
    assert "NOT run again" in scene.sink.refused.text
    assert len(scene.desk.sent) == 4
    scene.assert_over()


def test_a_session_that_was_never_opened_at_this_backend_is_opened_now():
    """The router says so: nothing was sent, and it names no replica."""
    scene = Scene(RelayRequest, FILES, MAIL, message=CALL, session=session_at("mail"), arguments=("",))
    scene.fail(scene.last, "upstream_failed", backend="files", fate=Fate.SESSION_LOST)
    assert (scene.last.method, scene.last.backend) == ("initialize", "files")
    scene.fail(scene.last, replica="files#0")
    assert (scene.last.method, scene.last.excluded) == ("initialize", {"files#0"})
    scene.answer(scene.last, OPENED, replica="files#1", session_id="new")
    scene.answer(scene.last, has_response=False)
    assert (scene.last.message, len(scene.last.session.upstreams)) == (CALL, 2)


def test_a_replica_that_is_gone_takes_its_session_elsewhere_past_other_dead_ones():
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, replica="files#0")
    assert (scene.last.method, scene.last.excluded) == ("initialize", {"files#0"})
    scene.fail(scene.last, replica="files#1")
    assert (scene.last.method, scene.last.excluded) == ("initialize", {"files#0", "files#1"})
    scene.answer(scene.last, OPENED, replica="files#2", session_id="new")
    scene.answer(scene.last, has_response=False)
    scene.answer(scene.last, {"ok": True})
    assert scene.sink.result == {"ok": True}
    scene.assert_over()


def test_opening_again_is_bounded():
    scene = relay(session=session_at("files"))
    number = 0
    while scene.sink.refused is None:
        assert number < 10
        scene.fail(scene.last, replica=f"files#{number}")
        number += 1
    assert number == MAX_ATTEMPTS
    scene.assert_over()


def test_a_session_stays_where_it_is_while_its_replica_is_only_busy():
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "pool_exhausted", replica="files#0")
    assert len(scene.desk.sent) == 1
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "pool_exhausted"
    scene.assert_over()


@pytest.mark.parametrize(
    "raw", [b"{}", b'{"protocolVersion":7}', b'{"protocolVersion":"2025-06-18","capabilities":{"a":1e999}}', b""]
)
def test_a_session_that_cannot_be_opened_again_is_a_clear_failure(raw):
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "session_not_found", **LOST)
    if raw:
        scene.answer(scene.last, raw=raw)
    else:
        scene.answer(scene.last, error={"code": 1, "message": "no"})
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("upstream_failed", b"7")
    assert "could not be opened again" in scene.sink.refused.text
    scene.assert_over()


def test_a_session_that_its_client_has_ended_meanwhile_is_not_opened_again():
    scene = relay(session=session_at("files"))
    scene.desk.ended.append("key")
    scene.fail(scene.last, "session_not_found", **LOST)
    assert len(scene.desk.sent) == 1
    assert scene.sink.refused is not None
    assert scene.sink.refused.status == 404
    scene.assert_over()


def test_a_lost_session_without_one_is_no_reason_to_open_any():
    scene = relay()
    scene.fail(scene.last, "session_not_found", **LOST)
    assert len(scene.desk.sent) == 1
    scene.assert_over()


# ---- ends


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_goes_cancels_the_call(has_begun):
    scene = relay()
    if has_begun:
        scene.event(scene.last, PROGRESS)
    scene.conversation.client_gone()
    assert scene.desk.cancelled == [1]
    scene.assert_over(client_is_there=False)


def test_a_client_that_goes_while_its_session_is_repaired_cancels_the_repair():
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, "session_not_found", **LOST)
    scene.conversation.client_gone()
    assert scene.desk.cancelled == [2]
    scene.assert_over(client_is_there=False)


def test_an_exchange_past_its_deadline_is_answered_and_its_call_cancelled():
    scene = relay()
    scene.conversation.expired()
    assert scene.desk.cancelled == [1]
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.status) == ("upstream_timeout", 504)
    scene.assert_over()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_drain_ends_the_exchange(has_begun):
    scene = relay()
    if has_begun:
        scene.event(scene.last, PROGRESS)
    scene.conversation.end()
    assert scene.desk.cancelled == [1]
    assert (scene.sink.refused is None) == has_begun
    scene.assert_over()


def test_the_same_bytes_come_back_where_nothing_is_renamed():
    scene = relay()
    body = b'{"content": [ ], "n": 1.0, "big": %b}' % (b"9" * 400)
    scene.answer(scene.last, raw=body)
    assert body in scene.sink.body
    assert encoded({"a": 1}) == b'{"a":1}'


@pytest.mark.parametrize("has_other_cells", [True, False])
def test_a_subscription_is_acknowledged_when_every_cell_knows_it(has_other_cells):
    message = request("resources/subscribe", uri="file:///a")
    scene = Scene(
        RelayRequest, ALONE, message=message, session=session_at("files"), arguments=("files",), has_other_cells=has_other_cells
    )
    scene.answer(scene.last, {})
    assert [each.facts.of_backend("files") for each in scene.desk.told_of] == [("file:///a",)]
    if has_other_cells:
        assert not scene.sink.is_over
        ((_, told),) = scene.desk.retries
        scene.conversation.delay_passed(told)
    assert scene.sink.result == {}
    scene.assert_over()


def test_what_changes_nothing_of_the_session_waits_for_no_other_cell():
    for message, error in ((CALL, None), (request("resources/subscribe", uri="file:///a"), {"code": -32602, "message": "no"})):
        scene = Scene(
            RelayRequest, ALONE, message=message, session=session_at("files"), arguments=("files",), has_other_cells=True
        )
        scene.answer(scene.last, None if error else {}, error=error)
        assert scene.desk.told_of == []
        assert scene.sink.is_over
