"""What the edge asks of policies: refusals with their reason, lists without what may not be used, topics."""

from __future__ import annotations

import json
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.transports.policy.actions import LISTED_BY, Names
from mcp_gateway.transports.policy.permissions import Permissions
from mcp_gateway.transports.policy.policies import Policies
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS
from mcp_gateway.transports.protocol.merging.naming import Naming, route_target

ANN = Principal(issuer="https://id.example", subject="ann", scopes=frozenset({"read"}))


def permissions(*tables: dict[str, Any], knows_clients: bool = True) -> Permissions:
    policies = Policies([PolicySettings(**{"effect": "allow", **table}) for table in tables])
    names = Names(
        (Naming("files", "files__"), Naming("mail", "mail__")), lambda asked: "files" if "files" in asked.target else ""
    )
    return Permissions(policies, names, knows_clients=knows_clients)


def exchange(method: str, params: Any, principal: Principal | None = ANN) -> Exchange:
    body = params if isinstance(params, bytes) else json.dumps(params).encode()
    target = f"{method}/x" if isinstance(params, bytes) else route_target(method, body, b"7")
    return Exchange(
        exchange_id=1,
        transport="websocket",
        revision="2025-11-25",
        endpoint="",
        kind=RequestKind.REQUEST,
        message=Request(b"7", method, body),
        target=target,
        principal=principal,
        deadline_s=1.0,
    )


def refusal(of: Permissions, method: str, params: Any, principal: Principal | None = ANN, endpoint: str = "") -> Refused | None:
    try:
        of.check(msgspec.structs.replace(exchange(method, params, principal), endpoint=endpoint))
    except Refused as refused:
        return refused
    return None


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("initialize", {}),
        ("server/discover", {}),
        ("tools/list", {}),
        ("logging/setLevel", {"level": "debug"}),
        ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}),
    ],
)
def test_an_endpoint_of_which_a_client_may_use_nothing_tells_it_nothing(method: str, params: dict[str, Any]) -> None:
    """Else it would have there what the merged server keeps from it: instructions, a session, news of changes."""
    noted: list[tuple[str, str, bool]] = []
    own = permissions({"tools": ["files__*"]}, {"scopes": ["more"], "backends": ["mail"], "groups": ["post"]})
    own._note = lambda _, action, decision, __: noted.append((action.method, action.backend, decision.is_allowed))
    assert refusal(own, method, params, endpoint="files") is None
    assert refusal(own, method, params) is None
    refused = refusal(own, method, params, endpoint="mail")
    assert refused is not None
    assert (refused.reason, refused.request_id) == ("forbidden", b"7")
    assert noted[-1] == (method, "mail", False)
    stranger = refusal(own, method, params, None, endpoint="mail")
    assert stranger is not None
    assert stranger.reason == "unauthorized"
    could_step_up = attrs.evolve(ANN, groups=frozenset({"post"}))
    assert refusal(own, method, params, could_step_up, endpoint="mail") is None
    assert refusal(own, "ping", {}, endpoint="mail") is None
    assert refusal(own, method, params, endpoint="none") is None, "others say that there is no such backend"


def reason(of: Permissions, method: str, params: Any, principal: Principal | None = ANN) -> str:
    refused = refusal(of, method, params, principal)
    return "" if refused is None else refused.reason


def test_a_refusal_says_why_with_the_requests_own_id_and_no_name_that_has_no_end() -> None:
    rules = permissions({"tools": ["files__read"]}, {"scopes": ["read", "write"], "tools": ["files__write"]})
    assert refusal(rules, "tools/call", {"name": "files__read"}) is None
    refused = refusal(rules, "tools/call", {"name": "x" * 5_000})
    assert refused is not None
    assert (refused.reason, refused.status, refused.request_id, len(refused.text) < 200) == ("forbidden", 403, b"7", True)
    refused = refusal(rules, "tools/call", {"name": "files__write"})
    assert refused is not None
    assert (refused.reason, refused.status, refused.data["scopes"]) == ("insufficient_scope", 403, ["read", "write"])


def test_who_is_not_known_is_asked_to_log_in_where_that_can_help() -> None:
    rule = {"subjects": ["ann"]}
    assert reason(permissions(rule), "tools/call", {"name": "files__a"}, None) == "unauthorized"
    assert reason(permissions(rule, knows_clients=False), "tools/call", {"name": "files__a"}, None) == "forbidden"
    assert reason(permissions({}), "tools/call", {"name": "files__a"}, None) == ""


def test_lists_and_the_like_are_open_unless_they_are_denied() -> None:
    rules = permissions({"tools": ["files__a"]}, {"effect": "deny", "methods": ["prompts/list"]})
    assert reason(rules, "tools/list", {}) == ""
    assert reason(rules, "logging/setLevel", {"level": "info"}) == ""
    assert reason(rules, "prompts/list", {}) == "forbidden"
    assert reason(rules, "x/y", {}) == "forbidden"


def test_what_cannot_be_read_is_invalid() -> None:
    rules = permissions({})
    deep = b'{"notifications":{"resourceSubscriptions":[5]}}'
    assert reason(rules, "subscriptions/listen", deep) == "invalid_params"


