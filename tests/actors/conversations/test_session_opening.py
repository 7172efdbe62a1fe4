"""`initialize` at several backends: all, some or none of them open a session."""

from __future__ import annotations

import json

import pytest

from mcp_gateway.actors.conversations.conversation import MAX_ATTEMPTS
from mcp_gateway.actors.conversations.session_opening import OpenSession
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.session import MAX_ID_CHARACTERS, UpstreamSession
from tests.doubles.recording_desk import ALONE, FILES, INITIALIZE, LEGACY, MAIL, Scene

MESSAGE = Request(b'"i"', "initialize", INITIALIZE)


def opened(revision: str = LEGACY, **capabilities: object) -> dict[str, object]:
    return {"protocolVersion": revision, "capabilities": capabilities, "serverInfo": {"name": "s", "version": "1"}}


def opening(*namings, **rest) -> Scene:
    return Scene(OpenSession, *(namings or (FILES, MAIL)), message=MESSAGE, **rest)


def test_every_backend_is_asked_with_the_clients_own_parameters_and_a_deadline_of_its_own():
    scene = opening()
    assert [(call.backend, call.message, call.opens_session, call.deadline_s) for call in scene.desk.sent] == [
        ("files", MESSAGE, True, 5.0),
        ("mail", MESSAGE, True, 5.0),
    ]


def test_all_answer_and_are_sealed_into_one_session():
    """Source: MCP 2025-11-25, basic/transports, "Session Management": the id comes with the result of initialize."""
    scene = opening()
    scene.answer(scene.call_to("mail"), opened("2025-03-26", prompts={}), replica="mail#1", session_id=None)
    assert not scene.sink.is_over
    scene.answer(scene.call_to("files"), opened(tools={}), session_id="f1")
    assert scene.sink.headers == {"Mcp-Session-Id": "sealed"}
    assert json.loads(scene.sink.body)["id"] == "i"
    assert scene.sink.result["capabilities"] == {"tools": {}, "prompts": {}}
    assert scene.sink.result["protocolVersion"] == "2025-03-26", "what all of them understand"
    (state,) = scene.desk.issued
    assert (state.key, state.endpoint, state.revision, state.hash_key, state.initialize) == (
        "key",
        "",
        "2025-03-26",
        "ada",
        INITIALIZE,
    )
    assert state.holder == scene.exchange.hash_keys["ip"], "not of the user that it says it is"
    assert state.upstreams == (
        UpstreamSession("files", "files#0", "f1", LEGACY),
        UpstreamSession("mail", "mail#1", None, "2025-03-26"),
    )
    scene.assert_over()


def test_a_session_id_carries_what_servers_need_of_the_client_and_not_its_pictures():
    """An icon may be a data URI: the id would be larger than a header may be. The server that is asked now gets all of it."""
    told = {"name": "c", "title": "C", "version": "1"}
    shown = {**told, "icons": [{"src": "data:image/png;base64," + "A" * 60_000}], "websiteUrl": "http://c", "description": "d"}
    params = {"protocolVersion": LEGACY, "capabilities": {"roots": {}}, "clientInfo": shown, "_meta": {"x": "y" * 1_000}}
    message = Request(b"1", "initialize", json.dumps(params).encode())
    scene = Scene(OpenSession, ALONE, message=message)
    assert scene.desk.sent[0].message == message
    scene.answer(scene.call_to("files"), opened())
    (state,) = scene.desk.issued
    assert json.loads(state.initialize) == {"protocolVersion": LEGACY, "capabilities": {"roots": {}}, "clientInfo": told}


def test_what_no_session_has_room_for_is_refused_before_any_server_is_asked():
    params = {"protocolVersion": LEGACY, "capabilities": {"roots": "A" * 4_000_000}, "clientInfo": {"name": "c"}}
    with pytest.raises(Refused) as caught:
        Scene(OpenSession, FILES, MAIL, message=Request(b'"i"', "initialize", json.dumps(params).encode()))
    assert (caught.value.reason, caught.value.status, caught.value.request_id) == ("too_large", 413, b'"i"')


def test_a_session_that_cannot_be_kept_is_refused_and_ended_at_its_servers():
    scene = opening()
    scene.desk.issue_refusal = Refused("too_large", "why")
    for backend in ("files", "mail"):
        scene.answer(scene.call_to(backend), opened(), session_id=backend)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("too_large", b'"i"')
    assert scene.desk.dismissed == ["files", "mail"]
    scene.assert_over()


def test_a_server_whose_session_id_is_longer_than_ours_may_be_takes_no_part():
    for length, takes_part in ((MAX_ID_CHARACTERS, True), (MAX_ID_CHARACTERS + 1, False)):
        scene = opening()
        scene.answer(scene.call_to("files"), opened(), session_id="f" * length)
        scene.answer(scene.call_to("mail"), opened(), session_id="m")
        assert [each.backend for each in scene.desk.issued[0].upstreams] == ["files", "mail"][not takes_part :]
        scene.assert_over()


@pytest.mark.parametrize("way", ["failed", "error", "malformed", "unreadable", "no revision"])
def test_some_answer_and_the_session_is_theirs(way):
    scene = opening()
    scene.answer(scene.call_to("files"), opened(tools={}))
    mail = scene.call_to("mail")
    if way == "failed":
        scene.fail(mail, "upstream_timeout", fate=Fate.TIMED_OUT)
    elif way == "error":
        scene.answer(mail, error={"code": 1, "message": "no"})
    else:
        raw = {
            "malformed": b"{}",
            "unreadable": b'{"protocolVersion":"2025-06-18","instructions":{"a":1e999}}',
            "no revision": b'{"protocolVersion":7}',
        }[way]
        scene.answer(mail, raw=raw)
    assert scene.sink.result["capabilities"] == {"tools": {}}
    assert [each.backend for each in scene.desk.issued[0].upstreams] == ["files"]
    scene.assert_over()


