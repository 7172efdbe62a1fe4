"""Schemas of an OpenAPI description as JSON Schema of 2020-12, which tools have: references local, sizes bounded. Pure.

Source: OpenAPI 3.0.4 and 3.1.1, "Schema Object"; JSON Schema 2020-12. Of 3.0 what is spelled otherwise there is translated; what
is for documentation or for XML is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

DEEPEST: Final = 64
_MOST_REFERENCED: Final = 200
_LEFT_OUT: Final = frozenset(
    {
        "xml",
        "discriminator",
        "externalDocs",
        "example",
        "examples",
        "readOnly",
        "writeOnly",
        "nullable",
        "deprecated",
    }
)
_OF_SCHEMAS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Members that are tables of schemas: their keys are names."""
_VALUES: Final = frozenset({"enum", "const", "default", "required", "type", "pattern", "format", "title", "description"})
"""Members that are no schemas: they stay as they are."""


class TooComplex(Exception):
    """More levels or more references than any reader should follow; the text says where."""


class ReferenceRefused(Exception):
    """A reference that leads out of the description, or nowhere; the text has it."""


def resolved(document: Mapping[str, Any], value: Any) -> Any:
    """What a reference leads to, and it itself where it is none.

    Raises: ReferenceRefused, TooComplex
    """
    for _ in range(DEEPEST):
        if not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
            return value
        value = _target(document, value["$ref"])
    raise TooComplex("references that lead to references without end")


def _target(document: Mapping[str, Any], reference: str) -> Any:
    """Source: RFC 6901; only what is in the document itself: whoever writes descriptions chooses no other addresses."""
    if not reference.startswith("#/"):
        raise ReferenceRefused(f"{reference[:200]!r} is not in the description itself")
    found: Any = document
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and len(key) < 6 and int(key) < len(found):
            found = found[int(key)]
        else:
            raise ReferenceRefused(f"{reference[:200]!r} leads nowhere")
    return found


def is_json(media_type: str) -> bool:
    """Source: RFC 6839, section 3.1. media_type: without parameters, in lower case."""
    return media_type == "application/json" or media_type.endswith("+json")


class SchemaWriter:
    """Writes schemas of one tool. What they refer to goes to `definitions`, each once, however often and in whatever circles.

    leaves: "writeOnly" for answers, "readOnly" for arguments: what is marked so need not be there.
    """

    def __init__(self, document: Mapping[str, Any], leaves: str = "readOnly") -> None:
        self._document = document
        self._leaves = leaves
        self._names: dict[str, str] = {}
        self.definitions: dict[str, Any] = {}

    def write(self, schema: Any) -> Any:
        """The schema as JSON Schema has it.

        Raises: ReferenceRefused, TooComplex
        """
        return self._schema(schema, 0)

    def _schema(self, schema: Any, depth: int) -> Any:
        if depth > DEEPEST:
            raise TooComplex(f"a schema of more than {DEEPEST} levels")
        if not isinstance(schema, dict):
            return schema if isinstance(schema, bool) else {}
        if isinstance(reference := schema.get("$ref"), str):
            beside = {key: schema[key] for key in ("description", "default", "title") if key in schema}
            return {"$ref": f"#/$defs/{self._defined(reference, depth)}", **beside}
        written = {name: self._member(name, value, depth) for name, value in schema.items() if _is_kept(name)}
        _spell_as_2020_12(written, is_nullable=schema.get("nullable") is True)
        if isinstance(required := written.get("required"), list):
            written["required"] = [name for name in required if not self._may_lack(schema, name)]
        return written

    def _may_lack(self, schema: Mapping[str, Any], name: Any) -> bool:
        """Source: OpenAPI 3.0.4, "Schema Object", `readOnly` and `writeOnly`: required in one direction only."""
        properties = schema.get("properties")
        inner = properties.get(name) if isinstance(properties, dict) and isinstance(name, str) else None
        return isinstance(inner, dict) and inner.get(self._leaves) is True

    def _member(self, name: str, value: Any, depth: int) -> Any:
        if name in _VALUES:
            return value
        if name in _OF_SCHEMAS:
            return {key: self._schema(inner, depth + 1) for key, inner in value.items()} if isinstance(value, dict) else {}
        if isinstance(value, dict):
            return self._schema(value, depth + 1)
        if isinstance(value, list):
            return [self._schema(inner, depth + 1) if isinstance(inner, dict) else inner for inner in value]
        return value

    def _defined(self, reference: str, depth: int) -> str:
        if (name := self._names.get(reference)) is not None:
            return name
        if len(self._names) >= _MOST_REFERENCED:
            raise TooComplex(f"more than {_MOST_REFERENCED} schemas")
        name = self._names[reference] = self._free_name(reference)
        self.definitions[name] = {}
        self.definitions[name] = self._schema(_target(self._document, reference), depth + 1)
        return name

    def _free_name(self, reference: str) -> str:
        base = re.sub(r"[^A-Za-z0-9_.-]", "_", reference.rpartition("/")[2])[:64] or "schema"
        names = set(self._names.values())
        return base if base not in names else next(f"{base}_{n}" for n in range(2, 1_000) if f"{base}_{n}" not in names)


def _is_kept(name: object) -> bool:
    return isinstance(name, str) and name not in _LEFT_OUT and not name.startswith(("x-", "$schema", "$id", "$anchor"))


def _spell_as_2020_12(schema: dict[str, Any], *, is_nullable: bool) -> None:
    """Source: OpenAPI 3.0.4, "Schema Object": nullable, and exclusive limits that are true or false as in draft 4."""
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if (value := schema.get(exclusive)) is True and limit in schema:
            schema[exclusive] = schema.pop(limit)
        elif isinstance(value, bool):
            del schema[exclusive]
    if schema.get("type") == "file":  # of Swagger 2.0, which some converters leave
        schema["type"] = "string"
    if is_nullable and isinstance(kind := schema.get("type"), str):
        schema["type"] = [kind, "null"]
        if isinstance(values := schema.get("enum"), list) and None not in values:
            schema["enum"] = [*values, None]
