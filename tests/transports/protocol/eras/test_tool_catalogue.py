"""Arguments that become headers, tools that must not be offered, tools that may run twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from mcp_gateway.transports.protocol.eras.tool_catalogue import (
    MOST_ANNOUNCING,
    AnnouncedHeaders,
    HeaderParameter,
    known_tool,
    known_tools,
    listed_names,
    parameter_headers,
    without_forbidden_tools,
)
from tests.transports.protocol.eras.test_translation import dumped, json_values


def schema(**properties: Any) -> dict[str, Any]:
    return {"name": "t", "inputSchema": {"type": "object", "properties": properties}}


REGION = {"type": "string", "x-mcp-header": "Region"}


def test_annotated_arguments_are_found_along_chains_of_properties() -> None:
    zone = {"type": "integer", "x-mcp-header": "Z"}
    tool = known_tool(schema(region=REGION, where={"type": "object", "properties": {"zone": zone}}))
    assert tool.parameters == (HeaderParameter(("region",), "Region"), HeaderParameter(("where", "zone"), "Z"))
    assert tool.problem == ""


@pytest.mark.parametrize(
    "tool",
    [
        schema(a={"type": "string", "x-mcp-header": ""}),
        schema(a={"type": "string", "x-mcp-header": 1}),
        schema(a={"type": "string", "x-mcp-header": "two words"}),
        schema(a={"type": "string", "x-mcp-header": "a\r\nb"}),
        schema(a={"type": "number", "x-mcp-header": "A"}),
        schema(a={"type": "object", "x-mcp-header": "A"}),
        schema(a={"x-mcp-header": "A"}),
        schema(a=REGION, b={"type": "string", "x-mcp-header": "REGION"}),
        schema(a={"type": "array", "items": REGION}),
        schema(a={"anyOf": [REGION]}),
        {"name": "t", "inputSchema": {"$defs": {"x": REGION}}},
        {"name": "t", "inputSchema": {"if": {"properties": {"a": REGION}}}},
    ],
)
def test_a_tool_that_breaks_a_rule_is_not_offered(tool: dict[str, Any]) -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Schema Extension"."""
    assert known_tool(tool).problem
    good = {**schema(), "name": "good"}
    result, problems = without_forbidden_tools(dumped({"tools": [tool, good], "nextCursor": "c"}))
    assert json.loads(result) == {"tools": [good], "nextCursor": "c"}
    assert list(problems) == ["t"]


@pytest.mark.parametrize(
    "tool",
    [
        schema(**{"x-mcp-header": {"type": "string"}}),
        schema(a={"type": "string", "default": {"x-mcp-header": "no annotation"}}),
        schema(a={"type": "string", "const": {"x-mcp-header": 1}}),
        {"name": "t"},
        {"name": "t", "inputSchema": True},
    ],
)
def test_what_only_looks_like_an_annotation_is_none(tool: dict[str, Any]) -> None:
    assert known_tool(tool).problem == ""
    assert known_tool(tool).parameters == ()
    page = dumped({"tools": [tool]})
    assert without_forbidden_tools(page) == (page, {})


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("us-west1", "us-west1"),
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        (42, "42"),
        (-7, "-7"),
        (42.0, "42"),
        (True, "true"),
        (False, "false"),
        (None, None),
        ([1], None),
    ],
)
def test_a_value_is_encoded_as_the_specifications_examples(value: Any, header: str | None) -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Value Encoding"."""
    tool = known_tool(schema(region=REGION))
    expected = {} if header is None else {"mcp-param-region": header}
    assert parameter_headers(tool, dumped({"region": value})) == expected


def test_absent_arguments_have_no_header() -> None:
    nested = known_tool(schema(where={"type": "object", "properties": {"zone": {"type": "integer", "x-mcp-header": "Z"}}}))
    for arguments in (b"", b"{}", b'{"where":1}', b'{"where":{}}'):
        assert parameter_headers(nested, arguments) == {}
    assert parameter_headers(nested, b'{"where":{"zone":3}}') == {"mcp-param-z": "3"}


