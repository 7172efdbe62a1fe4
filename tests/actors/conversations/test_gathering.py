"""A question to every backend: one of them never spoils the rest."""

from __future__ import annotations

import json

import pytest

from mcp_gateway.actors.conversations.conversation import MAX_ATTEMPTS
from mcp_gateway.actors.conversations.gathering import Discover, ListAll, ListTasks, ListTools, SearchTools, SetLevel
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.protocol.curation.search_tools import Question, SearchedList
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.merging.merged_server import LIST_PAGE_ITEMS, MISSING_BACKENDS, list_cursor
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.session import UpstreamSession
from tests.doubles.recording_desk import ALONE, FILES, LEGACY, MAIL, MODERN, Scene, request, session_at

NOT_FOUND = {"code": -32601, "message": "no such method"}
INVALID = {"code": -32602, "message": "no"}


def tools(*names: str, **rest: object) -> dict[str, object]:
    return {"tools": [{"name": name} for name in names], **rest}


def listing(*, message: Request | None = None, **rest) -> Scene:
    return Scene(ListAll, FILES, MAIL, message=message or request("tools/list"), **rest)


def names_of(scene: Scene) -> list[str]:
    return [tool["name"] for tool in scene.sink.result["tools"]]


# ---- lists


def test_all_answer_and_the_order_is_that_of_the_configuration():
    scene = listing(revision=MODERN)
    assert [(call.backend, call.deadline_s, call.session) for call in scene.desk.sent] == [
        ("files", 5.0, None),
        ("mail", 5.0, None),
    ]
    scene.answer(scene.call_to("mail"), tools("b"))
    scene.answer(scene.call_to("files"), tools("b", "a"))
    assert names_of(scene) == ["files__b", "files__a", "mail__b"]
    assert (scene.sink.status, MISSING_BACKENDS in scene.sink.result["_meta"]) == (200, False)
    scene.assert_over()


@pytest.mark.parametrize("way", ["upstream_timeout", "circuit_open", "session_not_found", "error", "no response", "malformed"])
def test_one_backend_never_spoils_the_rest(way):
    scene = listing(session=session_at("files", "mail"))
    mail = scene.call_to("mail")
    if way == "error":
        scene.answer(mail, error=INVALID, status=400)
    elif way == "no response":
        scene.answer(mail, has_response=False)
    elif way == "malformed":
        scene.answer(mail, {"tools": [{"title": "no name"}]})
    else:
        scene.fail(mail, way, replica="mail#0", fate=Fate.BROKEN)
    scene.answer(scene.call_to("files"), tools("a"))
    assert names_of(scene) == ["files__a"]
    assert list(scene.sink.result["_meta"][MISSING_BACKENDS]) == ["mail"]
    scene.assert_over()


def test_who_is_late_is_noted_and_who_answers_or_is_merely_down_is_not():
    scene = Scene(ListAll, FILES, MAIL, ALONE, message=request("tools/list"), revision=MODERN)
    files, mail, third = scene.open
    scene.fail(mail, "upstream_timeout", replica="mail#0", fate=Fate.TIMED_OUT)
    scene.fail(third, "circuit_open")
    scene.answer(files, tools("a"))
    assert scene.desk.punctuality == [("mail", "late"), ("files", "prompt")]


def test_what_a_client_may_not_use_is_left_out_of_answers_and_of_what_stands_in_for_them():
    """The list that is kept is everybody's: it has all items, and each client reads its own of them."""
    first = listing(revision=MODERN)
    first.desk.hidden = ["a"]
    first.answer(first.call_to("files"), tools("a", "b"))
    first.answer(first.call_to("mail"), tools("a"))
    assert names_of(first) == ["files__b"]
    second = listing(revision=MODERN)
    second.desk.hidden, second.desk.last_known = ["b"], first.desk.last_known
    second.fail(second.call_to("files"), "circuit_open")
    second.answer(second.call_to("mail"), tools("b"))
    assert names_of(second) == ["files__a"]


