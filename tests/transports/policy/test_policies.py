"""Who may do what: each rule of policies in a table, then what must hold for any policies and any actions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.conditions import MOST_ARGUMENT_BYTES, MOST_VALUES
from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.transports.policy.policies import Action, Decision, Policies
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.merging.naming import Naming

ANN = Principal(issuer="https://id.example", subject="ann", client="cli", groups=frozenset({"dev"}), scopes=frozenset({"read"}))
CI = Principal(issuer="api-key", subject="ci")
FILES, MAIL = Naming("files", "files__"), Naming("mail", "mail__")
READ = Action(
    method="tools/call", backend="files", kind="tool", name="files__read", own_name="read", params=b'{"arguments":{"path":"/a"}}'
)


def policies(*tables: dict[str, Any]) -> Policies:
    return Policies([PolicySettings(**{"effect": "allow", **table}) for table in tables])


def is_allowed(table: dict[str, Any], action: Action = READ, principal: Principal | None = ANN) -> bool:
    return policies(table).decide(principal, action).is_allowed


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, True),
        ({"subjects": ["ann"]}, True),
        ({"subjects": ["bob"]}, False),
        ({"subjects": ["bob", "an*"]}, True),
        ({"subjects": ["https://id.example ann"]}, True),
        ({"subjects": ["https://other.example ann"]}, False),
        ({"subjects": ["https://id.example *"]}, True),
        ({"subjects": ["https*"]}, False),
        ({"groups": ["ops", "dev"]}, True),
        ({"groups": ["ops"]}, False),
        ({"clients": ["cli"]}, True),
        ({"clients": ["web"]}, False),
        ({"subjects": ["ann"], "groups": ["ops"]}, False),
        ({"scopes": ["read"]}, True),
        ({"scopes": ["read", "write"]}, False),
        ({"backends": ["files"]}, True),
        ({"backends": ["search"]}, False),
        ({"methods": ["tools/call"]}, True),
        ({"methods": ["tools/*"]}, True),
        ({"methods": ["prompts/get"]}, False),
        ({"tools": ["files__*"]}, True),
        ({"tools": ["files__write"]}, False),
        ({"tools": ["read"]}, False),
        ({"tools": ["read"], "backends": ["files"]}, True),
        ({"prompts": ["files__*"]}, False),
        ({"tools": ["files__read"], "prompts": ["files__a"], "resources": ["files+*"]}, True),
        ({"when": "arguments.path == '/a' && subject == 'ann' && 'dev' in groups && tool == 'files__read'"}, True),
        ({"when": "arguments.path == '/b'"}, False),
        ({"when": "arguments.missing == '/b'"}, False),
        ({"when": "method == 'tools/call' && backend == 'files' && client == 'cli' && prompt == '' && issuer != ''"}, True),
    ],
)
def test_a_policy_allows_whom_and_what_it_is_about(table: dict[str, Any], expected: bool) -> None:
    assert is_allowed(table) is expected


@pytest.mark.parametrize(
    "arguments", ['{"path":"/a","Path":"/b"}', '{"path":"/a","more":[{"x":1,"X":2}]}', '{"\u017fize":1,"size":2,"path":"/a"}']
)
def test_arguments_that_servers_may_read_in_two_ways_fulfil_no_condition_and_escape_none(arguments: str) -> None:
    """Attack: servers in Go take "Path" for "path", and of both the last one."""
    action = Action(method="tools/call", kind="tool", name="t", params=f'{{"arguments":{arguments}}}'.encode())
    assert not is_allowed({"when": "arguments.path == '/a'"}, action)
    decided = policies({}, {"effect": "deny", "when": "arguments.path == '/b'"}).decide(ANN, action)
    assert (decided.is_allowed, decided.rule) == (False, 1)


@pytest.mark.parametrize(
    ("table", "is_denied"),
    [
        ({}, True),
        ({"tools": ["files__read"]}, True),
        ({"tools": ["read"]}, True),
        ({"tools": ["files__write"]}, False),
        ({"subjects": ["bob"]}, False),
        ({"scopes": ["read"]}, True),
        ({"scopes": ["write"]}, False),
        ({"when": "arguments.path.startsWith('/secret')"}, False),
        ({"when": "arguments.path == '/a'"}, True),
        ({"when": "arguments.other == '/a'"}, True),
        ({"when": "arguments.path"}, True),
    ],
)
def test_a_policy_that_denies_wins_and_one_that_cannot_be_decided_holds(table: dict[str, Any], is_denied: bool) -> None:
    rules = policies({}, {"effect": "deny", **table})
    assert rules.decide(ANN, READ) == (Decision(False, 1) if is_denied else Decision(True, 0))


def test_what_no_policy_allows_is_denied_by_default() -> None:
    assert policies({"tools": ["other"]}).decide(ANN, READ).rule_name == "default"
    assert policies({"effect": "deny", "tools": ["other"]}).decide(ANN, READ) == Decision(False)


def test_the_deciding_policy_is_named_as_the_file_counts() -> None:
    assert policies({"tools": ["other"]}, {"tools": ["files__*"]}, {}).decide(ANN, READ).rule_name == "policies[1]"


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ([{"scopes": ["read", "write"]}], Decision(False, 0, ("read", "write"))),
        ([{"scopes": ["a", "b"]}, {"scopes": ["write"]}], Decision(False, 1, ("write",))),
        ([{"scopes": ["write"], "tools": ["other"]}], Decision(False)),
        ([{"scopes": ["write"], "subjects": ["bob"]}], Decision(False)),
        ([{"scopes": ["write"], "when": "arguments.path == '/b'"}], Decision(False)),
        ([{"scopes": ["write"]}, {"effect": "deny"}], Decision(False, 1)),
        ([{"scopes": ["write"]}, {}], Decision(True, 1)),
    ],
)
def test_scopes_that_are_all_that_is_missing_are_named(tables: list[dict[str, Any]], expected: Decision) -> None:
    assert policies(*tables).decide(ANN, READ) == expected


def test_nobody_in_particular_is_only_whom_a_policy_for_everybody_is_about() -> None:
    for about in ("subjects", "groups", "clients", "scopes"):
        assert not is_allowed({about: ["read" if about == "scopes" else "*"]}, principal=None)
        denied = policies({}, {"effect": "deny", about: ["read" if about == "scopes" else "*"]})
        assert denied.decide(None, READ).is_allowed
    assert is_allowed({}, principal=None)
    assert is_allowed({"when": "subject == '' && groups == []"}, principal=None)


def test_a_pattern_for_subjects_does_not_match_who_vouches_for_them() -> None:
    """`a*` is for whoever's name begins with a, and not for every "api-key ..."."""
    assert not is_allowed({"subjects": ["a*"]}, principal=CI)
    assert is_allowed({"subjects": ["api-key *"]}, principal=CI)
    liar = Principal(issuer="https://other.example", subject="https://id.example ann")
    assert not is_allowed({"subjects": ["https://id.example ann"]}, principal=liar)


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "http://host/secret?x",
            "http://host/secret#x",
            "http://host:80/secret",
            "http://me@host/secret",
            " http://host/secret",
        ),
        *("http://ho\nst/secret", "HTTP://HOST:/sec%72et?..", "http://host:80\\secret"),
    ],
)
def test_what_is_denied_is_so_with_what_servers_pass_over(uri: str) -> None:
    """Attack: a query, a fragment, a port, a user, or white space that the server's parser drops."""
    action = Action(method="resources/read", kind="resource", name=uri)
    assert not policies({}, {"effect": "deny", "resources": ["http://host/secret"]}).decide(ANN, action).is_allowed
    assert policies({}, {"effect": "deny", "resources": ["http://host/other"]}).decide(ANN, action).is_allowed


