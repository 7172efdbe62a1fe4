"""What conversations share: names of events and requests towards the client, and back."""

from __future__ import annotations

import json

import pytest

from mcp_gateway.actors.conversations.conversation import may_go_elsewhere, outer_event_id, outer_message
from mcp_gateway.actors.messages.calls import CallFailed
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from tests.doubles.recording_desk import FILES, encoded


def outer_id(request_id: bytes) -> bytes:
    return encoded(f"ours {request_id.decode()}")


@pytest.mark.parametrize("naming", [None, FILES])
def test_what_a_server_asks_has_an_id_of_ours(naming):
    for request_id in (b"5", b'"a"'):
        shown = jsonrpc.decode(outer_message(naming, Request(request_id, "roots/list", b'{"a": 1}'), outer_id))
        assert shown == Request(outer_id(request_id), "roots/list", b'{"a": 1}')


def test_what_a_backend_that_stands_alone_says_else_keeps_its_bytes():
    for message in (Notification("n", b'{"uri": "file:///a"}'), Response(b"5", b"{}", b"")):
        assert jsonrpc.decode(outer_message(None, message, outer_id)) == message
    assert outer_message(None, None, outer_id) == b""


def test_notifications_are_renamed_and_responses_left_alone():
    updated = json.loads(outer_message(FILES, Notification("notifications/resources/updated", b'{"uri":"file:///a"}'), outer_id))
    assert updated["params"] == {"uri": "files+file:///a"}
    assert jsonrpc.decode(outer_message(FILES, Response(b"5", b"{}", b""), outer_id)) == Response(b"5", b"{}", b"")


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


@pytest.mark.parametrize("naming", [None, FILES])
def test_a_question_that_is_taken_back_is_named_as_the_client_knows_it(naming) -> None:
    """Source: MCP 2025-11-25, basic/utilities/cancellation: only requests issued in the same direction are named."""
    for request_id in (b"5", b'"a"'):
        asked = json.loads(outer_message(naming, Request(request_id, "elicitation/create", b"{}"), outer_id))
        params = b'{"requestId":%b,"reason":"over"}' % request_id
        taken_back = json.loads(outer_message(naming, Notification("notifications/cancelled", params), outer_id))
        assert taken_back["params"] == {"requestId": asked["id"], "reason": "over"}
    for unreadable in (b"", b"{}", b"[]", b"{"):
        said = Notification("notifications/cancelled", unreadable)
        assert b"notifications/cancelled" in outer_message(naming, said, outer_id)