def test_the_last_known_list_stands_in_for_a_backend_that_does_not_answer():
    first = listing(revision=MODERN)
    first.answer(first.call_to("files"), tools("a"))
    first.answer(first.call_to("mail"), tools("b", nextCursor="2"))
    first.answer(first.call_to("mail"), tools("c"))
    then = listing(revision=MODERN)
    then.desk.last_known = first.desk.last_known
    then.fail(then.call_to("mail"), "upstream_timeout", replica="mail#0", fate=Fate.TIMED_OUT)
    then.answer(then.call_to("files"), tools("new"))
    assert names_of(then) == ["files__new", "mail__b", "mail__c"]
    missing = then.sink.result["_meta"][MISSING_BACKENDS]
    assert missing == {"mail": "upstream_timeout; this is its list of 7 s ago"}
    assert then.sink.result["ttlMs"] == 0  # nobody shall keep what may be wrong
    then.assert_over()


def test_tasks_are_listed_page_by_page_and_no_list_of_somebody_else_stands_in_for_one_that_is_away():
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Task Isolation and Access Control"."""
    session = session_at("files", "mail")
    first = Scene(ListTasks, FILES, MAIL, message=request("tasks/list"), session=session)
    first.answer(first.call_to("files"), {"tasks": [{"taskId": "sealed1"}], "nextCursor": "2"})
    first.answer(first.call_to("files"), {"tasks": [{"taskId": "sealed2"}]})
    first.answer(first.call_to("mail"), error={"code": -32601, "message": "no tasks"})
    assert first.sink.result == {"tasks": [{"taskId": "sealed1"}, {"taskId": "sealed2"}]}
    assert first.desk.last_known == {}


def test_the_last_known_lists_are_the_answer_when_nobody_answers():
    first = listing(revision=MODERN)
    for backend in ("files", "mail"):
        first.answer(first.call_to(backend), tools("a"))
    then = listing(revision=MODERN)
    then.desk.last_known = first.desk.last_known
    for backend in ("files", "mail"):
        then.fail(then.call_to(backend), "circuit_open")
    assert names_of(then) == ["files__a", "mail__a"]
    then.assert_over()


def test_a_list_of_another_revision_or_private_to_a_client_does_not_stand_in():
    first = listing(revision=MODERN)
    first.answer(first.call_to("files"), tools("a"))
    first.answer(first.call_to("mail"), tools("b", cacheScope="private", ttlMs=1))
    for revision in (LEGACY, MODERN):
        then = listing(revision=revision)
        then.desk.last_known = first.desk.last_known
        for backend in ("mail", *(("files",) if revision == LEGACY else ())):
            then.fail(then.call_to(backend), "upstream_timeout", replica=f"{backend}#0", fate=Fate.TIMED_OUT)
        if revision == LEGACY:
            assert then.sink.refused is not None
        else:
            then.answer(then.call_to("files"), tools("a"))
            assert names_of(then) == ["files__a"]


def test_a_server_without_the_feature_is_not_missing():
    scene = listing()
    scene.answer(scene.call_to("mail"), error=NOT_FOUND)
    scene.answer(scene.call_to("files"), tools("a"))
    assert scene.sink.result == {"tools": [{"name": "files__a"}]}
    scene.assert_over()


def test_nobody_has_the_feature_and_the_list_is_empty():
    scene = listing()
    for backend in ("mail", "files"):
        scene.answer(scene.call_to(backend), error=NOT_FOUND)
    assert scene.sink.result == {"tools": []}
    scene.assert_over()


def test_nobody_answers_and_the_failure_is_told():
    scene = listing()
    scene.fail(scene.call_to("mail"), "circuit_open", retry_after_s=2.0)
    scene.answer(scene.call_to("files"), error=INVALID)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("circuit_open", b"7")
    scene.assert_over()


def test_all_servers_give_errors_and_the_first_is_the_answer():
    scene = listing(revision=MODERN)
    scene.answer(scene.call_to("mail"), error=INVALID, status=400)
    scene.answer(scene.call_to("files"), error={"code": 5, "message": "other"}, status=400)
    assert (scene.sink.status, json.loads(scene.sink.body)["error"]) == (400, INVALID)
    scene.assert_over()