def test_a_host_that_is_allowed_is_no_user_at_another_one() -> None:
    action = Action(method="resources/read", kind="resource", name="https://api.example@evil.example/a")
    assert not is_allowed({"resources": ["https://api.example*"]}, action)
    others = ("https://api.example:8443/a?b=c#d", "https://api.example/a")
    assert all(is_allowed({"resources": ["https://api.example*"]}, reading(uri)) for uri in others)


def reading(uri: str) -> Action:
    return Action(method="resources/read", kind="resource", name=uri)


def test_a_server_that_names_its_tool_as_another_ones_opens_nothing() -> None:
    """Attack: backend "evil" calls its own tool "files__read", and serves it at /mcp/servers/evil under that name."""
    evil = Action(method="tools/call", backend="evil", kind="tool", name="evil__files__read", own_name="files__read")
    assert not is_allowed({"tools": ["files__*"]}, evil)
    assert not policies({}, {"effect": "deny", "tools": ["files__*"]}).decide(ANN, evil).is_allowed


@pytest.mark.parametrize(
    "uri",
    [
        "files+file:///docs/../etc/passwd",
        "files+file:///docs/%2e%2e/etc/passwd",
        "files+file:///docs/..%2Fetc/passwd",
        "files+file:///docs\\..\\etc\\passwd",
        "files+file:///docs/a/../../etc/passwd",
        "files+file:///etc/passwd",
        "files+file://///etc/passwd",
        "files+FILE:///etc/passwd",
        "files+file:///%65tc/passwd",
    ],
)
def test_a_resource_is_judged_by_every_way_to_read_its_uri(uri: str) -> None:
    """Attack: out of the allowed folder, and into the denied one, by dot segments, escapes, slashes and case."""
    action = Action(method="resources/read", backend="files", kind="resource", name=uri, own_name=uri.removeprefix("files+"))
    assert not is_allowed({"resources": ["files+file:///docs/*"]}, action)
    assert not policies({}, {"effect": "deny", "resources": ["files+file:///etc/*"]}).decide(ANN, action).is_allowed