@pytest.mark.parametrize(
    ("annotations", "may_repeat"),
    [
        (None, False),
        ({}, False),
        ({"readOnlyHint": True}, True),
        ({"idempotentHint": True}, True),
        ({"readOnlyHint": "yes"}, False),
        ({"destructiveHint": False}, False),
    ],
)
def test_only_a_tool_that_says_so_may_run_twice(annotations: Any, may_repeat: bool) -> None:
    assert known_tool({"name": "t", "annotations": annotations}).may_repeat is may_repeat


@given(json_values)
def test_any_schema_is_read(value: Any) -> None:
    known_tools(dumped({"tools": [{"name": "t", "inputSchema": value}, value]}))
    known_tools(dumped({"tools": value}))


# ---- headers that a legacy server announces and cannot check


def page(*tools: dict[str, Any]) -> bytes:
    return json.dumps({"tools": tools}).encode()


def announced(*tools: dict[str, Any]) -> AnnouncedHeaders:
    found = AnnouncedHeaders()
    found.note(page(*tools))
    return found


@pytest.mark.parametrize(
    ("arguments", "headers", "said"),
    [
        ({"region": "eu"}, {"mcp-param-region": "eu"}, ""),
        ({"region": "ü"}, {"mcp-param-region": "=?base64?w7w=?="}, ""),
        ({"region": "Hello"}, {"mcp-param-region": "=?base64?SGVsbG8?="}, "broken Base64"),
        ({"region": "=?base64?SGVsbG8="}, {"mcp-param-region": "=?base64?SGVsbG8="}, ""),
        ({"region": "eu"}, {"mcp-param-region": "us"}, "is 'us', and the argument is 'eu'"),
        ({"region": "eu"}, {}, "is missing, and the argument is 'eu'"),
        ({"region": ""}, {}, "is missing"),
        ({}, {"mcp-param-region": "eu"}, "is 'eu', and the argument is 'None'"),
        ({"region": None}, {}, ""),
        ({}, {}, ""),
        ({"region": {"what": 1}}, {}, ""),
        ({"region": {"what": 1}}, {"mcp-param-region": "eu"}, ""),
        ({"region": "eu", "other": 1}, {"mcp-param-region": "eu", "mcp-param-other": "2"}, ""),
    ],
)
def test_the_headers_of_a_call_say_what_its_arguments_say(arguments: Any, headers: dict[str, str], said: str) -> None:
    """Source: "Server Behavior for Custom Headers". What is no primitive has no header; the server says what is wrong with it."""
    problem = announced(schema(region=REGION)).problem("t", json.dumps(arguments).encode(), headers)
    assert said in problem
    assert bool(problem) == bool(said)


def test_a_tool_that_announces_nothing_or_is_not_known_is_not_checked() -> None:
    assert announced(schema(region={"type": "string"})).problem("t", b'{"region":"eu"}', {}) == ""
    assert announced(schema(region=REGION)).problem("another", b'{"region":"eu"}', {}) == ""
    changed = announced(schema(region=REGION))
    changed.note(page(schema(region={"type": "string"})))
    assert changed.problem("t", b'{"region":"eu"}', {}) == ""


def test_so_many_announcing_tools_are_known_and_no_more() -> None:
    tools = [{**schema(region=REGION), "name": f"t{number}"} for number in range(MOST_ANNOUNCING + 1)]
    known = announced(*tools)
    assert known.problem("t0", b'{"region":"eu"}', {}) == ""
    assert known.problem("t1", b'{"region":"eu"}', {}) != ""
    assert known.problem(f"t{MOST_ANNOUNCING}", b'{"region":"eu"}', {}) != ""


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (b'{"tools":[{"name":"a","inputSchema":{"type":"object"}},{"name":"b"}],"nextCursor":"x"}', ["a", "b"]),
        (b'{"tools":[]}', []),
        (b'{"tools":[{"name":1}]}', []),
        (b'{"resources":[]}', []),
        (b"", []),
        (b"[" * 100_000, []),
    ],
)
def test_the_names_of_a_page_are_read_and_what_is_no_page_has_none(result: bytes, names: list[str]) -> None:
    assert listed_names(result) == names