@pytest.mark.parametrize("raw", [b'{"tools":7}', b'{"tools":[7]}', b'{"tools":[],"ttlMs":1e999}'])
def test_only_malformed_lists_are_a_failure(raw):
    scene = listing(revision=MODERN)
    for backend in ("mail", "files"):
        scene.answer(scene.call_to(backend), raw=raw)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("upstream_failed", b"7")
    scene.assert_over()


def test_a_replica_that_cannot_be_reached_is_followed_by_others_within_the_bound():
    scene = listing(revision=MODERN)
    for attempt in range(MAX_ATTEMPTS):
        call = scene.call_to("mail")
        assert call.excluded == {f"mail#{number}" for number in range(attempt)}
        scene.fail(call, replica=f"mail#{attempt}")
    scene.answer(scene.call_to("files"), tools("a"))
    assert scene.sink.result["_meta"][MISSING_BACKENDS] == {"mail": "upstream_failed"}
    scene.assert_over()


def test_a_session_is_opened_before_it_is_asked_for_at_another_replica():
    scene = listing(session=session_at("files", "mail"))
    scene.fail(scene.call_to("mail"), replica="mail#0")
    opening = scene.call_to("mail")
    assert (opening.message.method, opening.opens_session, opening.excluded) == ("initialize", True, {"mail#0"})
    assert opening.deadline_s == 5.0, "it takes no more time than the list itself"


def test_a_session_that_another_exchange_has_opened_again_is_used_as_it_is():
    """A client may ask for all its lists at once: one of them opens the session again."""
    scene = listing(session=session_at("files", "mail"))
    scene.answer(scene.call_to("files"), tools("a"))
    scene.answer(scene.call_to("mail"), tools("x", nextCursor="of the lost session"))
    scene.desk.renew_session(scene.exchange.session, UpstreamSession("mail", "mail#0", "new", LEGACY))
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    again = scene.call_to("mail")
    assert (again.method, again.params, again.session.upstream("mail").session_id) == ("tools/list", {}, "new")
    scene.answer(again, tools("y"))
    assert names_of(scene) == ["files__a", "mail__y"]
    scene.assert_over()


def test_of_two_that_open_a_session_again_at_once_the_first_counts():
    scene = listing(session=session_at("files", "mail"))
    scene.answer(scene.call_to("files"), tools("a"))
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    scene.desk.renew_session(scene.exchange.session, UpstreamSession("mail", "mail#0", "first", LEGACY))
    scene.answer(scene.call_to("mail"), {"protocolVersion": LEGACY}, session_id="second")
    assert scene.desk.dismissed == ["second"]
    scene.answer(scene.call_to("mail"), tools("x"))
    assert names_of(scene) == ["files__a", "mail__x"]
    scene.assert_over()


@pytest.mark.parametrize("has_changed", [True, False])
def test_a_session_that_was_opened_at_a_cell_which_has_gone_since_is_opened_once_more(has_changed):
    scene = listing(session=session_at("files", "mail"))
    scene.answer(scene.call_to("files"), tools("a"))
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    scene.answer(scene.call_to("mail"), {"protocolVersion": LEGACY}, session_id="gone")
    scene.answer(scene.call_to("mail"), has_response=False)
    scene.desk.view_number += has_changed
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    if has_changed:
        scene.answer(scene.call_to("mail"), {"protocolVersion": LEGACY}, session_id="new")
        scene.answer(scene.call_to("mail"), has_response=False)
        assert scene.call_to("mail").session.upstream("mail").session_id == "new"
        scene.answer(scene.call_to("mail"), tools("x"))
    assert names_of(scene) == (["files__a", "mail__x"] if has_changed else ["files__a"])
    scene.assert_over()


def test_two_backends_that_have_lost_the_session_are_opened_again_side_by_side():
    scene = listing(session=session_at("files", "mail"))
    for backend in ("files", "mail"):
        scene.fail(scene.call_to(backend), "session_not_found", fate=Fate.SESSION_LOST)
    for backend in ("mail", "files"):
        scene.answer(scene.call_to(backend), {"protocolVersion": LEGACY}, session_id=f"new {backend}")
    for backend in ("files", "mail"):
        scene.answer(scene.call_to(backend), has_response=False)
    scene.answer(scene.call_to("mail"), tools("x"))
    scene.answer(scene.call_to("files"), tools("a", nextCursor="p2"))
    assert scene.call_to("files").session.upstream("files").session_id == "new files"
    scene.answer(scene.call_to("files"), tools("b"))
    assert names_of(scene) == ["files__a", "files__b", "mail__x"]
    scene.assert_over()