def test_dot_segments_lead_out_of_what_stands_where_a_host_would() -> None:
    """Attack: a server for which `public` is a folder."""
    action = Action(method="resources/read", kind="resource", name="demo://public/../readme")
    assert not is_allowed({"resources": ["demo://public/*"]}, action)
    assert not policies({}, {"effect": "deny", "resources": ["demo://readme"]}).decide(ANN, action).is_allowed
    assert not policies({}, {"effect": "deny", "resources": ["demo://public/readme"]}).decide(ANN, action).is_allowed


@pytest.mark.parametrize(
    ("pattern", "uri"),
    [
        ("files+file:///docs/*", "files+file:///docs/a/b.md"),
        ("files+file:///my%20docs/*", "files+file:///my%20docs/a"),
        ("demo://Welcome", "demo://Welcome"),
        ("*.md", "files+file:///a%20b.md"),
        ("*", "x:/../%2e"),
    ],
)
def test_a_resource_that_is_meant_is_allowed_however_it_is_spelled(pattern: str, uri: str) -> None:
    assert is_allowed({"resources": [pattern]}, Action(method="resources/read", kind="resource", name=uri))


@pytest.mark.parametrize(
    ("topics", "followed", "expected"),
    [
        (["client.*"], "client.a", True),
        (["client.*"], "client.*", True),
        (["client.*"], "client.a.*", True),
        (["client.*"], "all", False),
        (["client.*"], "*", False),
        (["client.a"], "client.*", False),
        (["client.a*"], "client.*", False),
        (["client.*", "vsm.*"], "all", False),
        (["*"], "all", True),
        (["*a"], "client.*", False),
    ],
)
def test_a_pattern_of_topics_may_be_followed_where_one_policy_allows_all_that_it_stands_for(
    topics: list[str], followed: str, expected: bool
) -> None:
    action = Action(method="topics/follow", kind="topic", name=followed)
    assert is_allowed({"topics": topics}, action) is expected


@pytest.mark.parametrize(("followed", "expected"), [("client.*", False), ("all", False), ("client.open", True), ("vsm.*", True)])
def test_a_pattern_that_stands_for_a_denied_topic_is_denied(followed: str, expected: bool) -> None:
    """Attack: privilege by a wildcard."""
    rules = policies({}, {"effect": "deny", "topics": ["client.secret.*"]})
    assert rules.decide(ANN, Action(method="topics/follow", kind="topic", name=followed)).is_allowed is expected


