"""What a client sees less of than it may use: virtual servers and tools of its own choice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.curation_settings import ServerSettings
from mcp_gateway.transports.policy.actions import Names
from mcp_gateway.transports.policy.views import LONGEST_CHOICE, Views
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming, route_target

FILES, MAIL = Naming("files", "files__"), Naming("mail", "mail__")
BACKENDS = (FILES, MAIL)


def find_backend(exchange: Exchange) -> str:
    item = exchange.target.split("/", 2)[-1]
    return next((each.backend for each in BACKENDS if item.startswith((each.prefix, each.scheme, f"{each.backend}/"))), "")


def views_of(*include: str, exclude: tuple[str, ...] = (), instructions: str = "") -> Views:
    server = ServerSettings(name="research", include=include, exclude=exclude, instructions=instructions)
    return Views([server], BACKENDS, Names(BACKENDS, find_backend))


def exchange(method: str, endpoint: str = "research", tools: str = "", **params: Any) -> Exchange:
    encoded = json.dumps(params).encode()
    return Exchange(
        exchange_id=1,
        transport="t",
        revision="2026-07-28",
        endpoint=endpoint,
        tools=tools,
        kind=RequestKind.REQUEST,
        message=Request(b"1", method, encoded),
        target=route_target(method, encoded, b"1"),
        deadline_s=0.0,
    )


def reason(views: Views, asked: Exchange) -> str:
    try:
        views.check(views.addressed(asked))
    except Refused as refused:
        return refused.reason
    return "ok"


def listed(views: Views, asked: Exchange, backend: str, *names: str, kind: str = "tools", member: str = "name") -> list[str]:
    page = json.dumps({kind: [{member: name} for name in names], "cacheScope": "public"}).encode()
    shown = json.loads(views.shown_list(views.addressed(asked), backend, asked.method, page))
    assert shown["cacheScope"] == "private"
    return [each[member] for each in shown[kind]]


def test_an_address_of_a_virtual_server_is_one_of_the_merged_server_and_others_stay_as_they_are() -> None:
    views = views_of("files/*")
    addressed = views.addressed(exchange("tools/list"))
    assert (addressed.endpoint, addressed.server, addressed.address) == ("", "research", "research")
    alone = exchange("tools/list", endpoint="files")
    assert views.addressed(alone) is alone


@pytest.mark.parametrize(
    ("method", "params", "reason_"),
    [
        ("tools/call", {"name": "files__read_a"}, "ok"),
        ("tools/call", {"name": "files__write"}, "invalid_params"),
        ("tools/call", {"name": "files__read_secret"}, "invalid_params"),
        ("tools/call", {"name": "mail__send"}, "invalid_params"),
        ("tools/call", {"name": "read_a"}, "invalid_params"),
        ("prompts/get", {"name": "files__read_me"}, "ok"),
        ("prompts/get", {"name": "mail__x"}, "invalid_params"),
        ("resources/read", {"uri": "files+file:///docs/a"}, "ok"),
        ("resources/read", {"uri": "files+file:///docs/../etc/passwd"}, "invalid_params"),
        ("resources/read", {"uri": "files+file:///etc"}, "invalid_params"),
        ("resources/subscribe", {"uri": "files+file:///etc"}, "invalid_params"),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "mail__x"}}, "invalid_params"),
        ("tools/list", {}, "ok"),
        ("server/discover", {}, "ok"),
        ("files/own", {}, "unknown_method"),
    ],
)
def test_what_is_not_included_is_not_there(method: str, params: dict[str, Any], reason_: str) -> None:
    views = views_of("files/read_*", "files/file:///docs/*", exclude=("files/*secret",))
    assert reason(views, exchange(method, **params)) == reason_


def test_a_tool_that_is_not_there_reads_as_one_that_its_server_does_not_have() -> None:
    views = views_of("files/*")
    with pytest.raises(Refused) as refused:
        views.check(views.addressed(exchange("tools/call", name="mail__send")))
    assert (refused.value.code, refused.value.text, refused.value.request_id) == (-32602, "Unknown tool: mail__send", b"1")


def test_a_server_cannot_name_its_tools_into_a_view() -> None:
    """Attack: at its own server the tool is called as one that is included is called in the merged server."""
    views = views_of("files/read_*")
    assert reason(views, exchange("tools/call", name="mail__files__read_x")) == "invalid_params"
    assert reason(views, exchange("tools/call", name="files__files__read_x")) == "invalid_params"
    assert listed(views, exchange("tools/list"), "mail", "files__read_x", "read_x") == []
    assert listed(views, exchange("tools/list"), "files", "files__read_x", "read_x") == ["read_x"]


def test_any_backend_may_be_meant_and_whole_ones_have_their_own_methods() -> None:
    views = views_of("*/list", "mail/*", exclude=("mail/send",))
    assert [reason(views, exchange("tools/call", name=name)) for name in ("files__list", "mail__list", "mail__any")] == ["ok"] * 3
    assert [reason(views, exchange("tools/call", name=name)) for name in ("files__any", "mail__send")] == ["invalid_params"] * 2
    assert (reason(views, exchange("mail/x/mail/own")), reason(views, exchange("files/x/files/own"))) == ("ok", "unknown_method")


def test_nothing_included_is_nothing() -> None:
    views = views_of()
    assert reason(views, exchange("tools/call", name="files__read")) == "invalid_params"
    assert listed(views, exchange("tools/list"), "files", "read") == []


def test_backends_of_which_nothing_is_included_are_not_asked() -> None:
    views = views_of("files/read_*")
    assert views.within_reach(views.addressed(exchange("tools/list")), BACKENDS) == (FILES,)
    assert views.within_reach(exchange("tools/list", endpoint=""), BACKENDS) == BACKENDS


def test_resources_and_prompts_are_listed_by_the_same_patterns() -> None:
    views = views_of("files/read_*", "files/file:///docs/*", "files/ui://*")
    uris = ("file:///docs/a", "file:///etc", "ui://main/a.html")
    assert listed(views, exchange("resources/list"), "files", *uris, kind="resources", member="uri") == [uris[0], uris[2]]
    assert listed(views, exchange("prompts/list"), "files", "read_a", "b", kind="prompts") == ["read_a"]


@pytest.mark.parametrize(
    ("tools", "shown"),
    [("files__a,files__b*", ["a", "b", "bc"]), (" files__a , ", ["a"]), ("*", ["a", "b", "bc", "c"]), ("a", []), ("mail__*", [])],
)
def test_a_client_chooses_among_the_tools_by_the_names_that_it_reads(tools: str, shown: list[str]) -> None:
    views = views_of("files/*")
    names = ["a", "b", "bc", "c"]
    assert listed(views, exchange("tools/list", endpoint="", tools=tools), "files", *names) == shown
    called = [name for name in names if reason(views, exchange("tools/call", "", tools, name=f"files__{name}")) == "ok"]
    assert called == shown
    assert reason(views, exchange("prompts/get", endpoint="", tools=tools, name="files__p")) == "ok"


def test_at_one_backend_the_names_are_its_own() -> None:
    views = views_of()
    assert listed(views, exchange("tools/list", endpoint="files", tools="a"), "files", "a", "b") == ["a"]
    assert reason(views, exchange("tools/call", endpoint="files", tools="a", name="b")) == "invalid_params"


def test_a_choice_gives_nothing_that_the_server_does_not_have() -> None:
    views = views_of("files/a")
    assert listed(views, exchange("tools/list", tools="*"), "files", "a", "b") == ["a"]
    assert reason(views, exchange("tools/call", tools="*", name="files__b")) == "invalid_params"


@pytest.mark.parametrize(
    ("tools", "reason_"),
    [
        ("a" * LONGEST_CHOICE, "invalid_params"),
        ("a" * (LONGEST_CHOICE + 1), "invalid_request"),
        (",".join(map(str, range(100))), "invalid_params"),
        (",".join(map(str, range(101))), "invalid_request"),
    ],
)
def test_a_choice_is_bounded(tools: str, reason_: str) -> None:
    assert reason(views_of(), exchange("tools/call", endpoint="", tools=tools, name="x")) == reason_


NAMES = st.sampled_from(["read_a", "read_b", "write", "files__read_a", "mail__write", "x"])
PARTS = st.lists(
    st.builds(
        lambda backend, pattern: f"{backend}/{pattern}",
        st.sampled_from(["files", "mail", "*"]),
        st.sampled_from(["*", "read_*", "*a", "write", "files__*"]),
    ),
    unique=True,
)


@given(PARTS, PARTS, st.lists(NAMES, unique=True), st.sampled_from(["", "*", "files__*", "*write"]))
def test_lists_and_calls_agree(include: list[str], exclude: list[str], names: list[str], tools: str) -> None:
    views = views_of(*include, exclude=tuple(exclude))
    for naming in BACKENDS:
        page = json.dumps({"tools": [{"name": name} for name in names]}).encode()
        asked = views.addressed(exchange("tools/list", tools=tools))
        shown = {tool["name"] for tool in json.loads(views.shown_list(asked, naming.backend, "tools/list", page))["tools"]}
        called = {
            name for name in names if reason(views, exchange("tools/call", tools=tools, name=naming.outer_name(name))) == "ok"
        }
        assert shown == called
        if shown:
            assert naming in views.within_reach(asked, BACKENDS)