@pytest.mark.parametrize("way", ["refused", "unreachable", "unreachable everywhere"])
def test_a_session_that_cannot_be_opened_again_is_missing(way):
    scene = listing(session=session_at("files", "mail"))
    scene.answer(scene.call_to("files"), tools("a"))
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    if way == "refused":
        scene.answer(scene.call_to("mail"), error={"code": -1, "message": "no"})
    elif way == "unreachable":
        scene.fail(scene.call_to("mail"), fate=Fate.BROKEN)
    else:
        for attempt in range(MAX_ATTEMPTS):
            opening = scene.call_to("mail")
            assert (opening.opens_session, len(opening.excluded)) == (True, attempt)
            scene.fail(opening, replica=f"mail#{attempt}")
    reason = "session_not_found" if way == "refused" else "upstream_failed"
    assert scene.sink.result["_meta"][MISSING_BACKENDS] == {"mail": reason}
    scene.assert_over()


def test_events_of_lists_are_taken_as_read():
    scene = listing()
    scene.event(scene.call_to("mail"), Notification("notifications/message", b"{}"))
    assert (scene.desk.grants, scene.sink.begun) == ([("upstream of mail", 2, 1)], 0)


# ---- pages


def test_every_page_of_every_backend_is_read():
    scene = listing(message=request("tools/list", _meta={"x": 1}))
    scene.answer(scene.call_to("files"), tools("a", nextCursor="p2"))
    assert scene.call_to("files").params == {"_meta": {"x": 1}, "cursor": "p2"}
    scene.answer(scene.call_to("mail"), tools("x"))
    scene.answer(scene.call_to("files"), tools("b", nextCursor=None))
    assert names_of(scene) == ["files__a", "files__b", "mail__x"]
    assert {call.deadline_s for call in scene.desk.sent} == {5.0}, "one deadline for all pages"
    scene.assert_over()


def test_a_backend_that_pages_for_ever_is_cut_and_named():
    scene = listing()
    scene.answer(scene.call_to("mail"), tools("x"))
    pages = 0
    while not scene.sink.is_over:
        assert pages < 1_000
        scene.answer(scene.call_to("files"), tools(f"a{pages}", nextCursor="more"))
        pages += 1
    assert pages == ListAll.MAX_PAGES
    assert len(names_of(scene)) == pages + 1
    assert list(scene.sink.result["_meta"][MISSING_BACKENDS]) == ["files"]
    scene.assert_over()


CIRCLE, NO_STRING = "list cut where its pages go in circles", "list cut at a cursor that is no string"


@pytest.mark.parametrize(
    ("pages", "served", "why"),
    [
        ([tools("a", nextCursor="p")] * 2, ["a"], CIRCLE),
        ([tools("a", nextCursor="p"), tools("b", nextCursor="p"), tools("b", nextCursor="p")], ["a", "b"], CIRCLE),
        ([tools("a", nextCursor="p"), tools("b", nextCursor="q"), tools("a", nextCursor="p")], ["a", "b"], CIRCLE),
        ([tools(nextCursor="")] * 2, [], CIRCLE),
        ([tools("a", nextCursor="p"), tools("b", nextCursor=7)], ["a", "b"], NO_STRING),
        ([tools("a", nextCursor={"page": 2})], ["a"], NO_STRING),
        ([tools("a", nextCursor=False)], ["a"], NO_STRING),
    ],
)
def test_pages_that_lead_nowhere_end_a_list_that_is_served_as_far_as_it_came(pages, served, why):
    """Source: MCP 2026-07-28, server/utilities/pagination: a cursor is a string, an empty one as well as any."""
    scene = listing()
    for page in pages:
        scene.answer(scene.call_to("files"), page)
    scene.answer(scene.call_to("mail"), tools("x"))
    assert names_of(scene) == [*(f"files__{name}" for name in served), "mail__x"]
    assert scene.sink.result["_meta"][MISSING_BACKENDS] == {"files": why}
    assert scene.desk.flaws == [("files", "tools/list", why)]
    scene.assert_over()