@pytest.mark.parametrize(
    "arguments",
    [
        b'{"path":"/public","path":"/secret"}',
        b'{"path":"/public","\\u0070ath":"/secret"}',
        b'{"path":"/public","deep":{"a":1,"a":2}}',
        b'{"path":"/public","more":"' + b"x" * MOST_ARGUMENT_BYTES + b'"}',
        b'{"path":"/public","more":[' + b"1," * MOST_VALUES + b"1]}",
        b'{"path":"/public","more":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"path":"/public","more":1e400}',
        b'["/public"]',
        b"null",
    ],
)
def test_arguments_that_cannot_be_judged_are_judged_against_the_client(arguments: bytes) -> None:
    """Attack: two members of one name, too much, too many, too deep, no number."""
    action = Action(method="tools/call", kind="tool", name="a", params=b'{"arguments":%b}' % arguments)
    assert not is_allowed({"when": "arguments.path == '/public'"}, action)
    assert not policies({}, {"effect": "deny", "when": "arguments.path == '/secret'"}).decide(ANN, action).is_allowed


def test_arguments_up_to_their_bounds_are_judged() -> None:
    room = MOST_ARGUMENT_BYTES - len(b'{"path":"/public","more":""}')
    params = b'{"arguments":{"path":"/public","more":"' + b"x" * room + b'"}}'
    action = Action(method="tools/call", kind="tool", name="a", params=params)
    assert is_allowed({"when": "arguments.path == '/public'"}, action)
    assert is_allowed({"when": "arguments == {}"}, Action(method="tools/call", kind="tool", name="a"))


def test_lists_show_what_could_be_allowed_with_some_arguments() -> None:
    assert policies({"when": "arguments.path == '/b'"}).may_ever(ANN, READ)
    assert policies({}, {"effect": "deny", "when": "arguments.path == '/b'"}).may_ever(ANN, READ)
    assert not policies({}, {"effect": "deny"}).may_ever(ANN, READ)
    assert not policies({"scopes": ["write"]}).may_ever(ANN, READ)


@pytest.mark.parametrize(
    ("pattern", "template", "expected"),
    [
        ("files+file:///docs/*", "files+file:///{path}", True),
        ("files+file:///docs/*", "files+file:///docs/{name}.md", True),
        ("files+file:///docs/a.md", "files+file:///docs/{name}.md", True),
        ("files+file:///docs/a.txt", "files+file:///docs/{name}.md", False),
        ("files+file:///docs/*", "files+file:///src/{name}", False),
    ],
)
def test_a_template_is_shown_where_one_of_its_uris_could_be_allowed(pattern: str, template: str, expected: bool) -> None:
    action = Action(method="resources/read", kind="template", name=template)
    assert policies({"resources": [pattern]}).may_ever(ANN, action) is expected
    assert not policies({}, {"effect": "deny", "resources": ["files+file:///*"]}).may_ever(ANN, action)


@pytest.mark.parametrize(
    ("tables", "reached"),
    [
        ([{}], ["files", "mail"]),
        ([{"backends": ["mail"]}], ["mail"]),
        ([{"tools": ["files__*"]}], ["files"]),
        ([{"tools": ["*read"]}], ["files", "mail"]),
        ([{"tools": ["read"]}], []),
        ([{"tools": ["read"], "backends": ["files"]}], ["files"]),
        ([{"resources": ["mail+a:*"]}], ["mail"]),
        ([{"resources": ["ui://mail/*"]}], ["mail"]),
        ([{"topics": ["*"]}], []),
        ([{"scopes": ["write"], "prompts": ["mail__*"]}], ["mail"]),
        ([{"subjects": ["bob"]}], []),
        ([{}, {"effect": "deny", "backends": ["mail"]}], ["files"]),
        ([{}, {"effect": "deny", "backends": ["mail"], "methods": ["tools/*"]}], ["files", "mail"]),
        ([{}, {"effect": "deny", "backends": ["mail"], "when": "subject == ''"}], ["files", "mail"]),
    ],
)
def test_a_backend_is_within_reach_where_something_of_it_may_be_used(tables: list[dict[str, Any]], reached: list[str]) -> None:
    rules = policies(*tables)
    assert [each.backend for each in (FILES, MAIL) if rules.may_reach(ANN, each)] == reached


