"""What a client says without a question is passed on and acknowledged."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.conversations.telling import TellServers
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification
from mcp_gateway.transports.protocol.sealed.session import UpstreamSession
from tests.doubles.recording_desk import FILES, MAIL, Scene, session_at

CANCELLED = Notification("notifications/cancelled", b'{"requestId":1}')
LOST = {"replica": "files#0", "fate": Fate.SESSION_LOST}


def telling(*backends: str, kind: RequestKind = RequestKind.MESSAGE) -> Scene:
    message = CANCELLED if kind is RequestKind.MESSAGE else None
    return Scene(
        TellServers,
        FILES,
        MAIL,
        message=message,
        session=session_at("files", "mail"),
        kind=RequestKind.MESSAGE if message else RequestKind.TERMINATE,
        arguments=([(backend, message) for backend in backends], kind),
    )


def test_a_notification_reaches_every_backend_and_is_accepted_once():
    """Source: MCP 2025-11-25, basic/transports, "Sending Messages": 202 without a body."""
    scene = telling("files", "mail")
    assert [(call.backend, call.message, call.kind) for call in scene.desk.sent] == [
        ("files", CANCELLED, RequestKind.MESSAGE),
        ("mail", CANCELLED, RequestKind.MESSAGE),
    ]
    scene.answer(scene.call_to("mail"), has_response=False, status=202)
    assert not scene.sink.is_over
    scene.answer(scene.call_to("files"), has_response=False, status=202)
    assert (scene.sink.status, scene.sink.body) == (202, b"")
    scene.assert_over()


def test_nobody_to_tell_is_accepted_at_once():
    scene = telling()
    assert scene.sink.status == 202
    scene.assert_over()


def test_one_backend_that_accepts_is_enough():
    scene = telling("files", "mail")
    scene.fail(scene.call_to("files"), fate=Fate.BROKEN)
    scene.answer(scene.call_to("mail"), has_response=False)
    assert scene.sink.status == 202
    scene.assert_over()


def test_nobody_accepts_and_the_failure_is_told():
    scene = telling("files", "mail")
    for backend in ("mail", "files"):
        scene.fail(scene.call_to(backend), "upstream_timeout", fate=Fate.TIMED_OUT)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("upstream_timeout", None)
    scene.assert_over()


def test_a_session_that_the_server_forgot_is_no_failure_of_a_notification():
    """The next request opens it again; there is nothing left to cancel or to answer at that server."""
    scene = telling("files")
    scene.fail(scene.last, "session_not_found", **LOST)
    assert scene.sink.status == 202
    scene.assert_over()


def test_an_answer_follows_its_session_to_where_another_cell_has_opened_it_again():
    """That is where the server asks now; this cell learns of it when the old session is not known any more."""
    scene = telling("files", "mail")
    scene.desk.renew_session(scene.exchange.session, UpstreamSession("files", "files#1", "new", "2025-11-25"))
    scene.answer(scene.call_to("mail"), has_response=False)
    scene.fail(scene.call_to("files"), "session_not_found", **LOST)
    again = scene.call_to("files")
    assert (again.message, again.session.upstream("files").session_id) == (CANCELLED, "new")
    scene.fail(again, "session_not_found", **LOST)
    assert scene.sink.status == 202, "once is enough"
    scene.assert_over()


def test_each_of_several_backends_is_told_again_where_its_session_was_opened_again():
    scene = telling("files", "mail")
    for backend in ("files", "mail"):
        upstream = UpstreamSession(backend, f"{backend}#1", "new", "2025-11-25")
        scene.desk.renew_session(scene.desk.use_session(scene.exchange.session), upstream)
    for backend in ("files", "mail"):
        scene.fail(scene.call_to(backend), "session_not_found", **LOST)
    for backend in ("files", "mail"):
        assert scene.call_to(backend).session.upstream(backend).session_id == "new"
        scene.answer(scene.call_to(backend), has_response=False)
    assert scene.sink.status == 202
    scene.assert_over()


def test_a_farewell_reaches_the_backend_that_another_cell_has_opened_since():
    session = session_at("files")

    def make(exchange, sink, desk, *arguments):
        desk.renew_session(session, UpstreamSession("mail", "mail#0", "late", "2025-11-25"))
        return TellServers(exchange, sink, desk, *arguments)

    told = [("files", None)], RequestKind.TERMINATE
    scene = Scene(make, FILES, MAIL, session=session, kind=RequestKind.TERMINATE, arguments=told)
    assert {call.backend for call in scene.open} == {"files", "mail"}


def test_a_farewell_reaches_the_session_that_another_cell_has_opened_again():
    session = session_at("files", "mail")

    def make(exchange, sink, desk, *arguments):
        desk.renew_session(session, UpstreamSession("files", "files#1", "new", "2025-11-25"))
        return TellServers(exchange, sink, desk, *arguments)

    told = [("files", None)], RequestKind.TERMINATE
    scene = Scene(make, FILES, MAIL, session=session, kind=RequestKind.TERMINATE, arguments=told)
    assert scene.last.session.upstream("files").session_id == "new"


@pytest.mark.parametrize("way", ["answered", "failed", "lost"])
def test_a_session_ends_here_whatever_its_servers_say(way):
    scene = telling("files", "mail", kind=RequestKind.TERMINATE)
    assert scene.desk.ended == ["key"]
    assert {(call.kind, call.message) for call in scene.desk.sent} == {(RequestKind.TERMINATE, None)}
    for backend in ("mail", "files"):
        if way == "answered":
            scene.answer(scene.call_to(backend), has_response=False)
        else:
            scene.fail(scene.call_to(backend), **(LOST if way == "lost" else {"fate": Fate.BROKEN}))
    assert (scene.sink.status, scene.sink.body) == (200, b"")
    scene.assert_over()


@pytest.mark.parametrize("kind", [RequestKind.MESSAGE, RequestKind.TERMINATE])
@pytest.mark.parametrize("way", ["client_gone", "expired"])
def test_an_end_cancels_what_is_open(kind, way):
    scene = telling("files", "mail", kind=kind)
    getattr(scene.conversation, way)()
    assert scene.desk.cancelled == [1, 2]
    scene.assert_over(client_is_there=way != "client_gone")


@pytest.mark.parametrize("cells_know_first", [True, False])
def test_the_end_of_a_session_is_acknowledged_when_every_cell_knows_it(cells_know_first):
    """Else the client could go on with it in another one, which would be a session that nobody ends."""
    scene = Scene(
        TellServers,
        FILES,
        session=session_at("files"),
        kind=RequestKind.TERMINATE,
        arguments=([], RequestKind.TERMINATE),
        has_other_cells=True,
    )
    ((_, told),) = scene.desk.retries
    steps = [lambda: scene.conversation.delay_passed(told), lambda: scene.answer(scene.last, has_response=False)]
    for step in steps if cells_know_first else reversed(steps):
        assert not scene.sink.is_over
        step()
    assert scene.sink.status == 200
    scene.assert_over()
