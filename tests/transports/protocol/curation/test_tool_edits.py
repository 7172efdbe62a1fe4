"""What is said of a tool, and asked for it, other than its server does."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.protocol.curation.tool_edits import ToolEdit
from mcp_gateway.transports.protocol.mcp.jsonrpc import members

TOOL: dict[str, Any] = {
    "name": "read",
    "title": "Read",
    "description": "Reads.",
    "inputSchema": {
        "type": "object",
        "properties": {"path": {"type": "string"}, "root": {"type": "string"}, "limit": {"type": "integer"}, "any": True},
        "required": ["path", "root", "limit"],
    },
    "annotations": {"readOnlyHint": False, "openWorldHint": True},
}


def shown(override: dict[str, Any], tool: dict[str, Any] = TOOL) -> Any:
    edited = members(json.dumps(tool).encode())
    ToolEdit(override).shown(edited)
    return json.loads(msgspec.json.encode(edited))


def test_texts_are_replaced_and_annotations_added() -> None:
    edited = shown({"title": "Look", "description": "Looks.", "annotations": {"readOnlyHint": True}})
    assert edited == TOOL | {
        "title": "Look",
        "description": "Looks.",
        "annotations": {"readOnlyHint": True, "openWorldHint": True},
    }


def test_what_is_fixed_is_not_shown_and_what_has_a_default_is_not_required() -> None:
    schema = shown({"fixed": {"root": "/srv"}, "defaults": {"limit": 10, "any": 1}})["inputSchema"]
    assert schema["properties"] == {"path": {"type": "string"}, "limit": {"type": "integer", "default": 10}, "any": True}
    assert schema["required"] == ["path"]


@pytest.mark.parametrize("schema", [{"type": "object"}, {}, {"properties": {}}])
def test_a_schema_without_these_arguments_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert shown({"fixed": {"root": 1}, "defaults": {"x": 2}}, {"inputSchema": schema}) == {"inputSchema": schema}


@pytest.mark.parametrize("tool", [{"inputSchema": [1]}, {"inputSchema": {"required": 3}}, {"inputSchema": {"properties": 1}}])
def test_a_schema_that_is_none_is_an_error(tool: dict[str, Any]) -> None:
    with pytest.raises(msgspec.DecodeError):
        shown({"fixed": {"root": 1}}, tool)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"path": "a"}, {"limit": 10, "path": "a", "root": "/srv"}),
        ({"path": "a", "limit": 3}, {"limit": 3, "path": "a", "root": "/srv"}),
        ({"root": "/etc", "Root": "/etc", "ROOT": "/"}, {"limit": 10, "root": "/srv"}),
        (None, {"limit": 10, "root": "/srv"}),
    ],
)
def test_a_client_chooses_what_is_not_fixed_however_it_writes_it(given: Any, sent: dict[str, Any]) -> None:
    edit = ToolEdit({"fixed": {"root": "/srv"}, "defaults": {"limit": 10}})
    assert json.loads(edit.filled(json.dumps(given).encode())) == sent
    assert edit.gives_arguments
    assert not ToolEdit({"title": "x"}).gives_arguments


def test_arguments_that_are_no_object_are_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        ToolEdit({"fixed": {"root": 1}}).filled(b"[1]")