_words = st.sampled_from(["a", "b", "a*", "*b", "*"])
_lists = st.lists(_words, max_size=2, unique=True)
_tables = st.fixed_dictionaries(
    {"effect": st.sampled_from(["allow", "deny"])},
    optional={
        **{name: _lists for name in ("subjects", "groups", "clients", "backends", "tools", "prompts")},
        "methods": st.lists(st.sampled_from(["tools/*", "prompts/get"]), max_size=1),
        "scopes": st.lists(st.sampled_from(["s", "t"]), max_size=2, unique=True),
    },
)
_names = st.sampled_from(["a", "b", "ab", ""])
_actions = st.one_of(
    st.builds(Action, method=st.just("tools/call"), backend=_names, kind=st.just("tool"), name=_names, own_name=_names),
    st.builds(Action, method=st.just("prompts/get"), backend=_names, kind=st.just("prompt"), name=_names, own_name=_names),
    st.builds(Action, method=st.just("other/method"), backend=_names),
)
_principals = st.none() | st.builds(
    Principal,
    issuer=st.just("https://id.example"),
    subject=_names,
    client=_names,
    groups=st.frozensets(_names, max_size=2),
    scopes=st.frozensets(st.sampled_from(["s", "t"])),
)


@given(tables=st.lists(_tables, max_size=5), actions=st.lists(_actions, min_size=1, max_size=5), principal=_principals)
def test_what_is_listed_is_what_may_be_called(tables: Any, actions: list[Action], principal: Principal | None) -> None:
    rules = policies(*tables)
    for action in actions * 2:
        assert rules.may_ever(principal, action) is rules.decide(principal, action).is_allowed


@given(tables=st.lists(_tables, max_size=5), action=_actions, principal=_principals, more=_tables)
def test_another_policy_that_allows_takes_nothing_and_one_that_denies_gives_nothing(
    tables: Any, action: Action, principal: Principal | None, more: Any
) -> None:
    before = policies(*tables).decide(principal, action).is_allowed
    after = policies(*tables, more).decide(principal, action).is_allowed
    assert after >= before if more["effect"] == "allow" else after <= before


@given(tables=st.lists(_tables, max_size=5), action=_actions, principal=_principals)
def test_with_the_scopes_that_are_named_it_is_allowed_or_denied_by_a_rule(
    tables: Any, action: Action, principal: Principal | None
) -> None:
    """Step-up ends: another login with these scopes is never asked for the same scopes again."""
    rules = policies(*tables)
    decision = rules.decide(principal, action)
    if decision.scopes and principal is not None:
        held = principal.scopes | set(decision.scopes)
        again = rules.decide(
            Principal(
                issuer=principal.issuer, subject=principal.subject, client=principal.client, groups=principal.groups, scopes=held
            ),
            action,
        )
        assert again.is_allowed or again.rule is not None
        assert not set(again.scopes) - held or again.is_allowed


@given(
    tables=st.lists(_tables, max_size=4),
    kind=st.sampled_from(["tool", "prompt"]),
    own=st.sampled_from(["a", "b", "ab"]),
    principal=_principals,
)
def test_what_may_be_used_is_of_a_backend_within_reach(tables: Any, kind: str, own: str, principal: Principal | None) -> None:
    rules = policies(*tables)
    for backend in (Naming("a", "a__"), Naming("b", "b")):
        method = "tools/call" if kind == "tool" else "prompts/get"
        name = backend.outer_name(own)
        action = Action(method=method, backend=backend.backend, kind=kind, name=name, own_name=own)
        if rules.decide(principal, action).is_allowed:
            assert rules.may_reach(principal, backend)


def test_many_principals_fill_no_memory() -> None:
    rules = policies({"subjects": ["1*"]})
    for number in range(3_000):
        assert rules.decide(Principal(issuer="i", subject=str(number)), READ).is_allowed is str(number).startswith("1")
    assert len(rules._reach_of) <= 1_024
