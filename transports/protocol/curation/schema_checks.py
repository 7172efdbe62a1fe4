"""Whether arguments and results are what a tool's JSON Schema says. Pure.

A schema is a server's, and may be made to harm: nothing is fetched for it, its patterns match in linear time, and one that could
make checking take longer than its own size tells is not checked at all, so that the work is bounded by schema and value.

Source: JSON Schema 2020-12, Core; MCP 2025-11-25, server/tools, "Data Types": 2020-12 where a schema names no dialect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

MOST_SCHEMA_BYTES: Final = 65_536
MOST_WORK: Final = 25_000_000
"""Subschemas times bytes of the value: what is more is not looked at, since it holds up the others (some 0.4 s at worst)."""
_MOST_TO_EXPLAIN: Final = 20_000_000
"""Subschemas times bytes of the value times bytes of the schema, where there are alternatives: what is wrong with all of
them is gathered before any is told, each time with what the schema allows (some 50 MB and 0.2 s at worst).
"""
_NOT_EXPLAINED: Final = "it is not what the schema says"
_MOST_NODES: Final = 10_000
"""Subschemas, each counted once for every way that leads to it: what is applied to one value at most."""
_DEEPEST: Final = 64
_LARGEST_PATTERN_BYTES: Final = 1_048_576

_ONE: Final = (
    *("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_SEVERAL: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED: Final = ("dependentSchemas", "patternProperties", "properties")
_REFUSED: Final = frozenset({"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveRef"})
"""What makes a reference lead elsewhere than its pointer says."""

_ALTERNATIVES: Final = (b'"anyOf"', b'"oneOf"')

_decode = msgspec.json.Decoder().decode


class Uncheckable(Exception):
    """A schema that is not used, and why."""


class SchemaCheck:
    """One schema, ready to be held against values. Raises: Uncheckable."""

    def __init__(self, schema: bytes) -> None:
        import jsonschema_rs  # here, because it is 5 MB and 60 ms, and most gateways check nothing

        if len(schema) > MOST_SCHEMA_BYTES:
            raise Uncheckable(f"more than {MOST_SCHEMA_BYTES} bytes")
        try:
            root = _decode(schema)
            if not isinstance(root, dict):
                raise Uncheckable("no object")
            root = {name: value for name, value in root.items() if name not in ("$id", "$schema")}
            self._size = _count_nodes(root)
            written = msgspec.json.encode(root)
            has_alternatives = any(name in written for name in _ALTERNATIVES)
            self._explained = _MOST_TO_EXPLAIN / (self._size * len(written)) if has_alternatives else float("inf")
            patterns = jsonschema_rs.RegexOptions(size_limit=_LARGEST_PATTERN_BYTES, dfa_size_limit=_LARGEST_PATTERN_BYTES)
            self._error = jsonschema_rs.ValidationError
            self._validator = jsonschema_rs.Draft202012Validator(
                root, retriever=_fetch_nothing, pattern_options=patterns, validate_formats=False
            )
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise Uncheckable(str(error).partition("\n")[0][:200]) from None

    def problem(self, value: bytes) -> str | None:
        """What is wrong with a value, in a line; None where it is as it should be, or too much to be looked at.

        value: JSON. Raises: msgspec.DecodeError.
        """
        if len(value) * self._size > MOST_WORK:
            return None
        read = _decode(value)
        if self._validator.is_valid(read):
            return None
        if len(value) > self._explained:
            return _NOT_EXPLAINED
        try:
            self._validator.validate(read)  # up to the first error: a list of all takes a copy of the schema's own words for each
        except self._error as error:
            where = "/".join(map(str, error.instance_path))
            return f"{where[:200]}: {error.message[:200]}" if where else str(error.message[:200])
        return _NOT_EXPLAINED


def _fetch_nothing(uri: str) -> Any:
    raise ValueError(f"refers to {uri[:100]!r}, and nothing is fetched")


def _count_nodes(root: Mapping[str, Any]) -> int:
    """How many there are. Raises: Uncheckable where the schema refers to itself, or is too much."""
    sizes: dict[int, int] = {}  # {id of a subschema: its nodes}; all of them live as long as `root`
    open_ones: set[int] = set()

    def size_of(schema: object, depth: int) -> int:
        if not isinstance(schema, dict):
            return 1
        key = id(schema)
        if key in sizes:
            return sizes[key]
        if key in open_ones:
            raise Uncheckable("refers to itself")
        if depth > _DEEPEST:
            raise Uncheckable(f"nested more than {_DEEPEST} levels")
        if found := _REFUSED & schema.keys():
            raise Uncheckable(f"uses {sorted(found)[0]}")
        open_ones.add(key)
        size = 1 + sum(size_of(each, depth + 1) for each in _applied(schema, root))
        open_ones.discard(key)
        if size > _MOST_NODES:
            raise Uncheckable(f"more than {_MOST_NODES} subschemas")
        sizes[key] = size
        return size

    return size_of(root, 0)


def _applied(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[object]:
    for name in _ONE:
        if isinstance(schema.get(name), dict):
            yield schema[name]
    for name in _SEVERAL:
        if isinstance(schema.get(name), list):
            yield from schema[name]
    for name in _NAMED:
        if isinstance(schema.get(name), dict):
            yield from schema[name].values()
    if "$ref" in schema:
        yield _referred(schema["$ref"], root)


def _referred(reference: object, root: Mapping[str, Any]) -> object:
    """Source: RFC 6901, section 4."""
    if reference == "#":
        return root
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise Uncheckable(f"refers to {str(reference)[:100]!r}, and nothing is fetched")
    found: Any = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, TypeError, ValueError):
            raise Uncheckable(f"refers to {reference[:100]!r}, which is not there") from None
    return found
