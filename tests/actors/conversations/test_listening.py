"""`subscriptions/listen` of several backends. Source: MCP 2026-07-28, basic/patterns/subscriptions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.actors.conversations.conversation import MAX_ATTEMPTS
from mcp_gateway.actors.conversations.listening import Listen, ListenAlone
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.merging.naming import Naming
from tests.doubles.recording_desk import ALONE, FILES, MAIL, MODERN, Scene, encoded, request

ID = "io.modelcontextprotocol/subscriptionId"
GRACEFUL = {"jsonrpc": "2.0", "id": 7, "result": {"resultType": "complete", "_meta": {ID: 7}}}
CHANGED = Notification("notifications/tools/list_changed", encoded({"_meta": {ID: 7}}))


DECLARED = {"io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}


def listening(*, user: str = "", meta: Any = DECLARED, **wanted: Any) -> Scene:
    message = request("subscriptions/listen", notifications=wanted or {"toolsListChanged": True}, _meta=meta)
    return Scene(Listen, FILES, MAIL, message=message, revision=MODERN, deadline_s=float("inf"), user=user)


def acknowledge(scene: Scene, backend: str, params: Any = None, **honoured: Any) -> None:
    params = {"_meta": {ID: 7}, "notifications": honoured} if params is None else params
    scene.event(scene.call_to(backend), Notification("notifications/subscriptions/acknowledged", encoded(params)))


def acknowledgment(**honoured: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {"_meta": {ID: 7}, "notifications": honoured},
    }


def test_each_backend_is_asked_for_its_own_resources_by_its_own_uris():
    scene = listening(toolsListChanged=True, resourceSubscriptions=["files+file:///a", "mail+imap://b", "file:///nobody's"])
    assert [(call.kind, call.deadline_s) for call in scene.desk.sent] == [(RequestKind.STREAM, float("inf"))] * 2
    assert scene.call_to("files").params["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["file:///a"]}
    assert scene.call_to("mail").params["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["imap://b"]}


def test_the_acknowledgment_comes_first_and_names_what_any_server_honours():
    """ "Acknowledgment": the first message of the stream; unsupported types are omitted."""
    scene = listening(toolsListChanged=True, promptsListChanged=True, resourceSubscriptions=["files+file:///a", "mail+imap://b"])
    scene.event(scene.call_to("mail"), CHANGED)
    acknowledge(scene, "files", toolsListChanged=True, resourceSubscriptions=["file:///a"])
    scene.event(scene.call_to("files"), CHANGED)
    assert scene.sink.begun == 0
    acknowledge(scene, "mail", promptsListChanged=False, toolsListChanged=False, resourceSubscriptions=["imap://b"])
    first, *held = [event for event, _ in scene.sink.events]
    assert first == acknowledgment(
        toolsListChanged=True, resourceSubscriptions=["files+file:///a", "mail+imap://b"], promptsListChanged=False
    )
    # What both servers said meanwhile is said once now, and once more when the window of the first has passed.
    assert [event["method"] for event in held] == ["notifications/tools/list_changed"]
    scene.conversation.delay_passed(CHANGED.method)
    assert [event["method"] for event, _ in scene.sink.events[2:]] == ["notifications/tools/list_changed"]
    assert all(event["params"]["_meta"] == {ID: 7} for event in held)


def test_each_backend_is_asked_for_its_own_tasks_of_this_client():
    """Source: SEP-2663, "Task Status Notifications"; who is nobody's, or somebody else's, is not acknowledged."""
    scene = listening(taskIds=["files/T1", "mail/T2", "files/T3", "nobody's"], toolsListChanged=True)
    assert scene.call_to("files").params["notifications"] == {"toolsListChanged": True, "taskIds": ["files/T1", "files/T3"]}
    assert scene.call_to("mail").params["notifications"] == {"toolsListChanged": True, "taskIds": ["mail/T2"]}
    acknowledge(scene, "files", taskIds=["files/T1"])
    acknowledge(scene, "mail", taskIds=["mail/T2"])
    assert scene.sink.events[0][0] == acknowledgment(taskIds=["files/T1", "mail/T2"])
    assert "taskIds" not in listening(user="bob", taskIds=["files/T1"]).call_to("files").params["notifications"]


def test_tasks_are_told_to_those_who_have_declared_them():
    scene = listening(meta={}, taskIds=["files/T1"])
    assert (scene.sink.refused.reason, scene.sink.refused.code, scene.open) == ("missing_capability", -32021, [])


def test_updates_name_the_uri_of_the_merged_server():
    scene = listening()
    acknowledge(scene, "files")
    acknowledge(scene, "mail")
    scene.event(scene.call_to("mail"), Notification("notifications/resources/updated", encoded({"uri": "imap://b"})))
    assert scene.sink.events[-1][0]["params"] == {"uri": "mail+imap://b"}


NEWS = Naming("news", "news__")


def test_a_backend_that_is_added_is_asked_for_its_part_and_the_client_for_what_it_follows():
    scene = listening(toolsListChanged=True, resourceSubscriptions=["news+rss://a"])
    for backend in ("files", "mail"):
        acknowledge(scene, backend)
    scene.desk.configure(FILES, MAIL, NEWS)
    scene.conversation.backends_changed()
    assert [event for event, _ in scene.sink.events[1:]] == [json.loads(jsonrpc.encode(CHANGED))]
    assert (Listen.JOIN_S, "news") in scene.desk.retries
    scene.conversation.delay_passed("news")
    assert scene.call_to("news").params["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["rss://a"]}
    acknowledge(scene, "news")
    scene.event(scene.call_to("news"), Notification("notifications/resources/updated", encoded({"uri": "rss://a"})))
    assert scene.sink.events[-1][0]["params"] == {"uri": "news+rss://a"}


def test_a_subscription_outlives_the_removal_of_all_its_backends():
    scene = listening(toolsListChanged=True)
    for backend in ("files", "mail"):
        acknowledge(scene, backend)
    scene.desk.configure()
    scene.conversation.backends_changed()
    scene.fail(scene.call_to("files"), replica="files#0")
    scene.fail(scene.call_to("mail"), fate=Fate.BROKEN)
    assert (scene.open, scene.sink.is_over) == ([], False)
    scene.desk.configure(MAIL)
    scene.conversation.backends_changed()
    scene.conversation.delay_passed("mail")
    assert [call.backend for call in scene.open] == ["mail"]


def test_a_server_that_fails_does_not_keep_the_others_waiting():
    scene = listening()
    acknowledge(scene, "files", toolsListChanged=True)
    scene.fail(scene.call_to("mail"), "upstream_failed", fate=Fate.BROKEN)
    assert [event for event, _ in scene.sink.events] == [acknowledgment(toolsListChanged=True)]
    assert not scene.sink.is_over


def test_a_server_that_says_nothing_does_not_keep_the_others_waiting():
    scene = listening()
    acknowledge(scene, "files", toolsListChanged=True)
    assert scene.desk.retries == [(Listen.ACKNOWLEDGE_S, "")]
    scene.conversation.delay_passed("")
    assert [event for event, _ in scene.sink.events] == [acknowledgment(toolsListChanged=True)]
    acknowledge(scene, "mail", toolsListChanged=True)
    scene.event(scene.call_to("mail"), CHANGED)
    assert len(scene.sink.events) == 2, "its events are welcome all the same, a second acknowledgment is not"


def test_of_a_server_that_is_late_the_client_is_told_that_the_lists_have_changed():
    """As one that starts slowly is: the lists that the client has read go without it."""
    scene = listening(toolsListChanged=True, resourcesListChanged=False)
    acknowledge(scene, "files")
    scene.conversation.delay_passed("")
    assert [event for event, _ in scene.sink.events] == [acknowledgment(toolsListChanged=True)]
    acknowledge(scene, "mail")
    assert [event for event, _ in scene.sink.events[1:]] == [json.loads(jsonrpc.encode(CHANGED))]


def test_a_server_that_ends_after_others_have_acknowledged_loses_none_of_their_events():
    scene = listening()
    acknowledge(scene, "files", toolsListChanged=True)
    scene.event(scene.call_to("files"), CHANGED)
    scene.answer(scene.call_to("files"), {"resultType": "complete"})
    scene.fail(scene.call_to("mail"), fate=Fate.BROKEN)
    assert [event.get("method", "end") for event, _ in scene.sink.events] == [
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
        "end",
    ]
    scene.assert_over()


def begun() -> Scene:
    scene = listening()
    for backend in ("files", "mail"):
        acknowledge(scene, backend)
    return scene


def again(scene: Scene, backend: str = "mail") -> list[float]:
    return [delay_s for delay_s, cause in scene.desk.retries if cause == backend]


@pytest.mark.parametrize("ends", ["fails", "ends its part"])
def test_a_server_that_is_away_is_asked_again_and_when_it_listens_the_client_reads_that_lists_have_changed(ends):
    scene = begun()
    if ends == "fails":
        scene.fail(scene.call_to("mail"), replica="mail#0", fate=Fate.CUT)
    else:
        scene.answer(scene.call_to("mail"), {"resultType": "complete"})
    assert again(scene) == [Listen.AGAIN_S]
    scene.conversation.delay_passed("mail")
    assert scene.call_to("mail").excluded == frozenset(), "every replica may be well again"
    assert len(scene.sink.events) == 1
    acknowledge(scene, "mail", toolsListChanged=True)
    assert [event for event, _ in scene.sink.events[1:]] == [json.loads(jsonrpc.encode(CHANGED))]
    scene.event(scene.call_to("mail"), CHANGED)
    assert not scene.sink.is_over


def test_the_pauses_before_a_server_is_asked_again_grow_up_to_a_bound():
    scene = begun()
    for _ in range(6):
        scene.fail(scene.call_to("mail"), "circuit_open", replica="")
        scene.conversation.delay_passed("mail")
    assert again(scene) == [1.0, 2.0, 4.0, 8.0, Listen.LONGEST_AGAIN_S, Listen.LONGEST_AGAIN_S]


@pytest.mark.parametrize(
    "failure",
    [
        {"reason": "unknown_method"},
        {"reason": "invalid_params", "fate": Fate.ENDED},
        {"reason": "upstream_failed", "fate": Fate.REFUSED},
        {"reason": "unsupported_version", "fate": Fate.UNSUPPORTED},
    ],
)
def test_a_server_that_does_not_offer_it_is_not_asked_again(failure):
    scene = begun()
    scene.fail(scene.call_to("mail"), failure["reason"], **{"replica": "", **{k: v for k, v in failure.items() if k != "reason"}})
    assert again(scene) == []


def test_a_server_that_listens_already_or_was_removed_is_not_asked_twice():
    scene = begun()
    scene.conversation.delay_passed("mail")
    assert len(scene.open) == 2
    scene.fail(scene.call_to("mail"), fate=Fate.CUT)
    scene.desk.configure(FILES)
    scene.conversation.backends_changed()
    scene.conversation.delay_passed("mail")
    assert [call.backend for call in scene.open] == ["files"]


def test_the_stream_ends_gracefully_when_the_last_server_has_ended_its_part():
    """ "Graceful Closure": a successful response to the listen request, then the end."""
    scene = listening()
    for backend in ("files", "mail"):
        acknowledge(scene, backend)
    scene.answer(scene.call_to("files"), {"resultType": "complete"})
    assert not scene.sink.is_over
    scene.answer(scene.call_to("mail"), {"resultType": "complete"})
    assert scene.sink.events[-1][0] == GRACEFUL
    scene.assert_over()


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_drain_ends_it_gracefully(has_begun):
    scene = listening()
    if has_begun:
        for backend in ("files", "mail"):
            acknowledge(scene, backend)
    scene.conversation.end()
    assert (scene.sink.events[-1][0] if has_begun else json.loads(scene.sink.body)) == GRACEFUL
    assert scene.desk.cancelled == [1, 2]
    scene.assert_over()


def test_no_server_listens_and_the_failure_is_told():
    scene = listening()
    scene.fail(scene.call_to("files"), "circuit_open")
    scene.fail(scene.call_to("mail"), "unknown_method", fate=Fate.BROKEN)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.status, scene.sink.refused.request_id) == ("unknown_method", 404, b"7")
    scene.assert_over()


def test_a_replica_that_cannot_be_reached_is_followed_by_others_within_the_bound():
    scene = listening()
    acknowledge(scene, "files")
    for attempt in range(MAX_ATTEMPTS):
        call = scene.call_to("mail")
        assert call.excluded == {f"mail#{number}" for number in range(attempt)}
        scene.fail(call, replica=f"mail#{attempt}")
    assert scene.sink.begun == 1


@pytest.mark.parametrize(
    "notifications",
    [
        [],
        7,
        None,
        "x",
        {"resourceSubscriptions": "files+a"},
        {"resourceSubscriptions": [7]},
        {"resourceSubscriptions": {"a": 1}},
        {"resourceSubscriptions": None},
    ],
)
def test_what_is_no_filter_is_refused(notifications):
    message = request("subscriptions/listen", notifications=notifications)
    scene = Scene(Listen, FILES, MAIL, message=message, revision=MODERN)
    assert scene.sink.refused is not None
    assert (scene.sink.refused.reason, scene.sink.refused.request_id) == ("invalid_params", b"7")
    assert not scene.desk.sent
    scene.assert_over()


def test_numbers_beyond_any_range_in_a_filter_are_refused():
    message = Request(b"7", "subscriptions/listen", b'{"notifications":{"a":1e999}}')
    scene = Scene(Listen, FILES, MAIL, message=message, revision=MODERN)
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "invalid_params"
    scene.assert_over()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"notifications": 7},
        {"notifications": {"resourceSubscriptions": 7}},
        {"notifications": {"resourceSubscriptions": [None]}},
    ],
)
def test_an_acknowledgment_that_cannot_be_read_honours_nothing(params):
    scene = listening()
    acknowledge(scene, "files", params)
    acknowledge(scene, "mail", toolsListChanged=True)
    assert scene.sink.events == [(acknowledgment(toolsListChanged=True), None)]


def test_an_acknowledgment_without_params_honours_nothing():
    scene = listening()
    scene.event(scene.call_to("files"), Notification("notifications/subscriptions/acknowledged", b""))
    acknowledge(scene, "mail")
    assert scene.sink.events == [(acknowledgment(), None)]


def test_credit_goes_back_per_event_and_never_for_the_gateways_own():
    scene = listening()
    files, mail = scene.call_to("files"), scene.call_to("mail")
    scene.event(mail, CHANGED)
    acknowledge(scene, "files")
    acknowledge(scene, "mail")
    assert scene.desk.grants == [("upstream of files", files.call_id, 1), ("upstream of mail", mail.call_id, 1)]
    scene.conversation.flushed(1)  # the acknowledgment, which the gateway wrote
    assert len(scene.desk.grants) == 2
    scene.conversation.flushed(1)
    assert scene.desk.grants[2:] == [("upstream of mail", mail.call_id, 1)]


def test_requests_have_no_place_in_a_subscription():
    scene = listening()
    scene.event(scene.call_to("files"), Request(b"1", "roots/list", b""))
    scene.event(scene.call_to("files"), None, "e1")
    assert (scene.sink.begun, len(scene.desk.grants)) == (0, 2)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_goes_cancels_every_part(has_begun):
    scene = listening()
    if has_begun:
        for backend in ("files", "mail"):
            acknowledge(scene, backend)
    scene.conversation.client_gone()
    assert scene.desk.cancelled == [1, 2]
    scene.assert_over(client_is_there=False)


# ---- one backend


def alone() -> Scene:
    message = request("subscriptions/listen", notifications={})
    return Scene(
        ListenAlone, ALONE, message=message, revision=MODERN, deadline_s=float("inf"), arguments=("files", RequestKind.STREAM)
    )


def test_the_stream_of_one_server_is_relayed_as_it_is():
    scene = alone()
    acknowledge(scene, "files", toolsListChanged=True)
    scene.event(scene.last, CHANGED)
    scene.answer(scene.last, {"resultType": "complete", "_meta": {ID: 7}})
    assert [event.get("method", "end") for event, _ in scene.sink.events] == [
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
        "end",
    ]
    scene.assert_over()


def test_a_drain_ends_the_stream_of_one_server_gracefully():
    scene = alone()
    acknowledge(scene, "files")
    scene.conversation.end()
    assert scene.sink.events[-1][0] == GRACEFUL
    assert scene.desk.cancelled == [1]
    scene.assert_over()


def test_a_stream_that_breaks_ends_without_a_response():
    """ "a transport that closes without it indicates an unexpected disconnect"."""
    scene = alone()
    acknowledge(scene, "files")
    scene.answer(scene.last, has_response=False)
    assert len(scene.sink.events) == 1
    scene.assert_over()
