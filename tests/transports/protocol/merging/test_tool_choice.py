"""Which tools are served, by patterns."""

from __future__ import annotations

import json

import msgspec
import pytest

from mcp_gateway.transports.protocol.merging.tool_choice import ToolChoice


@pytest.mark.parametrize(
    ("patterns", "served"),
    [
        ({}, ["read_file", "read_secret", "write", "a.b"]),
        ({"allow": ["read_*"]}, ["read_file", "read_secret"]),
        ({"deny": ["read_*"]}, ["write", "a.b"]),
        ({"allow": ["read_*", "write"], "deny": ["*secret"]}, ["read_file", "write"]),
        ({"allow": ["*"], "deny": []}, ["read_file", "read_secret", "write", "a.b"]),
        ({"allow": ["a.b", "a*c"]}, ["a.b"]),
        ({"allow": ["axb", "READ_FILE", "read"]}, []),
        ({"deny": ["*"]}, []),
    ],
)
def test_a_tool_is_served_where_it_is_allowed_and_not_denied(patterns: dict[str, list[str]], served: list[str]) -> None:
    choice = ToolChoice(patterns)
    names = ["read_file", "read_secret", "write", "a.b"]
    assert [name for name in names if choice.serves(name)] == served
    page = {"tools": [{"name": name, "inputSchema": {"n": 1.50}} for name in names], "nextCursor": "c", "_meta": {"x": 1}}
    listed = json.loads(choice.served_list(json.dumps(page).encode()))
    assert [tool["name"] for tool in listed["tools"]] == served
    assert {key: listed[key] for key in ("nextCursor", "_meta")} == {"nextCursor": "c", "_meta": {"x": 1}}


@pytest.mark.parametrize("result", [b"[]", b'{"tools": 3}', b'{"tools": [3]}', b'{"tools": [{}]}', b'{"tools": [{"name": 3}]}'])
def test_what_is_no_list_of_tools_is_an_error(result: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        ToolChoice({"deny": ["x"]}).served_list(result)
