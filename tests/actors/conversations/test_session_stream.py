"""The GET stream of a session. Source: MCP 2025-11-25, basic/transports, "Listening for Messages from the Server"."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.conversations.held_changes import CHANGE_WINDOW_S
from mcp_gateway.actors.conversations.session_stream import SessionStream
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from tests.doubles.recording_desk import ALONE, FILES, MAIL, Scene, session_at

LOGGED = Notification("notifications/message", b'{"level":"info","data":"x"}')
CHANGED = Notification("notifications/tools/list_changed", b"")


def streaming(*namings, last_event_id: str | None = None, endpoint: str = "", session: SessionState | None = None) -> Scene:
    namings = namings or (FILES, MAIL)
    backends = [endpoint] if endpoint else [naming.backend for naming in namings]
    return Scene(
        SessionStream,
        *namings,
        session=session or session_at(*backends),
        kind=RequestKind.STREAM,
        deadline_s=float("inf"),
        last_event_id=last_event_id,
        endpoint=endpoint,
    )


def test_the_stream_begins_at_once_and_listens_to_every_backend():
    scene = streaming()
    assert scene.sink.begun == 1
    assert [(call.backend, call.kind, call.message, call.deadline_s) for call in scene.desk.sent] == [
        ("files", RequestKind.STREAM, None, float("inf")),
        ("mail", RequestKind.STREAM, None, float("inf")),
    ]


def test_what_servers_say_arrives_with_ids_that_name_them():
    scene = streaming()
    scene.event(scene.call_to("mail"), CHANGED, "m1")
    scene.event(scene.call_to("files"), None, "f1")
    scene.event(scene.call_to("files"), Request(b"5", "roots/list", b""))
    (changed, changed_id), (primed, primed_id), (asked, asked_id) = scene.sink.events
    assert (changed["method"], changed_id) == (CHANGED.method, "mail:m1")
    assert (primed, primed_id) == (None, "files:f1")
    assert (asked["id"], asked_id) == ("key/files/5", None)


def test_a_single_backend_keeps_the_ids_of_its_events_and_asks_under_ids_of_ours():
    scene = streaming(ALONE)
    scene.event(scene.last, Request(b"5", "roots/list", b""), "f1")
    assert scene.sink.events == [({"jsonrpc": "2.0", "id": "key/files/5", "method": "roots/list"}, "f1")]


@pytest.mark.parametrize(
    ("last_event_id", "resumed"),
    [
        (None, {"files": None, "mail": None}),
        ("mail:a:b", {"files": None, "mail": "a:b"}),
        ("gone:1", {"files": None, "mail": None}),
        ("", {"files": None, "mail": None}),
    ],
)
def test_a_broken_stream_resumes_at_the_backend_whose_event_came_last(last_event_id, resumed):
    scene = streaming(last_event_id=last_event_id)
    assert {call.backend: call.last_event_id for call in scene.desk.sent} == resumed


@pytest.mark.parametrize(("namings", "endpoint"), [((ALONE,), ""), ((FILES, MAIL), "files")])
def test_a_single_backend_resumes_at_its_own_id(namings, endpoint):
    scene = streaming(*namings, last_event_id="mail:7", endpoint=endpoint)
    assert [call.last_event_id for call in scene.desk.sent] == ["mail:7"]


@pytest.mark.parametrize("way", ["ended", "failed"])
def test_a_stream_that_a_server_ends_is_opened_again_after_a_pause_at_its_own_last_event(way):
    scene = streaming()
    scene.event(scene.call_to("files"), CHANGED, "f1")
    scene.event(scene.call_to("mail"), CHANGED, "m1")
    scene.event(scene.call_to("mail"), CHANGED)
    if way == "ended":
        scene.answer(scene.call_to("mail"), has_response=False)
    else:
        scene.fail(scene.call_to("mail"), fate=Fate.BROKEN)
    assert [call.backend for call in scene.open] == ["files"]
    assert scene.desk.retries[-1] == (SessionStream.RETRY_S, "mail")
    scene.conversation.delay_passed("mail")
    assert scene.call_to("mail").last_event_id == "m1"
    assert not scene.sink.is_over
    assert scene.sink.begun == 1


def test_a_server_that_offers_no_stream_is_not_asked_again():
    """405: "the server does not offer an SSE stream at this endpoint"."""
    scene = streaming()
    for backend in ("files", "mail"):
        scene.fail(scene.call_to(backend), "unknown_method", fate=Fate.BROKEN)
    assert scene.desk.retries == []
    assert not scene.sink.is_over
    scene.conversation.client_gone()
    scene.assert_over(client_is_there=False)


def test_a_stream_that_is_opened_again_is_that_of_the_repaired_session():
    scene = streaming()
    assert scene.exchange.session is not None
    scene.desk.renew_session(scene.exchange.session, UpstreamSession("mail", "mail#1", "new", "2025-06-18"))
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    session = scene.call_to("mail").session
    assert session is not None
    assert session.upstream("mail") == UpstreamSession("mail", "mail#1", "new", "2025-06-18")


def test_the_stream_of_an_ended_session_ends():
    scene = streaming()
    scene.desk.ended.append("key")
    scene.answer(scene.call_to("mail"), has_response=False)
    scene.conversation.delay_passed("mail")
    assert scene.desk.cancelled == [1]
    scene.assert_over()


CHANGES = ["tools", "prompts", "resources"]


def told_changes(scene: Scene) -> list[str]:
    return [event["method"].split("/")[1] for event, _ in scene.sink.events]


def test_a_backend_that_is_added_is_listened_to_and_the_client_asks_for_the_lists_again():
    scene = streaming(FILES)
    scene.desk.configure(FILES, MAIL)
    scene.conversation.backends_changed()
    assert told_changes(scene) == CHANGES
    assert scene.desk.retries[0] == (0.0, "mail")
    scene.conversation.delay_passed("mail")
    # The session was never opened there: the router says so, and the stream opens it.
    scene.fail(scene.call_to("mail"), fate=Fate.SESSION_LOST)
    assert (scene.call_to("mail").method, scene.call_to("mail").opens_session) == ("initialize", True)
    # A second change within the window is said once more at its end.
    scene.conversation.backends_changed()
    assert told_changes(scene) == CHANGES
    scene.conversation.delay_passed(CHANGED.method)
    assert told_changes(scene) == [*CHANGES, "tools"]
    assert [retry for retry in scene.desk.retries if retry[1] == "mail"] == [(0.0, "mail")]


def test_a_backend_that_was_away_when_the_session_began_is_listened_to_as_soon_as_it_is_there():
    scene = streaming(FILES, session=session_at("files"))
    assert scene.desk.retries == []
    scene = streaming(FILES, MAIL, session=session_at("files"))
    assert scene.desk.retries == [(SessionStream.RETRY_S, "mail")]
    scene.conversation.delay_passed("mail")
    scene.fail(scene.call_to("mail"), fate=Fate.SESSION_LOST)
    scene.answer(scene.call_to("mail"), {"protocolVersion": "2025-11-25"}, session_id="new")
    assert told_changes(scene) == []
    scene.answer(scene.call_to("mail"), has_response=False)
    assert scene.call_to("mail").kind is RequestKind.STREAM
    assert told_changes(scene) == CHANGES, "its lists are news to the client"


def test_a_server_that_does_not_open_the_session_is_asked_less_and_less_often():
    scene = streaming(FILES, MAIL, session=session_at("files"))
    for _ in range(6):
        scene.conversation.delay_passed("mail")
        scene.fail(scene.call_to("mail"), fate=Fate.SESSION_LOST)
        scene.answer(scene.call_to("mail"), error={"code": -1, "message": "no"})
    assert [delay_s for delay_s, _ in scene.desk.retries] == [1.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def repaired(scene: Scene) -> None:
    """The stream is told that its session at mail is lost, and opens it again."""
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    scene.answer(scene.call_to("mail"), {"protocolVersion": "2025-11-25"}, session_id=f"new{len(scene.desk.sent)}")
    scene.answer(scene.call_to("mail"), has_response=False)


def test_a_server_that_opens_sessions_and_knows_none_of_them_is_asked_less_and_less_often():
    scene = streaming()
    repaired(scene)
    assert (scene.call_to("mail").kind, scene.desk.retries) == (RequestKind.STREAM, []), "the first time at once"
    for _ in range(5):
        repaired(scene)
        scene.conversation.delay_passed("mail")
    assert [delay_s for delay_s, _ in scene.desk.retries] == [1.0, 2.0, 4.0, 8.0, 10.0]
    scene.event(scene.call_to("mail"), CHANGED)
    repaired(scene)
    assert scene.call_to("mail").kind is RequestKind.STREAM
    assert not [delay_s for delay_s, backend in scene.desk.retries[5:] if backend == "mail"], "it was there: at once again"


def test_a_backend_that_was_away_for_long_is_listened_to_as_soon_as_it_opens_the_session():
    scene = streaming(FILES, MAIL, session=session_at("files"))
    for _ in range(6):
        scene.conversation.delay_passed("mail")
        scene.fail(scene.call_to("mail"), fate=Fate.SESSION_LOST)
        scene.fail(scene.call_to("mail"), fate=Fate.UNREACHABLE)
    scene.conversation.delay_passed("mail")
    repaired(scene)
    assert scene.call_to("mail").kind is RequestKind.STREAM
    assert told_changes(scene) == CHANGES


def test_what_a_repair_itself_hears_is_no_sign_of_life():
    """A server may answer each POST with a primed stream, and no GET."""
    scene = streaming()
    for _ in range(3):
        scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
        scene.event(scene.call_to("mail"), None, "primed")
        scene.answer(scene.call_to("mail"), {"protocolVersion": "2025-11-25"}, session_id=f"new{len(scene.desk.sent)}")
        scene.answer(scene.call_to("mail"), has_response=False)
        if scene.desk.retries:
            scene.conversation.delay_passed("mail")
    assert scene.desk.retries == [(1.0, "mail"), (2.0, "mail")]
    assert scene.call_to("mail").last_event_id is None


def test_a_stream_follows_its_session_when_a_request_has_opened_it_again():
    scene = streaming()
    scene.event(scene.call_to("mail"), CHANGED, "m1")
    before = scene.call_to("mail")
    session = scene.desk.renew_session(scene.exchange.session, UpstreamSession("mail", "mail#1", "new", "2025-11-25"))
    scene.conversation.session_renewed(session)
    assert scene.desk.cancelled == [before.call_id]
    listening = scene.call_to("mail")
    assert (listening.session.upstream("mail").replica, listening.last_event_id) == ("mail#1", None)
    scene.conversation.session_renewed(session)
    assert scene.desk.cancelled == [before.call_id], "it is there already"


@pytest.mark.parametrize("way", ["lost", "failed", "waiting"])
def test_a_backend_that_is_removed_is_not_asked_again_until_it_comes_back(way):
    scene = streaming()
    if way == "waiting":
        scene.fail(scene.call_to("mail"))
    scene.desk.configure(FILES)
    scene.conversation.backends_changed()
    if way == "waiting":
        scene.conversation.delay_passed("mail")
    else:
        scene.fail(scene.call_to("mail"), fate=Fate.SESSION_LOST if way == "lost" else Fate.UNREACHABLE)
    assert [call.backend for call in scene.open] == ["files"]
    assert told_changes(scene) == CHANGES
    assert not scene.sink.is_over
    scene.desk.configure(FILES, MAIL)
    scene.conversation.backends_changed()
    assert scene.desk.retries[-1] == (0.0, "mail")


def test_the_stream_of_one_backend_hears_of_no_other():
    scene = streaming(FILES, MAIL, endpoint="files")
    scene.desk.configure(FILES)
    scene.conversation.backends_changed()
    assert (scene.sink.events, scene.desk.retries) == ([], [])


def test_credit_goes_back_to_the_server_whose_event_was_taken():
    scene = streaming()
    files, mail = scene.call_to("files"), scene.call_to("mail")
    for call in (files, mail, mail, files):
        scene.event(call, LOGGED)
    scene.conversation.flushed(1)
    assert scene.desk.grants == [("upstream of files", files.call_id, 1)]
    scene.conversation.flushed(3)
    assert sorted(scene.desk.grants[1:]) == [("upstream of files", files.call_id, 1), ("upstream of mail", mail.call_id, 2)]


@pytest.mark.parametrize("way", ["client_gone", "end"])
def test_an_end_cancels_what_is_open(way):
    scene = streaming()
    getattr(scene.conversation, way)()
    assert scene.desk.cancelled == [1, 2]
    scene.assert_over(client_is_there=way != "client_gone")


def test_a_pause_that_ends_after_the_client_has_gone_opens_nothing():
    scene = streaming()
    scene.answer(scene.call_to("mail"), has_response=False)
    scene.conversation.client_gone()
    scene.conversation.delay_passed("mail")
    scene.assert_over(client_is_there=False)


def test_a_session_that_the_server_has_lost_is_opened_again_for_a_client_that_only_listens():
    """Nobody else would find it out: without requests there is no other repair."""
    scene = streaming()
    assert scene.exchange.session is not None
    scene.desk.note_facts(scene.exchange.session, "mail", "resources/subscribe", b'{"uri":"mail:1"}')
    scene.event(scene.call_to("mail"), CHANGED, "m1")
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    opening = scene.call_to("mail")
    assert (opening.method, opening.opens_session) == ("initialize", True)
    scene.answer(opening, {"protocolVersion": "2025-11-25"}, session_id="new")
    assert scene.call_to("mail").method == "notifications/initialized"
    scene.answer(scene.call_to("mail"), has_response=False)
    assert scene.call_to("mail").method == "resources/subscribe"
    scene.answer(scene.call_to("mail"), {})
    listening = scene.call_to("mail")
    assert (listening.kind, listening.last_event_id) == (RequestKind.STREAM, None)
    assert listening.session is not None
    upstream = listening.session.upstream("mail")
    assert upstream is not None
    assert upstream.session_id == "new"
    assert not scene.sink.is_over


@pytest.mark.parametrize("way", ["refused", "unreachable"])
def test_a_session_that_cannot_be_opened_again_now_is_tried_again_later(way):
    scene = streaming()
    scene.fail(scene.call_to("mail"), "session_not_found", fate=Fate.SESSION_LOST)
    if way == "refused":
        scene.answer(scene.call_to("mail"), error={"code": -1, "message": "no"})
    else:
        scene.fail(scene.call_to("mail"), fate=Fate.UNREACHABLE)
    assert scene.desk.retries[-1] == (SessionStream.RETRY_S, "mail")


def test_what_several_servers_say_at_once_is_said_once_now_and_once_more_for_all_that_followed():
    scene = streaming()
    for backend in ("files", "mail", "files"):
        scene.event(scene.call_to(backend), CHANGED)
    assert scene.desk.retries == [(CHANGE_WINDOW_S, CHANGED.method)]
    assert len(scene.sink.events) == 1
    # Those that were kept count as read: their servers go on.
    assert [grant[1:] for grant in scene.desk.grants] == [(2, 1), (1, 1)]
    scene.conversation.delay_passed(CHANGED.method)
    assert len(scene.sink.events) == 2
    scene.conversation.delay_passed(CHANGED.method)
    scene.event(scene.call_to("mail"), CHANGED)
    assert len(scene.sink.events) == 3  # the window had passed with nothing in it: news are told at once again


def test_one_server_alone_is_passed_on_as_it_speaks():
    scene = streaming(ALONE)
    for _ in range(3):
        scene.event(scene.call_to("files"), CHANGED)
    assert len(scene.sink.events) == 3
    assert scene.desk.retries == []
