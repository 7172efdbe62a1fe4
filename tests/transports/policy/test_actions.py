"""What exchanges amount to: every way to a thing leads to its one name, and nothing that names something is passed over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.transports.policy.actions import Asked, Names, actions_of
from mcp_gateway.transports.policy.policies import Action
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming, route_target

MERGED = (Naming("files", "files__"), Naming("mail", "m_"))


def exchange(message: Message | None, endpoint: str = "", kind: RequestKind | None = None) -> Exchange:
    target = route_target(message.method, message.params, b"1") if isinstance(message, Request) else ""
    kind = kind or RequestKind.of(message)
    fields: dict[str, Any] = {"exchange_id": 1, "transport": "websocket", "revision": "2025-11-25", "deadline_s": 1.0}
    return Exchange(**fields, endpoint=endpoint, kind=kind, message=message, target=target)


def by_prefix(exchange: Exchange) -> str:
    """Stands in for the routes: a tool "alias" leads to files, too."""
    words = {"files__": "files", "files+": "files", "alias": "files", "m_": "mail", "mail+": "mail"}
    named = exchange.target.split("/", 2)[-1]
    return next((backend for word, backend in words.items() if named.startswith(word)), "")


def asked(method: str, params: dict[str, Any], endpoint: str = "", *, alone: bool = False) -> list[Asked]:
    names = Names((Naming("files", ""),) if alone else MERGED, by_prefix)
    return actions_of(exchange(Request(b"1", method, json.dumps(params).encode()), endpoint), names)


def named(method: str, params: dict[str, Any], endpoint: str = "", *, alone: bool = False) -> list[tuple[str, str, str, str]]:
    return [
        (each.action.backend, each.action.kind, each.action.name, each.action.own_name)
        for each in asked(method, params, endpoint, alone=alone)
        if not each.is_own
    ]


@pytest.mark.parametrize(
    ("shown", "endpoint"), [("files__read", ""), ("read", "files"), ("files__read", "files"), ("alias", ""), ("m_read", "mail")]
)
def test_a_tool_has_one_name_whichever_way_leads_to_it(shown: str, endpoint: str) -> None:
    """Also where a route leads to it by a name of its own, or a server calls its tool as the gateway would."""
    expected = {
        ("files__read", ""): ("files", "tool", "files__read", "read"),
        ("read", "files"): ("files", "tool", "files__read", "read"),
        ("files__read", "files"): ("files", "tool", "files__files__read", "files__read"),
        ("alias", ""): ("files", "tool", "files__alias", "alias"),
        ("m_read", "mail"): ("mail", "tool", "m_m_read", "m_read"),
    }
    assert named("tools/call", {"name": shown}, endpoint) == [expected[shown, endpoint]]


@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe", "resources/unsubscribe"])
@pytest.mark.parametrize("shown", ["files+file:///a", "files__file:///a"])
def test_a_resource_has_one_name_by_scheme_and_by_prefix(method: str, shown: str) -> None:
    assert named(method, {"uri": shown}) == [("files", "resource", "files+file:///a", "file:///a")]
    assert named(method, {"uri": "file:///a"}, "files") == [("files", "resource", "files+file:///a", "file:///a")]


def test_where_one_backend_stands_alone_names_are_its_own() -> None:
    assert named("tools/call", {"name": "read"}, alone=True) == [("files", "tool", "read", "read")]
    assert named("prompts/get", {"name": "ask"}, alone=True) == [("files", "prompt", "ask", "ask")]
    assert named("resources/read", {"uri": "a:b"}, alone=True) == [("files", "resource", "a:b", "a:b")]


def test_what_no_route_serves_keeps_the_name_that_the_client_gave_it() -> None:
    assert named("tools/call", {"name": "other"}) == [("", "tool", "other", "")]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"type": "ref/prompt", "name": "files__p"}, [("files", "prompt", "files__p", "p")]),
        ({"type": "ref/resource", "uri": "files+file:///a"}, [("files", "resource", "files+file:///a", "file:///a")]),
        ({"type": "ref/resource", "uri": "files+db://{t}"}, [("files", "template", "files+db://{t}", "db://{t}")]),
        (
            {"type": "ref/resource", "name": "files__p", "uri": "files+file:///a"},
            [("files", "prompt", "files__p", "p"), ("files", "resource", "files+file:///a", "file:///a")],
        ),
    ],
)
def test_a_completion_is_about_all_that_its_reference_names(reference: dict[str, str], expected: Any) -> None:
    """Attack: a prompt that is allowed beside a resource that is not, of which the server takes the one it likes."""
    assert named("completion/complete", {"ref": reference, "argument": {}}) == expected


def test_a_subscription_is_about_each_resource_that_it_names() -> None:
    params = {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["files+a:b", "mail+c:d", "x:y"]}}
    found = asked("subscriptions/listen", params)
    assert found[0] == Asked(
        Action(method="subscriptions/listen", params=json.dumps(params).encode()),
        is_own=True,
    )
    assert [(each.action.method, each.action.name, each.is_own) for each in found[1:]] == [
        ("resources/subscribe", "files+a:b", False),
        ("resources/subscribe", "mail+c:d", False),
    ]
    assert named("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["x:y"]}}, "files") == [
        ("files", "resource", "files+x:y", "x:y")
    ]


@pytest.mark.parametrize(
    ("method", "params"),
    [("tools/list", {}), ("tasks/list", {}), ("tasks/get", {"taskId": "t"}), ("logging/setLevel", {"level": "info"})],
)
def test_what_gives_nothing_new_is_asked_of_what_denies_only(method: str, params: dict[str, Any]) -> None:
    (found,) = asked(method, params)
    assert (found.is_own, found.action.kind, found.action.method) == (True, "", method)
    assert asked(method, params, "files")[0].action.backend == "files"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "files__read", "Name": "files__write"}),
        ("tools/call", {"name": "files__read", "argument\u017f": {"path": "/b"}}),
        ("prompts/get", {"name": "files__a", "NAME": "files__b"}),
        ("resources/read", {"uri": "files+a:b", "Uri": "files+c:d"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "files__p", "URI": "c:d"}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "files__p"}, "Ref": {"type": "ref/prompt", "name": "q"}}),
        ("subscriptions/listen", {"notifications": {"ResourceSubscriptions": ["files+a:b"]}}),
    ],
)
def test_a_member_that_is_nearly_one_of_those_decided_on_is_refused(method: str, params: dict[str, Any]) -> None:
    """Attack: servers in Go take "Name" for "name", and of both the last one; policies would have seen the other."""
    with pytest.raises(Refused) as raised:
        asked(method, params)
    assert raised.value.reason == "invalid_params"


def test_arguments_and_metadata_may_be_called_whatever_their_tool_calls_them() -> None:
    params = {"name": "files__read", "arguments": {"Name": "x", "Arguments": 1}, "_meta": {"Uri": 1}}
    assert named("tools/call", params) == [("files", "tool", "files__read", "read")]


def test_a_method_that_nobody_knows_is_an_action_of_its_own() -> None:
    assert asked("x/y", {}, "files") == [Asked(Action(method="x/y", backend="files", params=b"{}"))]


@pytest.mark.parametrize("method", ["initialize", "ping", "server/discover"])
def test_who_may_connect_may_begin(method: str) -> None:
    assert asked(method, {}) == []


def test_answers_notifications_streams_and_ends_are_not_for_policies_to_say() -> None:
    names = Names(MERGED, by_prefix)
    assert actions_of(exchange(Response(b"1", b"{}", b"")), names) == []
    assert actions_of(exchange(Notification("notifications/cancelled", b"")), names) == []
    assert actions_of(exchange(None, kind=RequestKind.STREAM), names) == []
    assert actions_of(exchange(None, kind=RequestKind.TERMINATE), names) == []


def test_a_request_that_is_sent_as_a_notification_is_refused() -> None:
    """Attack: a tool called without an id, which goes to every server of the session."""
    with pytest.raises(Refused) as refused:
        actions_of(exchange(Notification("tools/call", b'{"name":"x"}')), Names(MERGED, by_prefix))
    assert refused.value.reason == "forbidden"