def test_pages_that_move_under_one_cursor_are_read():
    """Source: the same, guideline 3: nothing may be read out of a cursor but that there is one."""
    scene = listing()
    scene.answer(scene.call_to("mail"), tools("x"))
    for name, cursor in (("a", "next"), ("b", "next"), ("c", None)):
        scene.answer(scene.call_to("files"), tools(name, nextCursor=cursor))
    assert names_of(scene) == ["files__a", "files__b", "files__c", "mail__x"]
    assert scene.desk.flaws == []


def test_a_list_that_is_read_again_after_its_session_was_lost_goes_in_no_circle():
    scene = listing(session=session_at("files", "mail"))
    scene.answer(scene.call_to("mail"), tools("x"))
    scene.answer(scene.call_to("files"), tools("a", nextCursor="p"))
    scene.fail(scene.call_to("files"), "session_not_found", fate=Fate.SESSION_LOST)
    scene.answer(scene.call_to("files"), {"protocolVersion": LEGACY}, session_id="new")
    scene.answer(scene.call_to("files"), has_response=False)
    scene.answer(scene.call_to("files"), tools("a", nextCursor="p"))
    scene.answer(scene.call_to("files"), tools("b"))
    assert names_of(scene) == ["files__a", "files__b", "mail__x"]
    assert scene.desk.flaws == []


@pytest.mark.parametrize("raw", [b"[]", b"7", b'{"tools":7,"nextCursor":"p"}'])
def test_a_page_that_is_no_list_spoils_nothing_for_the_others(raw):
    scene = listing()
    scene.answer(scene.call_to("files"), raw=raw)
    if scene.desk.open_calls and len(scene.desk.sent) == 3:
        scene.answer(scene.call_to("files"), tools("late"))
    scene.answer(scene.call_to("mail"), tools("x"))
    assert names_of(scene)[-1] == "mail__x"
    assert scene.sink.result["_meta"][MISSING_BACKENDS]["files"].startswith("malformed list")
    assert [(backend, why[:14]) for backend, _, why in scene.desk.flaws] == [("files", "malformed list")]


def test_a_backend_that_is_away_is_no_flaw_of_its_list():
    scene = listing()
    scene.fail(scene.call_to("files"), "upstream_timeout", fate=Fate.TIMED_OUT)
    scene.answer(scene.call_to("mail"), tools("x", "x"))
    assert [backend for backend, *_ in scene.desk.flaws] == ["mail"]


def test_pages_that_were_read_stay_where_a_later_one_fails():
    scene = listing()
    scene.answer(scene.call_to("mail"), tools("x"))
    scene.answer(scene.call_to("files"), tools("a", nextCursor="p2"))
    scene.fail(scene.call_to("files"), "upstream_timeout", replica="files#0", fate=Fate.TIMED_OUT)
    assert names_of(scene) == ["files__a", "mail__x"]
    assert scene.sink.result["_meta"][MISSING_BACKENDS] == {"files": "upstream_timeout"}


def test_a_client_that_pages_reads_each_item_once():
    """The cursor of the merged list is ours; the backends are always asked from their beginning."""
    count = LIST_PAGE_ITEMS + 5
    names: list[str] = []
    params: dict[str, object] = {}
    for _ in range(3):
        scene = listing(message=request("tools/list", **params))
        assert [call.params for call in scene.desk.sent] == [{}, {}]
        scene.answer(scene.call_to("files"), tools(*map(str, range(count))))
        scene.answer(scene.call_to("mail"), tools("x"))
        names += names_of(scene)
        if "nextCursor" not in scene.sink.result:
            break
        params = {"cursor": scene.sink.result["nextCursor"]}
    assert names == [*(f"files__{number}" for number in range(count)), "mail__x"]


PUBLIC = {"ttlMs": 60_000, "cacheScope": "public"}


