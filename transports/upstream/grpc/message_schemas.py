"""Messages of Protocol Buffers as JSON Schema, in their JSON form. Pure.

Source: ProtoJSON, "Representation of each type"; JSON Schema 2020-12.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_MOST_MESSAGES: Final = 200
_INTEGER: Final = {"type": "integer"}
_LONG: Final = {"type": ["integer", "string"], "pattern": "^-?[0-9]+$"}
_NUMBER: Final = {"type": "number"}
_SCALARS: Final[dict[int, dict[str, Any]]] = {
    **dict.fromkeys(
        (
            FieldDescriptor.TYPE_INT32,
            FieldDescriptor.TYPE_SINT32,
            FieldDescriptor.TYPE_UINT32,
            FieldDescriptor.TYPE_FIXED32,
            FieldDescriptor.TYPE_SFIXED32,
        ),
        _INTEGER,
    ),
    **dict.fromkeys(
        (
            FieldDescriptor.TYPE_INT64,
            FieldDescriptor.TYPE_SINT64,
            FieldDescriptor.TYPE_UINT64,
            FieldDescriptor.TYPE_FIXED64,
            FieldDescriptor.TYPE_SFIXED64,
        ),
        _LONG,
    ),
    FieldDescriptor.TYPE_FLOAT: _NUMBER,
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_WELL_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Any": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {},
    "google.protobuf.BoolValue": {"type": ["boolean", "null"]},
    "google.protobuf.StringValue": {"type": ["string", "null"]},
    "google.protobuf.BytesValue": {"type": ["string", "null"]},
    **{
        f"google.protobuf.{name}Value": {"type": ["integer", "string", "null"]} for name in ("Int32", "UInt32", "Int64", "UInt64")
    },
    **{f"google.protobuf.{name}Value": {"type": ["number", "null"]} for name in ("Float", "Double")},
}


def schema_of(message: Descriptor) -> dict[str, Any]:
    """Of an object with the fields of the message. What it holds is below `$defs`, each once; beyond 200 it is any object."""
    writer = _Writer()
    schema = writer.object_of(message)
    return {**schema, "$defs": writer.definitions} if writer.definitions else schema


class _Writer:
    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def object_of(self, message: Descriptor) -> dict[str, Any]:
        properties = {field.json_name: self._field(field) for field in message.fields}
        return {"type": "object", "properties": properties, "additionalProperties": False}

    def _field(self, field: FieldDescriptor) -> dict[str, Any]:
        held = field.message_type
        if held is not None and held.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._one(held.fields_by_name["value"])}
        one = self._one(field)
        return {"type": "array", "items": one} if field.is_repeated else one

    def _one(self, field: FieldDescriptor) -> dict[str, Any]:
        if field.enum_type is not None:
            return {"enum": [value.name for value in field.enum_type.values]}
        if field.message_type is None:
            return dict(_SCALARS.get(field.type, {}))
        name = field.message_type.full_name
        if (known := _WELL_KNOWN.get(name)) is not None:
            return dict(known)
        if name not in self.definitions:
            if len(self.definitions) >= _MOST_MESSAGES:
                return {"type": "object"}
            self.definitions[name] = {}  # it may hold itself
            self.definitions[name] = self.object_of(field.message_type)
        return {"$ref": f"#/$defs/{name}"}