def test_a_subscription_is_refused_where_one_of_its_resources_is() -> None:
    rules = permissions({"resources": ["files+file:///docs/*"]})
    wanted = ["files+file:///docs/a", "files+file:///etc/passwd"]
    listen = "subscriptions/listen"
    assert reason(rules, listen, {"notifications": {"resourceSubscriptions": wanted[:1]}}) == ""
    assert reason(rules, listen, {"notifications": {"resourceSubscriptions": wanted}}) == "forbidden"


def test_of_a_resource_a_client_hears_what_it_may_subscribe_to_and_else_of_backends_that_it_may_use() -> None:
    rules = permissions({"resources": ["files+file:///docs/*"]})
    for uri, is_heard in (("file:///docs/a", True), ("file:///etc/passwd", False), (5, False)):
        updated = Notification("notifications/resources/updated", json.dumps({"uri": uri}).encode())
        assert rules.may_hear(ANN, "files", updated) == is_heard, uri
        assert not rules.may_hear(ANN, "mail", updated)
    for other in (Notification("notifications/tools/list_changed", b""), Request(b"1", "roots/list", b""), None):
        assert (rules.may_hear(ANN, "files", other), rules.may_hear(ANN, "mail", other)) == (True, False)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("client.a.b", ""),
        ("client.a.*", ""),
        ("client.*", ""),
        ("all", ""),
        ("*", ""),
        ("client.b", "insufficient_scope"),
        ("client.b.*", "insufficient_scope"),
        ("vsm.*", "insufficient_scope"),
    ],
)
def test_some_of_what_a_pattern_stands_for_is_enough_to_follow_it(pattern: str, expected: str) -> None:
    rules = permissions({"topics": ["client.a.*"], "methods": ["topics/follow"]}, {"scopes": ["admin"], "topics": ["*"]})
    try:
        rules.check_followed(ANN, pattern)
    except Refused as refused:
        assert (refused.reason, refused.data) == (expected, {"scopes": ["admin"]})
    else:
        assert expected == ""


def test_topics_are_published_by_rules_of_their_own() -> None:
    rules = permissions({"topics": ["client.a.*"], "methods": ["topics/follow"]}, {"groups": ["b"], "topics": ["client.b"]})
    for principal, topic, expected in ((ANN, "client.a.b", "forbidden"), (None, "client.b", "unauthorized")):
        with pytest.raises(Refused) as refused:
            rules.check_published(principal, topic)
        assert refused.value.reason == expected
    rules.check_published(attrs.evolve(ANN, groups=frozenset({"b"})), "client.b")


def test_a_list_has_only_what_may_be_used_and_is_for_nobody_else() -> None:
    rules = permissions({"tools": ["files__a", "files__c"]})
    result = b'{"tools":[{"name":"a","x":1e400},{"name":"b"},{"title":"none"},{"name":5}],"cacheScope":"public","nextCursor":"2"}'
    shown = rules.shown_list(ANN, "files", "tools/list", result)
    assert shown == b'{"tools":[{"name":"a","x":1e400}],"cacheScope":"private","nextCursor":"2"}'
    assert rules.shown_list(ANN, "mail", "tools/list", b'{"tools":[{"name":"a"}]}') == b'{"tools":[]}'
    assert rules.shown_list(ANN, "files", "tasks/list", b'{"tasks":[{"taskId":"a"}]}') == b'{"tasks":[{"taskId":"a"}]}'
    with pytest.raises(msgspec.DecodeError):
        rules.shown_list(ANN, "files", "tools/list", b'{"tools":5}')


_words = st.lists(st.sampled_from(["a", "files__a", "files+a:b", "a:b", "*", "f*", "mail*"]), max_size=2, unique=True)
_tables = st.fixed_dictionaries(
    {"effect": st.sampled_from(["allow", "deny"])},
    optional={
        **{name: _words for name in ("tools", "prompts", "resources")},
        "backends": st.lists(st.sampled_from(["files", "mail"]), max_size=1),
        "methods": st.lists(st.sampled_from(["tools/*", "prompts/get", "resources/read"]), max_size=1),
        "subjects": st.lists(st.sampled_from(["ann", "bob"]), max_size=1),
        "scopes": st.lists(st.sampled_from(["read", "write"]), max_size=1),
    },
)


@given(
    tables=st.lists(_tables, max_size=4),
    backend=st.sampled_from(["files", "mail"]),
    method=st.sampled_from([each for each in LISTED_BY if "templates" not in each]),
    names=st.lists(st.sampled_from(["a", "b", "a:b", "files__a"]), max_size=4, unique=True),
    principal=st.sampled_from([None, ANN]),
)
def test_what_is_listed_is_what_can_be_called(
    tables: Any, backend: str, method: str, names: list[str], principal: Principal | None
) -> None:
    """At the endpoint of one backend, whose list this is."""
    rules = permissions(*tables)
    list_member, item_member = LIST_MEMBERS[method]
    listed = json.dumps({list_member: [{item_member: name} for name in names]}).encode()
    shown = [item[item_member] for item in json.loads(rules.shown_list(principal, backend, method, listed))[list_member]]
    use, _ = LISTED_BY[method]
    assert shown == [name for name in names if refusal(rules, use, {item_member: name}, principal, backend) is None]