@pytest.mark.parametrize(
    ("how", "hints", "is_held"),
    [
        ({"session": session_at("files", "mail")}, {}, True),
        ({"revision": MODERN}, PUBLIC, True),
        ({"revision": MODERN}, {**PUBLIC, "cacheScope": "private"}, False),
        ({"revision": MODERN}, {}, False),
        ({}, {}, False),
    ],
)
def test_nobody_is_asked_again_for_the_pages_that_follow_where_their_reader_may_have_them(how, hints, is_held):
    count = 2 * LIST_PAGE_ITEMS + 5
    first = listing(**how)
    first.answer(first.call_to("files"), tools(*map(str, range(count)), **hints))
    first.answer(first.call_to("mail"), tools("x", **hints))
    scene, names = first, names_of(first)
    assert bool(first.desk.held_pages) is is_held
    while is_held and "nextCursor" in scene.sink.result:
        cursor = scene.sink.result["nextCursor"]
        scene = listing(message=request("tools/list", cursor=cursor), held_pages=first.desk.held_pages, **how)
        assert not scene.desk.sent
        assert {**scene.sink.result, "tools": 0, "nextCursor": 0} == {**first.sink.result, "tools": 0, "nextCursor": 0}
        scene.assert_over()
        names += names_of(scene)
    assert not is_held or names == [*(f"files__{number}" for number in range(count)), "mail__x"]


def test_a_reader_whose_pages_are_held_no_more_has_the_servers_asked_and_those_that_follow_held_again():
    session = session_at("files", "mail")
    scene = listing(message=request("tools/list", cursor=list_cursor(LIST_PAGE_ITEMS)), session=session)
    scene.answer(scene.call_to("files"), tools(*map(str, range(2 * LIST_PAGE_ITEMS + 5))))
    scene.answer(scene.call_to("mail"), tools("x"))
    assert len(names_of(scene)) == LIST_PAGE_ITEMS
    assert list(scene.desk.held_pages) == [(session.key, 2 * LIST_PAGE_ITEMS)]


def test_a_list_of_tasks_is_held_for_nobody():
    scene = Scene(ListTasks, FILES, MAIL, message=request("tasks/list"), session=session_at("files", "mail"))
    for call in scene.open:
        scene.answer(call, {"tasks": [{"taskId": str(number)} for number in range(LIST_PAGE_ITEMS)]})
    assert "nextCursor" in scene.sink.result
    assert not scene.desk.held_pages


@pytest.mark.parametrize("cursor", ["garbage", 7, list_cursor(10) + "x"])
def test_a_cursor_that_is_none_of_ours_is_refused_before_anybody_is_asked(cursor):
    scene = listing(message=request("tools/list", cursor=cursor))
    assert not scene.desk.sent
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("invalid_params", b"7")
    scene.assert_over()


def test_a_cursor_past_the_end_is_refused():
    scene = listing(message=request("tools/list", cursor=list_cursor(10)))
    for backend in ("mail", "files"):
        scene.answer(scene.call_to(backend), tools("x"))
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("invalid_params", b"7")
    scene.assert_over()


# ---- server/discover and logging/setLevel


def test_discover_unites_and_names_who_is_missing():
    scene = Scene(Discover, FILES, MAIL, message=request("server/discover"), revision=MODERN)
    scene.answer(scene.call_to("files"), {"capabilities": {"tools": {}}, "ttlMs": 100, "cacheScope": "public"})
    scene.fail(scene.call_to("mail"), "upstream_timeout", fate=Fate.TIMED_OUT)
    result = scene.sink.result
    assert (result["capabilities"], result["ttlMs"]) == ({"tools": {}}, 0)
    assert result["_meta"][MISSING_BACKENDS] == {"mail": "upstream_timeout"}
    scene.assert_over()


def test_of_a_server_that_is_starting_the_client_is_told_so_and_that_its_lists_may_come():
    scene = Scene(Discover, FILES, MAIL, message=request("server/discover"), revision=MODERN)
    scene.answer(scene.call_to("files"), {"capabilities": {"tools": {}}})
    scene.fail(scene.call_to("mail"), "upstream_timeout", fate=Fate.STARTING, text="backend 'mail': starting since 5 s")
    assert scene.sink.result["capabilities"]["tools"] == {"listChanged": True}
    assert scene.sink.result["_meta"][MISSING_BACKENDS] == {"mail": "upstream_timeout; starting since 5 s"}


