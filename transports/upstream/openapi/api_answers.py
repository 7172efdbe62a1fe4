"""What an operation answers, by its description, as the schema of its tool's structured content. Pure.

Source: OpenAPI 3.0.4 and 3.1.1, "Responses Object"; MCP 2025-11-25, server/tools, "Output Schema".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.transports.protocol.curation.schema_checks import SchemaCheck, Uncheckable
from mcp_gateway.transports.upstream.adapted.adapted_conversation import LARGEST_SCHEMA_BYTES, size_of

from .api_schemas import ReferenceRefused, SchemaWriter, TooComplex, is_json, resolved

RESULT: Final = "result"
"""The member that has what an API answers in place of an object."""
_MOST_PARTS: Final = 10
_DEEPEST_PARTS: Final = 3
"""Of `allOf`, which may lead in circles."""
_NO_OBJECTS: Final = frozenset({"array", "boolean", "integer", "null", "number", "string"})


def output_schema(document: Mapping[str, Any], operation: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where a good answer need have no structured content, where it is unknown which it has, or where nothing could be held
    against the schema: clients refuse results that do not conform.
    """
    writer = SchemaWriter(document, leaves="writeOnly")
    try:
        schemas = [_wrapped(document, writer, schema) for schema in _answers(document, operation)]
    except (ReferenceRefused, TooComplex):
        return None
    if not schemas or None in schemas:
        return None
    alternatives = {"anyOf": schemas} if len(schemas) > 1 else schemas[0] or {}
    found = {**alternatives, "type": "object"}
    if writer.definitions:
        found["$defs"] = writer.definitions
    if size_of(found) > LARGEST_SCHEMA_BYTES:
        return None
    try:
        SchemaCheck(msgspec.json.encode(found))
    except Uncheckable:
        return None
    return found


def _answers(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[Any]:
    """The schema of each good answer; None for one that has no JSON. Raises: ReferenceRefused, TooComplex."""
    responses = operation.get("responses")
    for status, given in responses.items() if isinstance(responses, dict) else ():
        if str(status).startswith("2"):
            response = resolved(document, given)
            content = response.get("content") if isinstance(response, dict) else None
            kinds = content.items() if isinstance(content, dict) else ()
            media = [media for name, media in kinds if is_json(str(name).partition(";")[0].strip().lower())]
            yield media[0].get("schema") if media and len(media) == len(kinds) and isinstance(media[0], dict) else None


def _wrapped(document: Mapping[str, Any], writer: SchemaWriter, schema: Any) -> dict[str, Any] | None:
    """As structured content has it: an object as it is. None where it is not known whether it is one."""
    kinds = _kinds(document, schema)
    if kinds == {"object"}:
        return dict(writer.write(schema))
    if kinds and kinds <= _NO_OBJECTS:
        return {"type": "object", "properties": {RESULT: writer.write(schema)}, "required": [RESULT]}
    return None


def _kinds(document: Mapping[str, Any], schema: Any, depth: int = 0) -> set[str]:
    """Which types it allows; none where it does not say. Raises: ReferenceRefused, TooComplex."""
    schema = resolved(document, schema)
    if not isinstance(schema, dict):
        return set()
    match schema.get("type"):
        case str(kind):
            kinds = {kind}
        case list(given):
            kinds = {kind for kind in given if isinstance(kind, str)}
        case _:
            parts = schema.get("allOf")
            looked_at = parts[:_MOST_PARTS] if isinstance(parts, list) and depth < _DEEPEST_PARTS else []
            kinds = {"object"} if any(_kinds(document, part, depth + 1) == {"object"} for part in looked_at) else set()
    return kinds | {"null"} if kinds and schema.get("nullable") is True else kinds
