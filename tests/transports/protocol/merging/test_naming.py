"""Names of a merged server: what a client reads, it can send back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import (
    Naming,
    inner_params,
    outer_items,
    outer_notification,
    outer_result,
    route_target,
)

FILES = Naming("files", "files__")
ALONE = Naming("files", "")

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,10}", fullmatch=True)
prefixes = st.from_regex(r"[A-Za-z0-9_.-]{1,10}", fullmatch=True)
namings = st.builds(Naming, names, prefixes) | st.builds(Naming, names, st.just(""))


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def renamed(result: Any, naming: Naming = FILES) -> Any:
    return json.loads(outer_result(naming, encoded(result)))


# ---- names and URIs


@settings(deadline=None)
@given(namings, st.text())
def test_outer_and_inner_are_inverse_for_every_prefix_name_and_uri(naming, inner):
    assert naming.inner_name(naming.outer_name(inner)) == inner
    assert naming.inner_uri(naming.outer_uri(inner)) == inner


@settings(deadline=None)
@given(names, prefixes, st.sampled_from(["file:///a", "demo+x://y", "urn:a:b"]))
def test_the_outer_uri_is_still_a_uri(backend, prefix, uri):
    """Source: RFC 3986, section 3.1 "Scheme"; strict clients parse it."""
    scheme, _, rest = Naming(backend, prefix).outer_uri(uri).partition(":")
    assert scheme[0].isalpha()
    assert all(character.isalnum() or character in "+-." for character in scheme)
    assert scheme.isascii()
    assert rest == uri.partition(":")[2]


def test_a_prefix_before_a_uri_is_understood_as_well():
    assert FILES.inner_uri("files__file:///a") == "file:///a"
    assert FILES.inner_uri("files+file:///a") == "file:///a"


def test_a_backend_that_stands_alone_renames_nothing():
    assert (ALONE.outer_name("a"), ALONE.outer_uri("file:///a"), ALONE.default_patterns) == ("a", "file:///a", ("*",))


def test_default_routes_lead_by_prefix_and_by_scheme():
    assert set(FILES.default_patterns) == {
        "tools/call/files__*",
        "prompts/get/files__*",
        "resources/read/files__*",
        "resources/read/files+*",
        "resources/read/ui://files/*",
    }


# ---- where a request goes

TARGETS = [
    ("tools/call", {"name": "files__read"}, "tools/call/files__read"),
    ("prompts/get", {"name": "greet"}, "prompts/get/greet"),
    ("resources/read", {"uri": "files+file:///a"}, "resources/read/files+file:///a"),
    ("resources/subscribe", {"uri": "u"}, "resources/read/u"),
    ("resources/unsubscribe", {"uri": "u"}, "resources/read/u"),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}}, "prompts/get/greet"),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "u"}}, "resources/read/u"),
    ("tools/list", {}, "tools/list"),
    ("anything", {"name": "x"}, "anything"),
]


@pytest.mark.parametrize(("method", "params", "target"), TARGETS)
def test_a_request_goes_where_its_item_is(method, params, target):
    assert route_target(method, encoded(params), b"1") == target


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", b""),
        ("tools/call", b"{}"),
        ("tools/call", b'{"name":7}'),
        ("resources/read", b'{"name":"x"}'),
        ("resources/subscribe", b'{"uri":null}'),
        ("completion/complete", b""),
        ("completion/complete", b"{}"),
        ("completion/complete", b'{"ref":"x"}'),
        ("completion/complete", b'{"ref":{}}'),
        ("completion/complete", b'{"ref":{"name":[]}}'),
        ("completion/complete", b'{"ref":null}'),
    ],
)
def test_a_request_without_its_item_is_invalid_params(method, params):
    with pytest.raises(Refused) as caught:
        route_target(method, params, b"1")
    assert (caught.value.reason, caught.value.request_id) == ("invalid_params", b"1")


# ---- params on their way in


@pytest.mark.parametrize(
    ("method", "outer", "inner"),
    [
        ("tools/call", {"name": "files__a", "arguments": {"name": "files__a"}}, {"name": "a", "arguments": {"name": "files__a"}}),
        ("prompts/get", {"name": "files__a"}, {"name": "a"}),
        ("resources/read", {"uri": "files+file:///a"}, {"uri": "file:///a"}),
        ("resources/subscribe", {"uri": "files+file:///a"}, {"uri": "file:///a"}),
        ("resources/unsubscribe", {"uri": "files__file:///a"}, {"uri": "file:///a"}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "files__a"}, "argument": {"name": "files__x", "value": ""}},
            {"ref": {"type": "ref/prompt", "name": "a"}, "argument": {"name": "files__x", "value": ""}},
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "files+t:///{a}"}},
            {"ref": {"type": "ref/resource", "uri": "t:///{a}"}},
        ),
        ("tools/list", {"name": "files__a"}, {"name": "files__a"}),
        ("tools/call", {"name": 7}, {"name": 7}),
    ],
)
def test_params_reach_the_backend_in_its_own_names(method, outer, inner):
    assert json.loads(inner_params(FILES, method, encoded(outer))) == inner
    assert inner_params(ALONE, method, encoded(outer)) == encoded(outer)


def test_params_that_need_no_change_keep_their_bytes():
    params = b'{"name":"files__a","arguments":{"x":1.0,"y":[1,  2],"z":%b}}' % (b"9" * 400)
    assert inner_params(FILES, "tools/call", params) == params.replace(b"files__a", b"a")


# ---- lists on their way out


@pytest.mark.parametrize(
    ("method", "member", "item", "outer"),
    [
        ("tools/list", "tools", {"name": "a", "title": "A"}, {"name": "files__a", "title": "A"}),
        ("prompts/list", "prompts", {"name": "a"}, {"name": "files__a"}),
        ("resources/list", "resources", {"uri": "file:///a", "name": "a"}, {"uri": "files+file:///a", "name": "a"}),
        (
            "resources/templates/list",
            "resourceTemplates",
            {"uriTemplate": "file:///{path}", "name": "a"},
            {"uriTemplate": "files+file:///{path}", "name": "a"},
        ),
    ],
)
def test_listed_items_carry_outer_names(method, member, item, outer):
    result = encoded({member: [item, item], "nextCursor": "x"})
    assert json.loads(msgspec.json.encode(outer_items(FILES, method, result))) == [outer, outer]
    assert json.loads(msgspec.json.encode(outer_items(ALONE, method, result))) == [item, item]


def test_a_list_that_is_absent_is_empty():
    assert outer_items(FILES, "tools/list", b"{}") == []


@pytest.mark.parametrize(
    "result",
    [
        b'{"tools":{}}',
        b'{"tools":[7]}',
        b'{"tools":null}',
        b'{"tools":[{}]}',
        b'{"tools":[{"title":"no name"}]}',
        b'{"tools":[{"name":7}]}',
    ],
)
def test_what_is_no_list_of_that_method_is_an_error_of_decoding(result):
    with pytest.raises(msgspec.DecodeError):
        outer_items(FILES, "tools/list", result)


# ---- results on their way out
# Source: MCP 2026-07-28, server/tools "Resource Links", "Embedded Resources"; server/resources; server/prompts.

LINK = {"type": "resource_link", "uri": "file:///a", "name": "a"}
OUTER_LINK = {**LINK, "uri": "files+file:///a"}
EMBEDDED = {"type": "resource", "resource": {"uri": "file:///a", "text": "x"}}
FILLING = {"filling": "x" * 10_000}
OUTER_EMBEDDED = {"type": "resource", "resource": {"uri": "files+file:///a", "text": "x"}}


@pytest.mark.parametrize(
    ("result", "outer"),
    [
        (
            {"content": [LINK, {"type": "text", "text": "t"}, EMBEDDED]},
            {"content": [OUTER_LINK, {"type": "text", "text": "t"}, OUTER_EMBEDDED]},
        ),
        ({"messages": [{"role": "user", "content": EMBEDDED}]}, {"messages": [{"role": "user", "content": OUTER_EMBEDDED}]}),
        ({"messages": [{"role": "user", "content": [LINK]}]}, {"messages": [{"role": "user", "content": [OUTER_LINK]}]}),
        ({"contents": [{"uri": "file:///a", "text": "x"}]}, {"contents": [{"uri": "files+file:///a", "text": "x"}]}),
        ({"contents": [], "content": []}, {"contents": [], "content": []}),
    ],
)
def test_resources_in_results_can_be_read_back(result, outer):
    assert renamed(result) == outer
    assert renamed(result, ALONE) == result
    assert renamed(result | FILLING) == outer | FILLING


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": '{"type":"resource_link","uri":"file:///a"}'}]},
        {"content": [], "structuredContent": LINK},
        {"structuredContent": {"content": [LINK], "contents": [{"uri": "file:///a"}]}},
        {"_meta": {"content": [LINK]}, "content": [{"type": "text", "text": "resource"}]},
        {"content": [{"type": "image", "uri": "file:///a", "about": "resource"}]},
    ],
)
def test_data_that_only_looks_like_a_resource_is_left_alone(result):
    assert renamed(result) == result
    assert renamed(result | FILLING) == result | FILLING


@pytest.mark.parametrize(
    "result",
    [
        {"content": None, "a": "resource"},
        {"content": [None, 7, [], {"type": "resource"}, {"type": "resource", "resource": 7}], "a": "resource_link"},
        {"content": [{"type": "resource_link"}, {"type": "resource_link", "uri": 7}, {"type": ["resource"], "uri": "x"}]},
        {"contents": [None, {"uri": None}, "resource"]},
        {"contents": "contents"},
        {"messages": [None, {}, {"content": None}, {"content": "resource"}], "a": "resource"},
        {"messages": {}, "a": "resource"},
    ],
)
def test_a_malformed_result_passes_through_as_it_is(result):
    assert renamed(result) == result
    assert renamed(result | FILLING) == result | FILLING


@pytest.mark.parametrize("text", ["a", "a" * 10_000, '\\"resource\\" ui: resourceUri' * 1_000])
def test_a_result_without_resources_keeps_its_bytes(text):
    result = b'{"content": [{"type":"text" , "text":"%b"}], "n": 1.0}' % text.encode()
    assert outer_result(FILES, result) == result


def test_what_the_metadata_of_a_block_names_is_found_in_a_large_result_too():
    block = {"type": "text", "text": "a" * 10_000, "_meta": {"ui": {"resourceUri": "ui://main/a.html"}}}
    assert renamed({"content": [block]})["content"][0]["_meta"] == {"ui": {"resourceUri": "ui://files/main/a.html"}}


def test_numbers_beyond_any_range_survive_beside_a_resource():
    huge = b"9" * 5_000
    result = b'{"structuredContent":{"n":%b,"x":1e999},"content":[{"type":"resource_link","uri":"u","size":%b}]}' % (huge, huge)
    assert outer_result(FILES, result) == result.replace(b'"u"', b'"files+u"')


json_values = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["resource", "resource_link"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "uri", "resource", "content", "contents", "messages", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["content", "contents", "messages", "x"]), json_values), namings)
def test_any_result_passes_and_a_large_one_as_a_small_one(result, naming):
    assert renamed(result | FILLING, naming) == renamed(result, naming) | FILLING


# ---- notifications


def test_an_update_names_the_outer_uri():
    params = b'{"uri":"file:///a","_meta":{"x":1.0}}'
    assert outer_notification(FILES, "notifications/resources/updated", params) == params.replace(b"file:", b"files+file:")


@pytest.mark.parametrize("params", [b"", b"{}", b'{"uri":7}'])
def test_an_update_without_a_uri_passes_through(params):
    assert outer_notification(FILES, "notifications/resources/updated", params) in (params, b"{}")


def test_other_notifications_keep_their_bytes():
    assert outer_notification(FILES, "notifications/progress", b'{"uri": "file:///a"}') == b'{"uri": "file:///a"}'


# ---- interfaces
# Source: MCP Apps (ext-apps) 2026-01-26, "UI Resource Format" and "Resource Discovery".

VIEW, OUTER_VIEW = "ui://board/main.html", "ui://files/board/main.html"
META = {"ui": {"resourceUri": VIEW, "visibility": ["app"], "csp": {"connectDomains": ["https://a.b"]}}, "ui/resourceUri": VIEW}
OUTER_META = {**META, "ui": {**META["ui"], "resourceUri": OUTER_VIEW}, "ui/resourceUri": OUTER_VIEW}


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (VIEW, OUTER_VIEW),
        ("ui://files/a", "ui://files/files/a"),
        ("ui://", "ui://files/"),
        ("ui:///a", "ui://files//a"),
        ("ui://board/{view}", "ui://files/board/{view}"),
        ("UI://board", "files+UI://board"),
        ("ui:board", "files+ui:board"),
    ],
)
def test_an_interface_keeps_its_scheme_and_is_named_by_its_backend(inner, outer):
    assert FILES.outer_uri(inner) == outer
    assert FILES.inner_uri(outer) == inner
    assert FILES.has_uri(outer)
    assert not Naming("mail", "mail__").has_uri(outer)


@settings(deadline=None)
@given(namings, st.text())
def test_every_interface_can_be_read_by_the_name_that_is_shown(naming, rest):
    outer = naming.outer_uri(f"ui://{rest}")
    assert outer.startswith("ui://")
    assert naming.inner_uri(outer) == f"ui://{rest}"


def test_the_name_of_an_interface_before_it_kept_its_scheme_is_still_understood():
    assert FILES.inner_uri(f"files+{VIEW}") == VIEW


@pytest.mark.parametrize(
    ("meta", "outer"),
    [
        (META, OUTER_META),
        ({"openai/outputTemplate": VIEW}, {"openai/outputTemplate": OUTER_VIEW}),
        ({"x": [{"y": [VIEW, 1]}]}, {"x": [{"y": [OUTER_VIEW, 1]}]}),
        ({"ui": {"resourceUri": "https://a/b"}}, {"ui": {"resourceUri": "files+https://a/b"}}),
        ({"ui": {"domain": "a.b", "csp": {"frameDomains": ["https://a.b"]}}, "about": "see ui://x"},) * 2,
        ({"ui": {"resourceUri": 7}},) * 2,
        ({"ui": None, "ui/resourceUri": None, "x": "gui:"},) * 2,
        (None, None),
        ([VIEW], [OUTER_VIEW]),
    ],
)
def test_what_metadata_names_can_be_read_wherever_it_stands(meta, outer):
    tool = {"name": "t", "_meta": meta}
    (listed,) = outer_items(FILES, "tools/list", encoded({"tools": [tool]}))
    assert json.loads(msgspec.json.encode(listed)) == {"name": "files__t", "_meta": outer}
    (resource,) = outer_items(FILES, "resources/list", encoded({"resources": [{"uri": VIEW, "_meta": meta}]}))
    assert json.loads(msgspec.json.encode(resource)) == {"uri": OUTER_VIEW, "_meta": outer}
    block, contents = {"type": "text", "text": VIEW, "_meta": meta}, {"uri": VIEW, "text": "", "_meta": meta}
    result = {"content": [block, {"type": "resource", "resource": contents, "_meta": meta}], "_meta": meta}
    outer_contents = {**contents, "uri": OUTER_VIEW, "_meta": outer}
    outer_blocks = [{**block, "_meta": outer}, {"type": "resource", "resource": outer_contents, "_meta": outer}]
    assert renamed(result) == {"content": outer_blocks, "_meta": outer}
    assert renamed({"contents": [contents]}) == {"contents": [outer_contents]}
    assert json.loads(outer_notification(FILES, "notifications/x", encoded({"_meta": meta}))) == {"_meta": outer}
    assert renamed(result, ALONE) == result


def test_a_slash_that_a_server_escapes_hides_no_interface():
    result = b'{"content":[],"_meta":{"x":"ui:\\/\\/board"}}'
    assert json.loads(outer_result(FILES, result))["_meta"] == {"x": "ui://files/board"}


def test_metadata_that_names_no_resource_keeps_its_bytes():
    result = b'{"content": [], "structuredContent": {"u": "ui://board"}, "_meta": {"n": 1.0}}'
    assert json.loads(outer_result(FILES, result)) == json.loads(result)
    assert outer_result(FILES, result.replace(b"ui:", b"ux:")) == result.replace(b"ui:", b"ux:")


def test_metadata_is_read_to_a_bounded_depth():
    deep = b'{"content":[],"_meta":' + b'{"a":' * 900 + b'"ui://x"' + b"}" * 901
    assert outer_result(FILES, deep) == deep


def test_an_update_of_an_interface_names_it_as_it_is_read():
    updated = outer_notification(FILES, "notifications/resources/updated", encoded({"uri": VIEW}))
    assert json.loads(updated) == {"uri": OUTER_VIEW}


@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe", "resources/unsubscribe"])
def test_a_request_for_an_interface_reaches_its_backend_by_its_own_name(method):
    assert json.loads(inner_params(FILES, method, encoded({"uri": OUTER_VIEW}))) == {"uri": VIEW}
    assert route_target(method, encoded({"uri": OUTER_VIEW}), b"1") == f"resources/read/{OUTER_VIEW}"
