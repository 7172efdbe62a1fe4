"""Arguments that become headers, tools that must not be offered, tools that may run twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from mcp_gateway.transports.protocol.tool_catalogue import (
    HeaderParameter,
    known_tool,
    known_tools,
    parameter_headers,
    without_forbidden_tools,
)
from tests.transports.protocol.test_bridge import dumped, json_values


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
