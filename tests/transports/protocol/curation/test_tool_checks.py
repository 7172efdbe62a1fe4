"""Calls and results against what tools say of themselves."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.protocol.curation import tool_checks
from mcp_gateway.transports.protocol.curation.tool_checks import ARGUMENTS, RESULTS, ToolChecks

INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def page(*tools: dict[str, Any]) -> bytes:
    return json.dumps({"tools": tools}).encode()


def made(*what: str) -> ToolChecks:
    checks = ToolChecks(frozenset(what))
    checks.learn(page({"name": "t", "inputSchema": INTEGER, "outputSchema": INTEGER}, {"name": "plain"}))
    return checks


def result(**said: Any) -> bytes:
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    ("params", "is_right"),
    [
        ({"arguments": {"n": 1}}, True),
        ({"arguments": {"n": "1"}}, False),
        ({"arguments": {}}, False),
        ({"arguments": None}, False),
        ({}, False),
    ],
)
def test_arguments_are_held_against_the_schema(params: dict[str, Any], is_right: bool) -> None:
    encoded = json.dumps(params).encode()
    assert (made(ARGUMENTS).arguments_problem("t", encoded) is None) == is_right
    assert made(RESULTS).arguments_problem("t", encoded) is None
    assert made(ARGUMENTS).arguments_problem("plain", encoded) is None
    assert made(ARGUMENTS).arguments_problem("unknown", encoded) is None


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        ({"structuredContent": {"n": 1}, "content": []}, True),
        ({"structuredContent": {"n": "1"}, "content": []}, False),
        ({"content": []}, False),
        ({"content": [], "isError": True}, True),
        ({"resultType": "input_required", "inputRequests": {}}, True),
        ({"task": {"taskId": "1"}}, True),
    ],
)
def test_results_are_held_against_the_schema(said: dict[str, Any], is_right: bool) -> None:
    assert (made(RESULTS).result_problem("t", result(**said)) is None) == is_right
    assert made(ARGUMENTS).result_problem("t", result(**said)) is None
    assert made(RESULTS).result_problem("plain", result(**said)) is None


def test_a_schema_that_cannot_be_used_checks_nothing_and_is_told_of_once() -> None:
    checks = ToolChecks(frozenset({ARGUMENTS}))
    checks.learn(page({"name": "t", "inputSchema": {"$ref": "#"}}, {"name": "large", "inputSchema": {"x": "y" * 70_000}}))
    for _ in range(2):
        assert checks.arguments_problem("t", b"{}") is None
        assert checks.arguments_problem("large", b"{}") is None
    assert checks.take_unusable().keys() == {"t", "large"}
    assert checks.take_unusable() == {}


def test_a_list_that_is_read_again_counts() -> None:
    checks = made(ARGUMENTS)
    checks.learn(page({"name": "t"}))
    assert (checks.arguments_problem("t", b"{}"), checks.knows("t"), checks.knows("u")) == (None, True, False)


def test_only_so_many_schemas_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_checks, "MOST_TOOLS", 2)
    monkeypatch.setattr(tool_checks, "_MOST_BYTES", 100)
    checks = ToolChecks(frozenset({ARGUMENTS}))
    checks.learn(page({"name": "a", "inputSchema": {"x": "y" * 200}}, {"name": "b"}, {"name": "c"}, {"name": "d"}))
    assert [checks.knows(name) for name in "abcd"] == [False, True, True, False]


@pytest.mark.parametrize("listed", [b"[]", b'{"tools": 3}', b'{"tools": [{}]}'])
def test_what_is_no_list_is_an_error(listed: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        ToolChecks(frozenset()).learn(listed)
