"""Which conversation serves which exchange."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.conversations.conversation_choice import conversation_for
from mcp_gateway.actors.conversations.gathering import Discover, ListAll, ListTasks, SetLevel
from mcp_gateway.actors.conversations.listening import Listen, ListenAlone
from mcp_gateway.actors.conversations.relay import RelayList, RelayRequest
from mcp_gateway.actors.conversations.session_opening import OpenSession
from mcp_gateway.actors.conversations.session_stream import SessionStream
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.recording_desk import ALONE, FILES, LEGACY, MAIL, MODERN, Scene, encoded, request, session_at


def chosen(method: str, *namings, revision: str = MODERN, endpoint: str = "") -> Scene:
    message = request(method, name="files__a") if method != "initialize" else request(method, **{"protocolVersion": LEGACY})
    return Scene(conversation_for, *namings, message=message, revision=revision, endpoint=endpoint)


@pytest.mark.parametrize(
    ("method", "merged", "alone"),
    [
        ("tools/list", ListAll, RelayList),
        ("prompts/list", ListAll, RelayList),
        ("resources/list", ListAll, RelayList),
        ("resources/templates/list", ListAll, RelayList),
        ("server/discover", Discover, RelayRequest),
        ("tasks/list", ListTasks, RelayList),
        ("logging/setLevel", SetLevel, RelayRequest),
        ("subscriptions/listen", Listen, ListenAlone),
        ("tools/call", RelayRequest, RelayRequest),
        ("resources/subscribe", RelayRequest, RelayRequest),
        ("no/such", RelayRequest, RelayRequest),
    ],
)
def test_the_merged_server_gathers_and_a_single_backend_is_relayed(method, merged, alone):
    assert type(chosen(method, FILES, MAIL).conversation) is merged
    assert type(chosen(method, FILES).conversation) is merged, "one backend that has a prefix is still renamed"
    assert type(chosen(method, ALONE).conversation) is alone
    assert type(chosen(method, FILES, MAIL, endpoint="mail").conversation) is alone


def test_a_call_to_the_merged_server_is_routed_by_its_name():
    assert [call.backend for call in chosen("tools/call", FILES, MAIL).desk.sent] == [""]
    assert [call.backend for call in chosen("tools/call", FILES, MAIL, endpoint="mail").desk.sent] == ["mail"]


DECLARED = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}


def about_task(task_id: str, *namings, revision: str = MODERN, endpoint: str = "", meta=DECLARED) -> Scene:
    message = request("tasks/get", taskId=task_id, _meta=meta)
    return Scene(conversation_for, *namings, message=message, revision=revision, endpoint=endpoint, user="")


def test_a_request_about_a_task_goes_to_the_server_that_its_id_names():
    assert [call.backend for call in about_task("mail/T1", FILES, MAIL).desk.sent] == ["mail"]
    assert [call.backend for call in about_task("mail/T1", FILES, MAIL, endpoint="mail").desk.sent] == ["mail"]


def test_an_id_that_we_have_not_made_is_one_of_the_only_server():
    assert [call.backend for call in about_task("T1", ALONE).desk.sent] == ["files"]
    assert [call.backend for call in about_task("T1", FILES, MAIL, endpoint="mail").desk.sent] == ["mail"]


@pytest.mark.parametrize(
    ("task_id", "how", "reason"),
    [
        ("T1", {}, "invalid_params"),
        ("T1", {"meta": {}}, "missing_capability"),
        ("T1", {"meta": {}, "revision": LEGACY}, "invalid_params"),
        ("news/T1", {}, "invalid_params"),
        ("mail/T1", {"endpoint": "files"}, "invalid_params"),
    ],
)
def test_a_task_of_nobody_here_is_refused(task_id, how, reason):
    """Source: SEP-2663, "Protocol Errors"; MCP 2025-11-25, basic/utilities/tasks, the same."""
    with pytest.raises(Refused) as caught:
        about_task(task_id, FILES, MAIL, **how)
    assert (caught.value.reason, caught.value.request_id) == (reason, b"7")


@pytest.mark.parametrize("namings", [(ALONE,), (FILES, MAIL)])
def test_a_client_that_is_known_has_no_task_by_the_servers_own_id(namings):
    """Attack: the id of somebody else's task, where ids are the server's own."""
    message = request("tasks/get", taskId="T1", _meta=DECLARED)
    endpoint = "" if namings == (ALONE,) else "mail"
    with pytest.raises(Refused, match="there is no task"):
        Scene(conversation_for, *namings, message=message, revision=MODERN, endpoint=endpoint, principal="https://id.example ann")


def test_a_client_that_is_known_hears_of_its_own_tasks_alone():
    """Attack: a subscription to the task of somebody else, by the server's own id or by one of ours."""
    for shown in ("T1", "files/T1"):
        message = request("subscriptions/listen", notifications={"taskIds": [shown]}, _meta=DECLARED)
        assert Scene(conversation_for, ALONE, message=message, revision=MODERN).desk.sent
        with pytest.raises(Refused, match="there is no task"):
            Scene(conversation_for, ALONE, message=message, revision=MODERN, principal="https://id.example ann")


