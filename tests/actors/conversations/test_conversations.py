"""Every kind of conversation under any sequence of outcomes: ends once, answers once, leaves no call open, never raises."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.conversations.gathering import Discover, ListAll, SetLevel
from mcp_gateway.actors.conversations.listening import Listen, ListenAlone
from mcp_gateway.actors.conversations.relay import RelayRequest
from mcp_gateway.actors.conversations.session_opening import OpenSession
from mcp_gateway.actors.conversations.session_stream import SessionStream
from mcp_gateway.actors.conversations.telling import TellServers
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS
from tests.doubles.recording_desk import ALONE, FILES, INITIALIZE, LEGACY, MAIL, MODERN, Scene, request, session_at

SESSION = session_at("files", "mail")
CANCELLED = Notification("notifications/cancelled", b"{}")
OPENING = Request(b"1", "initialize", INITIALIZE)
# {name: (class, namings, everything else)}
KINDS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "relay": (RelayRequest, (ALONE,), {"message": request("tools/call", name="a"), "revision": MODERN, "arguments": ("files",)}),
    "relay in a session": (
        RelayRequest,
        (FILES, MAIL),
        {"message": request("tools/call", name="files__a"), "session": SESSION, "arguments": ("",)},
    ),
    "open": (OpenSession, (FILES, MAIL), {"message": OPENING}),
    "open alone": (OpenSession, (ALONE,), {"message": OPENING}),
    "list": (ListAll, (FILES, MAIL), {"message": request("tools/list"), "revision": MODERN}),
    "discover": (Discover, (FILES, MAIL), {"message": request("server/discover"), "revision": MODERN}),
    "set level": (SetLevel, (FILES, MAIL), {"message": request("logging/setLevel", level="info"), "session": SESSION}),
    "tell": (
        TellServers,
        (FILES, MAIL),
        {
            "message": CANCELLED,
            "session": SESSION,
            "arguments": ([("files", CANCELLED), ("mail", CANCELLED)], RequestKind.MESSAGE),
        },
    ),
    "terminate": (
        TellServers,
        (FILES, MAIL),
        {
            "session": SESSION,
            "kind": RequestKind.TERMINATE,
            "arguments": ([("files", None), ("mail", None)], RequestKind.TERMINATE),
        },
    ),
    "session stream": (SessionStream, (FILES, MAIL), {"session": SESSION, "kind": RequestKind.STREAM}),
    "listen": (Listen, (FILES, MAIL), {"message": request("subscriptions/listen", notifications={}), "revision": MODERN}),
    "listen alone": (
        ListenAlone,
        (ALONE,),
        {"message": request("subscriptions/listen"), "revision": MODERN, "arguments": ("files", RequestKind.STREAM)},
    ),
}
OPEN_ENDED = {"session stream", "listen"}

json_objects = st.sampled_from(
    [
        b"{}",
        b'{"protocolVersion":"2025-06-18","capabilities":{"tools":{}}}',
        b'{"protocolVersion":7}',
        b'{"capabilities":7,"instructions":[]}',
        b'{"tools":[{"name":"a"}],"nextCursor":"x"}',
        b'{"tools":[{"name":"a"}]}',
        b'{"tools":7}',
        b'{"tools":[{}],"nextCursor":{}}',
        b'{"ttlMs":1e999}',
        b'{"contents":[{"uri":"file:///a","size":%b}]}' % (b"9" * 5_000),
        b'{"a":"resource_link","content":' + b'{"content":' * 900 + b"1" + b"}" * 901,
    ]
)
events = st.sampled_from(
    [
        None,
        Notification("notifications/progress", b"{}"),
        Notification("notifications/resources/updated", b'{"uri":7}'),
        Notification("notifications/subscriptions/acknowledged", b'{"notifications":{"toolsListChanged":true}}'),
        Notification("notifications/subscriptions/acknowledged", b'{"notifications":[]}'),
        Request(b"1", "roots/list", b""),
    ]
)
outcomes = st.one_of(
    st.tuples(st.just("answer"), st.fixed_dictionaries({"raw": json_objects})),
    st.tuples(st.just("answer"), st.fixed_dictionaries({"error": st.sampled_from([{"code": -32601}, {"code": 1}, {}])})),
    st.tuples(st.just("answer"), st.just({"has_response": False})),
    st.tuples(
        st.just("fail"),
        st.fixed_dictionaries(
            {
                "reason": st.sampled_from(sorted(REFUSALS)),
                "replica": st.sampled_from(["", "files#0", "files#1", "files#2"]),
                "fate": st.sampled_from(Fate),
                "error": st.sampled_from([b"", b'{"code":1}']),
            }
        ),
    ),
)
steps = st.one_of(
    outcomes,
    st.tuples(st.just("event"), st.tuples(events, st.none() | st.just("e1"))),
    st.tuples(st.just("flushed"), st.integers(1, 3)),
    st.tuples(st.just("retry"), st.none()),
)
ends = st.sampled_from(["client_gone", "expired", "end", ""])


def play(scene: Scene, step: tuple[str, Any], choice: int) -> None:
    """One step, for one of the open calls."""
    what, how = step
    if what == "flushed":
        scene.conversation.flushed(how)
    elif what == "retry":
        while scene.desk.retries and not scene.desk.finished:
            scene.conversation.delay_passed(scene.desk.retries.pop()[1])
    elif scene.open:
        call = scene.open[choice % len(scene.open)]
        if what == "answer":
            scene.answer(call, **how)
        elif what == "fail":
            scene.fail(call, **how)
        else:
            scene.event(call, *how)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(steps, st.integers(0, 5)), max_size=25), ends, st.booleans())
def test_any_sequence_of_outcomes_ends_an_exchange_once(kind, played, way, takes_events):
    conversation_class, namings, rest = KINDS[kind]
    scene = Scene(conversation_class, *namings, **{"revision": LEGACY, "takes_events": takes_events, **rest})
    for step, choice in played:
        if scene.desk.finished:
            break
        play(scene, step, choice)
        assert scene.sink.is_over == bool(scene.desk.finished)
    if not scene.desk.finished and kind not in OPEN_ENDED:
        assert scene.open, "an exchange that waits for nobody"
    if not scene.desk.finished and way:
        getattr(scene.conversation, way)()
    if scene.desk.finished:
        scene.assert_over(client_is_there=scene.sink.is_over)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OPEN_ENDED])
@settings(max_examples=40, deadline=None)
@given(st.lists(outcomes, min_size=1, max_size=8), st.integers(0, 5))
def test_an_exchange_ends_when_every_call_has_an_outcome(kind, script, choice):
    """A bound on the calls of one exchange: the pages of two backends, or the attempts of one call."""
    conversation_class, namings, rest = KINDS[kind]
    scene = Scene(conversation_class, *namings, **{"revision": LEGACY, **rest})
    number = 0
    while not scene.desk.finished:
        assert scene.open
        assert number < 2 * (ListAll.MAX_PAGES + 5)
        play(scene, script[number % len(script)], choice)
        number += 1
    scene.assert_over()
