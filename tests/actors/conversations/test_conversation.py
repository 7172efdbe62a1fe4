"""What conversations share: names of events and requests towards the client, and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.conversations.conversation import inner_response, may_go_elsewhere, outer_event_id, outer_message
from mcp_gateway.actors.messages.calls import CallFailed
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.merging.naming import Naming
from tests.doubles.recording_desk import FILES, encoded

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)
ids = (st.text() | st.integers(-(2**80), 2**80)).map(encoded)


@settings(deadline=None)
@given(names, ids)
def test_the_clients_response_reaches_the_server_that_asked_with_its_own_id(backend, request_id):
    """Several servers may use the same id at once, and an id may be a string or an integer."""
    shown = jsonrpc.decode(outer_message(Naming(backend, "p__"), Request(request_id, "roots/list", b"")))
    assert isinstance(shown, Request)
    answered = inner_response(Response(shown.id, b"{}", b""))
    assert answered is not None
    assert answered[0] == backend
    assert jsonrpc.id_value(answered[1].id) == jsonrpc.id_value(request_id)


@settings(deadline=None)
@given(st.none() | st.integers() | st.text() | st.text().map(lambda text: f"files:{text}"))
def test_any_response_id_is_understood_or_is_nobodys(shown):
    answered = inner_response(Response(encoded(shown), b"{}", b""))
    if answered is not None:
        assert isinstance(shown, str)
        jsonrpc.id_value(answered[1].id)


@pytest.mark.parametrize(
    "shown", [b"null", b"5", b'""', b'"files"', b'"files:"', b'"files:x"', b'"files:null"', b'"files:1.5"', b"[]", b"9" * 400]
)
def test_an_id_that_is_none_of_ours_answers_nobody(shown):
    assert inner_response(Response(shown, b"{}", b"")) is None


def test_messages_of_a_backend_that_stands_alone_keep_their_bytes():
    for message in (
        Request(b"5", "roots/list", b'{"a": 1}'),
        Notification("n", b'{"uri": "file:///a"}'),
        Response(b"5", b"{}", b""),
    ):
        assert jsonrpc.decode(outer_message(None, message)) == message
    assert outer_message(None, None) == b""


def test_notifications_are_renamed_and_responses_left_alone():
    updated = json.loads(outer_message(FILES, Notification("notifications/resources/updated", b'{"uri":"file:///a"}')))
    assert updated["params"] == {"uri": "files+file:///a"}
    assert jsonrpc.decode(outer_message(FILES, Response(b"5", b"{}", b""))) == Response(b"5", b"{}", b"")


@pytest.mark.parametrize(
    ("naming", "event_id", "outer"), [(None, "e", "e"), (FILES, "e", "files:e"), (FILES, None, None), (None, None, None)]
)
def test_event_ids_name_their_backend_where_there_are_several(naming, event_id, outer):
    assert outer_event_id(naming, event_id) == outer


@pytest.mark.parametrize(
    ("replica", "fate", "excluded", "may"),
    [
        ("r", Fate.UNREACHABLE, "", True),
        ("r", Fate.TURNED_AWAY, "ab", True),
        ("r", Fate.UNREACHABLE, "abc", False),
        ("r", Fate.UNREACHABLE, "ar", False),
        ("r", Fate.BROKEN, "", False),
        ("r", Fate.SESSION_LOST, "", False),
        ("", Fate.UNREACHABLE, "", False),
    ],
)
def test_only_what_no_server_has_seen_goes_elsewhere_and_only_so_often(replica, fate, excluded, may):
    failure = CallFailed(call_id=1, why=Failure(fate, ""), replica=replica)
    assert may_go_elsewhere(failure, frozenset(excluded)) is may


def test_a_question_that_is_taken_back_is_named_as_the_client_knows_it() -> None:
    """Source: MCP 2025-11-25, basic/utilities/cancellation: only requests issued in the same direction are named."""
    for request_id in (b"5", b'"a"'):
        asked = json.loads(outer_message(FILES, Request(request_id, "elicitation/create", b"{}")))
        params = b'{"requestId":%b,"reason":"over"}' % request_id
        taken_back = json.loads(outer_message(FILES, Notification("notifications/cancelled", params)))
        assert taken_back["params"] == {"requestId": asked["id"], "reason": "over"}
    for unreadable in (b"", b"{}", b"[]", b"{"):
        assert b"notifications/cancelled" in outer_message(FILES, Notification("notifications/cancelled", unreadable))