def test_a_task_of_somebody_else_is_refused_like_one_that_is_not_there():
    with pytest.raises(Refused, match="there is no task"):
        Scene(conversation_for, FILES, MAIL, message=request("tasks/get", taskId="mail/T1", _meta=DECLARED), revision=MODERN)


def test_a_handshake_opens_a_session_in_legacy_revisions_only():
    assert type(chosen("initialize", FILES, MAIL, revision=LEGACY).conversation) is OpenSession
    assert type(chosen("initialize", ALONE, revision=LEGACY).conversation) is OpenSession
    assert type(chosen("initialize", ALONE, revision=MODERN).conversation) is RelayRequest


def test_no_backend_is_a_refusal_with_the_id_of_the_request():
    with pytest.raises(Refused) as caught:
        chosen("tools/list")
    assert (caught.value.reason, caught.value.request_id) == ("no_backend", b"7")


def test_an_endpoint_without_a_backend_is_refused_whatever_the_client_did():
    """Ours, as the contract says: 503 `no_backend`."""
    for kind, message in ((RequestKind.REQUEST, request("tools/list")), (RequestKind.STREAM, None)):
        with pytest.raises(Refused, match="no backend 'nobody'") as caught:
            Scene(conversation_for, FILES, endpoint="nobody", kind=kind, message=message)
        assert caught.value.request_id == (b"7" if message is not None else None)


def said(message, *namings, kind: RequestKind | None = None, endpoint: str = "", backends=("files", "mail")) -> Scene:
    return Scene(conversation_for, *namings, message=message, kind=kind, endpoint=endpoint, session=session_at(*backends))


def told(scene: Scene) -> list[tuple[str, object, RequestKind]]:
    return [(call.backend, call.message, call.kind) for call in scene.desk.sent]


def test_a_notification_is_for_all_servers_of_the_session_and_for_nobody_without_one():
    cancelled = Notification("notifications/cancelled", b'{"requestId":1}')
    assert told(said(cancelled, FILES, MAIL)) == [(name, cancelled, RequestKind.MESSAGE) for name in ("files", "mail")]
    assert told(Scene(conversation_for, FILES, MAIL, message=cancelled)) == []


def test_a_stream_and_the_end_of_a_session_are_for_all_of_its_servers():
    assert type(said(None, FILES, MAIL, kind=RequestKind.STREAM).conversation) is SessionStream
    terminated = told(said(None, FILES, MAIL, kind=RequestKind.TERMINATE))
    assert terminated == [(name, None, RequestKind.TERMINATE) for name in ("files", "mail")]


@pytest.mark.parametrize(
    ("endpoint", "namings", "backends"),
    [("", (FILES, MAIL), ("files", "mail")), ("", (ALONE,), ("files",)), ("files", (ALONE,), ("files",))],
)
def test_a_response_is_for_the_server_that_asked_this_session_and_for_nobody_else(endpoint, namings, backends):
    """A session may not answer what another one was asked, a server that it has not, or what nobody has asked."""
    answered = Response(encoded(f"key/{backends[-1]}/5"), b"{}", b"")
    assert told(said(answered, *namings, endpoint=endpoint, backends=backends)) == [
        (backends[-1], Response(b"5", b"{}", b""), RequestKind.MESSAGE)
    ]
    for unknown in ("5", "other/files/5", "key/other/5", "files:5"):
        with pytest.raises(Refused, match="answers no request of this session"):
            said(Response(encoded(unknown), b"{}", b""), *namings, endpoint=endpoint, backends=backends)


def test_an_answer_to_a_question_of_a_session_that_was_lost_answers_nothing_of_the_next():
    """The server has forgotten what it asked, and may ask something else under the same id."""
    answered = Response(encoded("key/files/0"), b"{}", b"")
    reopened = session_at("files", replica="#1")
    with pytest.raises(Refused, match="as it is now"):
        Scene(conversation_for, FILES, MAIL, message=answered, session=reopened)


def test_a_request_that_is_sent_as_a_notification_reaches_no_server() -> None:
    for message in (Notification("tools/call", b'{"name":"files__a"}'), Notification("x", b"")):
        with pytest.raises(Refused, match="is no notification"):
            Scene(conversation_for, FILES, message=message, revision=LEGACY, session=session_at("files"))
