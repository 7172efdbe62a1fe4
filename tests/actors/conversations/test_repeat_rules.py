"""A request whose connection broke: sent again only where that is provably safe, with a session that knows what it knew."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.actors.conversations.relay import RelayRequest
from mcp_gateway.actors.conversations.repeat_rules import MAX_PAGES
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION, SessionFacts, SessionState, UpstreamSession
from tests.doubles.recording_desk import ALONE, FILES, INITIALIZE, MAIL, MODERN, Scene, request, session_at

CUT = {"fate": Fate.CUT, "replica": "files#0"}
LOST = {"fate": Fate.SESSION_LOST, "replica": "files#0"}
OPENED = {"protocolVersion": "2025-11-25"}


def relay(message: Any = None, *namings: Any, **rest: Any) -> Scene:
    message = message or request("tools/call", name="a")
    return Scene(RelayRequest, *(namings or (ALONE,)), message=message, arguments=("" if namings else "files",), **rest)


def tools(*named: str, **annotations: bool) -> dict[str, Any]:
    return {"tools": [{"name": name, "annotations": annotations} for name in named]}


def assert_refused_as_perhaps_run(scene: Scene) -> None:
    assert scene.sink.refused is not None
    assert scene.sink.refused.reason == "upstream_failed"
    assert scene.sink.refused.text.endswith("may have run and was NOT run again")
    scene.assert_over()


@pytest.mark.parametrize("hint", ["readOnlyHint", "idempotentHint"])
@pytest.mark.parametrize("session", [None, session_at("files")])
def test_a_tool_that_its_server_calls_repeatable_is_called_again_once(hint: str, session: Any) -> None:
    """Source: MCP 2025-11-25, schema, ToolAnnotations."""
    scene = relay(session=session)
    scene.fail(scene.last, **CUT)
    assert scene.last.method == "tools/list"
    scene.answer(scene.last, tools("b", "a", **{hint: True}))
    assert scene.last.message == scene.exchange.message
    scene.fail(scene.last, **CUT)
    assert_refused_as_perhaps_run(scene)
    assert [call.method for call in scene.desk.sent] == ["tools/call", "tools/list", "tools/call"]


@pytest.mark.parametrize(
    "answer",
    [
        {"result": tools("a")},
        {"result": tools("a", destructiveHint=False)},
        {"result": tools("b", readOnlyHint=True)},
        {"raw": b'{"tools":1}'},
        {"error": {"code": -1, "message": "m"}},
    ],
)
def test_a_tool_that_is_not_known_to_be_repeatable_is_not_called_again(answer: dict[str, Any]) -> None:
    scene = relay()
    scene.fail(scene.last, **CUT)
    scene.answer(scene.last, **answer)
    assert_refused_as_perhaps_run(scene)


def test_a_server_that_stays_away_leaves_the_reason_of_the_first_failure() -> None:
    scene = relay()
    scene.fail(scene.last, **CUT)
    scene.fail(scene.last, fate=Fate.BROKEN)
    assert_refused_as_perhaps_run(scene)


def test_the_tool_is_looked_for_on_every_page_up_to_the_bound() -> None:
    scene = relay()
    scene.fail(scene.last, **CUT)
    for number in range(MAX_PAGES - 1):
        scene.answer(scene.last, {**tools("b"), "nextCursor": str(number)})
        assert scene.last.params == {"cursor": str(number)}
    scene.answer(scene.last, {**tools("b"), "nextCursor": "more"})
    assert_refused_as_perhaps_run(scene)


def test_a_tool_of_the_merged_server_is_looked_up_by_its_own_name() -> None:
    scene = relay(request("tools/call", name="files__a"), FILES, MAIL)
    scene.fail(scene.last, backend="files", **CUT)
    assert scene.last.backend == "files"
    scene.answer(scene.last, tools("a", readOnlyHint=True))
    assert scene.last.params == {"name": "files__a"}


def test_the_look_up_says_who_asks_as_the_call_did() -> None:
    scene = relay(request("tools/call", name="a", _meta={"x": 1, "progressToken": 2}), revision=MODERN)
    scene.fail(scene.last, **CUT)
    assert scene.last.params == {"_meta": {"x": 1}}


@pytest.mark.parametrize("method", ["resources/read", "prompts/get", "completion/complete", "tools/list"])
def test_what_only_reads_is_asked_again_at_once(method: str) -> None:
    scene = relay(request(method, uri="a:b"))
    scene.fail(scene.last, **CUT)
    assert scene.last.message == scene.exchange.message
    scene.answer(scene.last, {})
    scene.assert_over()


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        (request("tools/call", name="a", requestState="s"), CUT),
        (request("resources/read", uri="a:b", requestState="s"), CUT),
        (request("something/else"), CUT),
        (request("tools/call", name="a"), {"fate": Fate.BROKEN, "replica": "files#0"}),
        (request("tools/call", name="a"), {"fate": Fate.TIMED_OUT, "reason": "upstream_timeout"}),
    ],
)
def test_nothing_else_is_sent_again(message: Any, failure: dict[str, Any]) -> None:
    """Not a retry that goes on with a parked call, nor an unknown method, nor what was answered, or may yet be."""
    scene = relay(message)
    scene.fail(scene.last, failure.get("reason", "upstream_failed"), **{k: v for k, v in failure.items() if k != "reason"})
    assert len(scene.desk.sent) == 1
    scene.assert_over()


def test_a_call_whose_progress_was_shown_is_not_begun_again() -> None:
    scene = relay()
    scene.event(scene.last, Notification("notifications/progress", b"{}"))
    scene.fail(scene.last, **CUT)
    assert len(scene.desk.sent) == 1
    assert_refused_as_perhaps_run(scene)


def test_what_only_reads_goes_to_another_replica_where_one_gives_no_answer_and_no_further() -> None:
    broken = {"fate": Fate.BROKEN, "text": "it sent 500"}
    scene = relay(request("resources/read", uri="a:b"), revision=MODERN)
    scene.fail(scene.last, replica="files#0", **broken)
    assert (scene.last.message, scene.last.excluded) == (scene.exchange.message, {"files#0"})
    scene.fail(scene.last, replica="files#1", **broken)
    assert len(scene.desk.sent) == 2
    assert scene.sink.refused is not None
    assert scene.sink.refused.text == "it sent 500"
    scene.assert_over()


def test_an_answer_that_is_none_is_what_its_client_reads_where_there_is_no_other_replica() -> None:
    scene = relay(request("resources/read", uri="a:b"), revision=MODERN)
    scene.fail(scene.last, replica="files#0", fate=Fate.BROKEN, text="it sent 500")
    scene.fail(scene.last, fate=Fate.TURNED_AWAY, text="no replica could be reached")
    assert scene.sink.refused is not None
    assert scene.sink.refused.text == "it sent 500"


def test_a_session_stays_with_a_replica_that_gave_no_answer() -> None:
    scene = relay(request("resources/read", uri="a:b"), session=session_at("files"))
    scene.fail(scene.last, replica="files#0", fate=Fate.BROKEN)
    assert len(scene.desk.sent) == 1
    scene.assert_over()


@pytest.mark.parametrize("message", [request("tools/call", name="a"), request("resources/read", uri="a:b")])
@pytest.mark.parametrize("fate", [Fate.CUT, Fate.BROKEN])
def test_nothing_is_sent_again_beyond_the_retry_budget(message: Any, fate: Fate) -> None:
    scene = relay(message)
    scene.desk.has_retries = False
    scene.fail(scene.last, fate=fate, replica="files#0")
    assert len(scene.desk.sent) == 1
    assert scene.sink.refused is not None
    scene.assert_over()


def test_only_what_a_server_may_have_seen_and_may_see_again_is_paid_for() -> None:
    scene = relay(request("resources/read", uri="a:b"), revision=MODERN)
    scene.fail(scene.last, replica="files#0")
    assert scene.desk.paid_retries == []
    scene.fail(scene.last, **CUT)
    assert scene.desk.paid_retries == ["files"]
    scene.answer(scene.last, {})


# ---- sessions


def test_a_restarted_server_is_told_what_its_session_held_before_the_call_is_made_again() -> None:
    facts = SessionFacts("error", (("files", "file:///a"), ("mail", "mail:1")))
    upstreams = (UpstreamSession("files", "files#0", "old", "2025-11-25"), UpstreamSession("mail", "mail#0", "m", "2025-11-25"))
    session = SessionState("key", "", "2025-11-25", "", INITIALIZE, upstreams, facts)
    scene = relay(request("tools/call", name="files__a"), FILES, MAIL, session=session)
    scene.fail(scene.last, backend="files", **CUT)
    scene.fail(scene.last, "session_not_found", backend="files", **LOST)
    assert (scene.last.method, scene.last.message.params) == ("initialize", INITIALIZE)  # type: ignore[union-attr]
    scene.answer(scene.last, OPENED, session_id="new")
    assert scene.last.method == "notifications/initialized"
    scene.answer(scene.last, has_response=False)
    restoring = scene.open
    assert [(call.method, call.params) for call in restoring] == [
        ("logging/setLevel", {"level": "error"}),
        ("resources/subscribe", {"uri": "files+file:///a"}),
    ]
    scene.answer(restoring[0], {}, backend="files")
    scene.fail(restoring[1], backend="files", fate=Fate.BROKEN)
    assert scene.last.method == "tools/list"
    scene.answer(scene.last, tools("a", idempotentHint=True))
    assert scene.last.method == "tools/call"
    assert scene.last.session is not None
    upstream = scene.last.session.upstream("files")
    assert upstream is not None
    assert upstream.session_id == "new"
    scene.answer(scene.last, {"content": []}, backend="files")
    scene.assert_over()


def test_a_session_that_another_exchange_has_repaired_is_used_as_it_is() -> None:
    scene = relay(session=session_at("files"))
    assert scene.exchange.session is not None
    scene.desk.renew_session(scene.exchange.session, UpstreamSession("files", "files#0", "new", "2025-11-25"))
    scene.fail(scene.last, "session_not_found", **LOST)
    assert scene.last.message == scene.exchange.message
    assert scene.last.session is not None
    upstream = scene.last.session.upstream("files")
    assert upstream is not None
    assert upstream.session_id == "new"


def test_a_session_that_another_exchange_has_repaired_and_that_is_lost_again_is_opened_once_more() -> None:
    """Another cell may have repaired it long ago: its process has been put to sleep since."""
    scene = relay(session=session_at("files"))
    assert scene.exchange.session is not None
    scene.desk.renew_session(scene.exchange.session, UpstreamSession("files", "files#0", "new", "2025-11-25"))
    scene.fail(scene.last, "session_not_found", **LOST)
    scene.fail(scene.last, "session_not_found", **LOST)
    assert scene.last.method == "initialize"
    scene.answer(scene.last, OPENED, session_id="newest")
    scene.answer(scene.last, has_response=False)
    scene.fail(scene.last, "session_not_found", **LOST)
    assert scene.sink.refused is not None, "and no further"
    scene.assert_over()


def test_of_two_repairs_at_once_the_first_counts_and_the_other_session_is_ended() -> None:
    scene = relay(session=session_at("files"))
    assert scene.exchange.session is not None
    scene.fail(scene.last, "session_not_found", **LOST)
    scene.desk.renew_session(scene.exchange.session, UpstreamSession("files", "files#0", "first", "2025-11-25"))
    scene.answer(scene.last, OPENED, session_id="second")
    assert scene.desk.dismissed == ["second"]
    assert scene.last.method == "tools/call"
    assert scene.last.session is not None
    assert [each.session_id for each in scene.last.session.upstreams] == ["first"]
    scene.answer(scene.last, {"content": []}, backend="files")
    assert scene.sink.result == {"content": []}
    scene.assert_over()


def test_a_session_that_the_bridge_gave_to_two_repairs_at_once_is_not_ended() -> None:
    upstream = UpstreamSession("files", "files#0", BRIDGED_SESSION + "cell/1", "2026-07-28")
    scene = relay(session=SessionState("key", "", "2025-11-25", "", INITIALIZE, (upstream,), SessionFacts()))
    assert scene.exchange.session is not None
    scene.fail(scene.last, "session_not_found", **LOST)
    opened = UpstreamSession("files", "files#0", BRIDGED_SESSION + "cell/0", "2025-11-25")
    scene.desk.renew_session(scene.exchange.session, opened)
    scene.answer(scene.last, OPENED, session_id=BRIDGED_SESSION + "cell/0")
    assert scene.desk.dismissed == []
    assert scene.last.message == scene.exchange.message


def test_a_session_that_the_bridge_keeps_needs_no_telling() -> None:
    upstream = UpstreamSession("files", "files#0", BRIDGED_SESSION + "cell/1", "2026-07-28")
    session = SessionState("key", "", "2025-11-25", "", INITIALIZE, (upstream,), SessionFacts("error"))
    scene = relay(session=session)
    scene.fail(scene.last, replica="files#0", fate=Fate.UNREACHABLE)
    scene.answer(scene.last, OPENED, session_id=BRIDGED_SESSION + "cell/0")
    scene.answer(scene.last, has_response=False)
    assert scene.last.message == scene.exchange.message


@pytest.mark.parametrize(
    ("method", "params", "facts"),
    [
        ("logging/setLevel", {"level": "error"}, SessionFacts("error")),
        ("resources/subscribe", {"uri": "files+file:///a"}, SessionFacts(None, (("files", "file:///a"),))),
    ],
)
def test_what_a_server_has_accepted_is_kept(method: str, params: dict[str, Any], facts: SessionFacts) -> None:
    scene = relay(request(method, **params), FILES, MAIL, session=session_at("files", "mail"))
    scene.answer(scene.last, {}, backend="files")
    assert scene.exchange.session is not None
    assert scene.desk.use_session(scene.exchange.session).facts == facts
    refused = relay(request(method, **params), FILES, MAIL, session=session_at("files", "mail"))
    refused.answer(refused.last, error={"code": -1, "message": "no"}, backend="files")
    assert refused.exchange.session is not None
    assert refused.desk.use_session(refused.exchange.session).facts == SessionFacts()


def test_an_answer_says_nothing_of_the_repair() -> None:
    scene = relay(session=session_at("files"))
    scene.fail(scene.last, **CUT)
    scene.answer(scene.last, tools("a", readOnlyHint=True))
    scene.answer(scene.last, {"content": []})
    assert json.loads(scene.sink.body) == {"jsonrpc": "2.0", "id": 7, "result": {"content": []}}