def test_none_answers_and_the_first_failure_is_told():
    scene = opening()
    scene.fail(scene.call_to("mail"), "circuit_open", retry_after_s=3.0)
    scene.fail(scene.call_to("files"), "upstream_timeout", fate=Fate.TIMED_OUT)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("circuit_open", b'"i"')
    assert not scene.desk.issued
    scene.assert_over()


def starting(scene: Scene, backend: str) -> None:
    scene.fail(scene.call_to(backend), "upstream_timeout", fate=Fate.STARTING, replica=f"{backend}#0")


def test_while_nobody_has_opened_a_session_those_that_are_starting_are_waited_for_as_long_as_the_client_waits():
    scene = opening()
    scene.fail(scene.call_to("mail"), "no_backend")
    starting(scene, "files")
    assert [(call.backend, call.deadline_s, call.excluded) for call in scene.open] == [("files", None, frozenset())]
    scene.answer(scene.call_to("files"), opened(tools={}))
    assert scene.sink.result["capabilities"] == {"tools": {}}
    assert [each.backend for each in scene.desk.issued[0].upstreams] == ["files"]
    scene.assert_over()


def test_the_first_of_those_that_are_starting_ends_the_wait_for_the_others():
    scene = opening()
    starting(scene, "mail")
    starting(scene, "files")
    scene.answer(scene.call_to("mail"), opened())
    assert [each.backend for each in scene.desk.issued[0].upstreams] == ["mail"]
    assert scene.sink.result["capabilities"]["prompts"] == {"listChanged": True}, "it is told when the other has come"
    scene.assert_over()


def test_who_is_starting_is_not_waited_for_where_another_has_opened_a_session():
    scene = opening()
    starting(scene, "mail")
    scene.answer(scene.call_to("files"), opened())
    assert [each.backend for each in scene.desk.issued[0].upstreams] == ["files"]
    assert scene.sink.result["capabilities"]["prompts"] == {"listChanged": True}, "it is told when the other has come"
    scene.assert_over()


@pytest.mark.parametrize("namings", [(FILES, MAIL, Naming("news", "news__")), (ALONE,)])
def test_a_refusal_names_those_that_were_waited_for(namings):
    scene = opening(*namings)
    if len(namings) > 1:
        scene.fail(scene.call_to("news"), "no_backend")
        starting(scene, "mail")
        starting(scene, "files")
        starting(scene, "mail")
    starting(scene, "files")
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.text) == ("upstream_timeout", "; ".join(["why"] * min(2, len(namings))))
    assert scene.sink.refused.data["backend"] in ("mail", "files")
    scene.assert_over()


def test_an_error_of_a_server_is_told_before_failures():
    scene = opening()
    scene.fail(scene.call_to("files"), "upstream_timeout", fate=Fate.TIMED_OUT)
    scene.answer(scene.call_to("mail"), error={"code": -32602, "message": "no"}, status=400)
    assert (scene.sink.status, json.loads(scene.sink.body)["error"]["code"]) == (400, -32602)
    scene.assert_over()


def test_only_malformed_answers_are_a_failure():
    scene = opening()
    scene.answer(scene.call_to("files"), raw=b"{}")
    scene.answer(scene.call_to("mail"), has_response=False)
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "upstream_failed"
    scene.assert_over()


@pytest.mark.parametrize(("namings", "endpoint"), [((ALONE,), ""), ((FILES, MAIL), "files")])
def test_a_single_backend_answers_for_itself(namings, endpoint):
    scene = opening(*namings, endpoint=endpoint)
    assert [call.deadline_s for call in scene.desk.sent] == [None]
    scene.answer(scene.last, opened("2025-03-26", tools={"x": 1}), session_id="f1")
    assert scene.sink.result == opened("2025-03-26", tools={"x": 1})
    assert (scene.desk.issued[0].revision, scene.desk.issued[0].endpoint) == ("2025-03-26", endpoint)
    scene.assert_over()


def test_a_replica_that_cannot_be_reached_is_followed_by_others_within_the_bound():
    scene = opening()
    for attempt in range(MAX_ATTEMPTS):
        call = scene.call_to("files")
        assert call.excluded == {f"files#{number}" for number in range(attempt)}
        scene.fail(call, replica=f"files#{attempt}")
    assert [call.backend for call in scene.open] == ["mail"]
    scene.answer(scene.call_to("mail"), opened())
    assert [each.backend for each in scene.desk.issued[0].upstreams] == ["mail"]
    scene.assert_over()


@pytest.mark.parametrize("answered", [0, 1])
def test_a_client_that_goes_cancels_all_that_is_open(answered):
    scene = opening()
    if answered:
        scene.answer(scene.call_to("files"), opened())
    scene.conversation.client_gone()
    assert len(scene.desk.cancelled) == 2 - answered
    assert not scene.desk.issued
    scene.assert_over(client_is_there=False)


def test_an_opening_past_its_deadline_is_answered():
    scene = opening()
    scene.answer(scene.call_to("files"), opened())
    scene.conversation.expired()
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "upstream_timeout"
    scene.assert_over()


def test_capabilities_nested_near_the_limit_end_this_exchange_at_most():
    scene = opening()
    deep = b'{"protocolVersion":"2025-06-18","capabilities":' + b'{"a":' * 900 + b"1" + b"}" * 901
    scene.answer(scene.call_to("files"), raw=deep)
    scene.answer(scene.call_to("mail"), raw=deep)
    scene.assert_over()