def test_discover_survives_an_answer_that_cannot_be_read():
    scene = Scene(Discover, FILES, MAIL, message=request("server/discover"), revision=MODERN)
    scene.answer(scene.call_to("files"), raw=b'{"capabilities":{"tools":{}},"ttlMs":1e999}')
    scene.answer(scene.call_to("mail"), {"capabilities": {"prompts": {}}})
    assert scene.sink.result["capabilities"] == {"prompts": {}}
    assert list(scene.sink.result["_meta"][MISSING_BACKENDS]) == ["files"]
    scene.assert_over()
    alone = Scene(Discover, FILES, message=request("server/discover"), revision=MODERN)
    alone.answer(alone.last, raw=b'{"ttlMs":1e999}')
    assert alone.sink.refused is not None
    alone.assert_over()


def test_only_legacy_servers_refuse_the_revision_and_name_what_they_speak():
    scene = Scene(Discover, FILES, MAIL, message=request("server/discover"), revision=MODERN)
    scene.fail(scene.call_to("files"), "unsupported_version", fate=Fate.UNSUPPORTED)
    scene.fail(scene.call_to("mail"), "unsupported_version", fate=Fate.UNSUPPORTED)
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "unsupported_version"
    assert LEGACY in scene.sink.refused.data["supported"]
    assert MODERN not in scene.sink.refused.data["supported"]
    scene.assert_over()


def test_the_log_level_is_set_wherever_there_is_logging():
    scene = Scene(SetLevel, FILES, MAIL, message=request("logging/setLevel", level="info"), session=session_at("files", "mail"))
    assert [call.params for call in scene.desk.sent] == [{"level": "info"}] * 2
    scene.answer(scene.call_to("files"), error=NOT_FOUND)
    scene.answer(scene.call_to("mail"), {})
    assert scene.sink.result == {}
    scene.assert_over()


def test_a_log_level_is_acknowledged_when_every_cell_knows_it():
    """Else the next request, in another cell, could open the session again at the level from before."""
    message = request("logging/setLevel", level="info")
    scene = Scene(SetLevel, FILES, MAIL, message=message, session=session_at("files", "mail"), has_other_cells=True)
    for backend in ("files", "mail"):
        scene.answer(scene.call_to(backend), {})
    assert [each.facts.log_level for each in scene.desk.told_of] == ["info"]
    assert not scene.sink.is_over
    ((_, told),) = scene.desk.retries
    scene.conversation.delay_passed(told)
    assert scene.sink.result == {}
    scene.assert_over()


# ---- ends


@pytest.mark.parametrize("kind", [ListAll, Discover, SetLevel])
@pytest.mark.parametrize("way", ["client_gone", "expired", "end"])
def test_an_end_cancels_what_is_open(kind, way):
    scene = Scene(kind, FILES, MAIL, message=request("tools/list"))
    scene.answer(scene.call_to("files"), tools("a"))
    getattr(scene.conversation, way)()
    assert scene.desk.cancelled == [2]
    scene.assert_over(client_is_there=way != "client_gone")


# ---- lists of tools that are too long to be shown


def test_a_list_past_the_bound_is_the_two_tools_and_what_is_pinned() -> None:
    for above, names in ((4, ["files__a", "files__b", "mail__c", "mail__d"]), (3, ["search_tools", "call_tool", "mail__d"])):
        searched = SearchedList(above, ["mail__d"])
        scene = Scene(ListTools, FILES, MAIL, message=request("tools/list"), revision=MODERN, searched_list=searched)
        scene.answer(scene.call_to("files"), tools("a", "b"))
        scene.answer(scene.call_to("mail"), tools("c", "d"))
        assert names_of(scene) == names


def test_a_search_finds_what_the_client_may_use_in_every_list() -> None:
    question = Question("read")
    scene = Scene(SearchTools, FILES, MAIL, message=request("tools/list"), revision=MODERN, question=question)
    scene.desk.hidden = ["read_secret"]
    scene.answer(scene.call_to("files"), tools("write", "read_secret", "read_file"))
    scene.answer(scene.call_to("mail"), tools("read_mail"))
    found = scene.sink.result["structuredContent"]["tools"]
    assert [tool["name"] for tool in found] == ["files__read_file", "mail__read_mail"]
    scene.assert_over()


# ---- more backends than are asked at once


MANY = tuple(Naming(f"b{number}", f"b{number}__") for number in range(150))
AT_ONCE = ListAll.ASKED_AT_ONCE


def read_list(tools_each: int, held_pages=None, **hints: object) -> tuple[list[str], list[int], Scene]:
    """(names of all pages, how many backends each page had asked, the scene of the last page)."""
    names: list[str] = []
    asked: list[int] = []
    params: dict[str, object] = {}
    held = {} if held_pages is None else held_pages
    while True:
        scene = Scene(ListAll, *MANY, message=request("tools/list", **params), revision=MODERN, held_pages=held)
        while scene.open:
            for call in scene.open:
                scene.answer(call, tools(*map(str, range(tools_each)), **hints))
        held.update(scene.desk.held_pages)
        names += names_of(scene)
        asked.append(len(scene.desk.sent))
        scene.assert_over()
        if "nextCursor" not in scene.sink.result:
            return names, asked, scene
        params = {"cursor": scene.sink.result["nextCursor"]}


@pytest.mark.parametrize("hints", [PUBLIC, {}])
@pytest.mark.parametrize("tools_each", [1, 7, 30, 1_001])
def test_a_list_of_many_backends_is_whole_and_in_order_however_it_is_paged(tools_each, hints):
    names, asked, _ = read_list(tools_each, **hints)
    assert names == [f"{naming.prefix}{number}" for naming in MANY for number in range(tools_each)]
    assert len(asked) == -(-len(MANY) * tools_each // LIST_PAGE_ITEMS)
    used_by_a_page = LIST_PAGE_ITEMS // tools_each + 2
    assert max(asked) <= max(AT_ONCE, 2 * used_by_a_page), "however far the reader has come"


def test_a_page_asks_no_more_backends_than_it_takes():
    _, asked, _ = read_list(30, **PUBLIC)
    assert asked[0] == AT_ONCE
    _, asked, _ = read_list(1, **PUBLIC)
    assert asked == [len(MANY)], "all of them, where they have little"


def test_a_backend_that_is_away_is_told_of_on_the_page_where_it_is_missing():
    scene = Scene(ListAll, *MANY, message=request("tools/list"))
    scene.fail(scene.call_to("b3"), "upstream_timeout", replica="b3#0", fate=Fate.TIMED_OUT)
    for call in scene.open:
        scene.answer(call, tools(*map(str, range(30))))
    assert scene.sink.result["_meta"][MISSING_BACKENDS] == {"b3": "upstream_timeout"}
    assert len(names_of(scene)) == LIST_PAGE_ITEMS


def test_where_those_that_were_asked_are_away_the_others_are_asked():
    scene = Scene(ListAll, *MANY, message=request("tools/list"))
    for call in scene.open:
        scene.fail(call, "upstream_timeout", replica=f"{call.backend}#0", fate=Fate.TIMED_OUT)
    assert {call.backend for call in scene.open} == {naming.backend for naming in MANY[AT_ONCE:]}
    for call in scene.open:
        scene.answer(call, tools("x"))
    assert names_of(scene) == [f"{naming.prefix}x" for naming in MANY[AT_ONCE:]]


def test_a_cursor_to_a_backend_that_is_gone_is_refused():
    scene = listing(message=request("tools/list", cursor=list_cursor(("gone", 3))))
    assert not scene.desk.sent
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "invalid_params"
    scene.assert_over()


def test_a_list_that_may_be_too_long_to_be_shown_is_gathered_whole():
    scene = Scene(ListTools, *MANY, message=request("tools/list"))
    assert len(scene.open) == AT_ONCE
    scene = Scene(ListTools, *MANY, message=request("tools/list"), searched_list=SearchedList(1, []))
    assert len(scene.open) == len(MANY)
