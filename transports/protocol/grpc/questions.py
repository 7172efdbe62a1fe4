"""What servers ask clients within a result, and what clients answer, in the messages of gRPC.

Source: MCP 2026-07-28, basic/patterns/mrtr, client/elicitation; mcp_messages.proto, `InputRequest` and `InputResponse`.
"""

from __future__ import annotations

from typing import Any, Final

from .messages import FORMS, Form, fill, fill_fields, fill_said, json_of, read_said, walk
from .values import Budget, CannotCross, number_of

_FORMATS: Final = ("", "email", "uri", "date", "date-time")
_REQUESTS: Final = {
    "elicitation/create": "elicit_request",
    "sampling/createMessage": "sampling_create_message",
    "roots/list": "list_roots_request",
}
_RESULTS: Final = {"action": "elicit_result", "model": "sampling_create_message_result", "roots": "root_list_result"}
"""{member by which a client's answer is told: field}."""


def _read_request(message: Any, budget: Budget) -> dict[str, Any]:
    for method, name in _REQUESTS.items():
        if message.HasField(name):
            params = json_of(getattr(message, name), budget)
            return {"method": method, "params": params} if params else {"method": method}
    raise CannotCross("a question of a kind that is not known here")


def _fill_request(message: Any, value: Any, budget: Budget) -> None:
    name = _REQUESTS.get(value["method"])
    if name is None:
        raise CannotCross(f"gRPC has no question {str(value['method'])[:100]!r}")
    fill(getattr(message, name), value.get("params") or {}, budget)


def _read_response(message: Any, budget: Budget) -> Any:
    for name in _RESULTS.values():
        if message.HasField(name):
            return json_of(getattr(message, name), budget)
    raise CannotCross("an answer of a kind that is not known here")


def _fill_response(message: Any, value: Any, budget: Budget) -> None:
    name = next((name for member, name in _RESULTS.items() if member in value), None)
    if name is None:
        raise CannotCross("gRPC has no answer of this kind")
    fill(getattr(message, name), value, budget)


def _read_elicitation(message: Any, budget: Budget) -> dict[str, Any]:
    if message.HasField("url_mode"):
        asked = {"mode": "url", "message": message.message, "url": message.url_mode.url}
        return {**asked, "elicitationId": message.url_mode.id} if message.url_mode.id else asked
    properties = {name: json_of(each, budget) for name, each in message.requested_schema.items()}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if message.required_fields:
        schema["required"] = list(message.required_fields)
    return {"mode": "form", "message": message.message, "requestedSchema": schema}


def _fill_elicitation(message: Any, value: Any, budget: Budget) -> None:
    message.message = value["message"]
    if value.get("mode") == "url":
        message.url_mode.url = value["url"]
        message.url_mode.id = value.get("elicitationId") or ""
        return
    schema = value["requestedSchema"]
    for name, each in schema["properties"].items():
        fill(message.requested_schema[name], each, budget)
    message.required_fields.extend(schema.get("required") or ())


def _read_elicited(message: Any, budget: Budget) -> dict[str, Any]:
    """An answer of a kind that is not known here is taken for none."""
    answer = walk(message, budget)
    return {**answer, "action": answer.get("action") or "cancel"}


def _fill_sampling(message: Any, value: Any, budget: Budget) -> None:
    if value.get("tools"):
        raise CannotCross("gRPC has no sampling with tools")
    fill_fields(message, value, budget)


def _read_sampled(message: Any, budget: Budget) -> dict[str, Any]:
    said = walk(message, budget)
    return {**said.pop("message", {}), **said}


def _fill_sampled(message: Any, value: Any, budget: Budget) -> None:
    fill_fields(message, {"model": value["model"], "stopReason": value.get("stopReason"), "message": value}, budget)


# ---- one field of a form


def _read_schema(message: Any, budget: Budget) -> dict[str, Any]:
    if message.HasField("boolean_schema"):
        return {"type": "boolean", **json_of(message.boolean_schema, budget)}
    if message.HasField("number_schema"):
        return _read_number(message.number_schema)
    if message.HasField("enum_schema"):
        return _read_choice(message.enum_schema)
    held = message.string_schema
    schema = {"type": "string", **_described(held)}
    schema |= {member: getattr(held, name) for member, name in _LENGTHS.items() if held.HasField(name)}
    return {**schema, "format": _FORMATS[held.format]} if 0 < held.format < len(_FORMATS) else schema


_LENGTHS: Final = {"minLength": "min_length", "maxLength": "max_length", "default": "default_value"}


def _described(held: Any) -> dict[str, Any]:
    return {name: getattr(held, name) for name in ("title", "description") if getattr(held, name)}


def _read_number(held: Any) -> dict[str, Any]:
    is_whole = held.HasField("integer_range") or held.HasField("default_integer")
    bounds = held.integer_range if held.HasField("integer_range") else held.double_range
    schema = {"type": "integer" if is_whole else "number", **_described(held)}
    schema |= {name: number_of(getattr(bounds, name)) for name in ("minimum", "maximum") if bounds.HasField(name)}
    for name in ("default_integer", "default_number"):
        if held.HasField(name):
            schema["default"] = number_of(getattr(held, name))
    return schema


def _read_choice(held: Any) -> dict[str, Any]:
    values, names = list(held.enum_list), list(held.enum_names)
    is_named = bool(names) and len(names) == len(values)
    named = [{"const": value, "title": name} for value, name in zip(values, names, strict=False)]
    schema: dict[str, Any] = _described(held)
    if not held.HasField("multi_select"):
        schema |= {"type": "string", **({"oneOf": named} if is_named else {"enum": values})}
        if held.single_select.HasField("default_item"):
            schema["default"] = held.single_select.default_item
        return schema
    several = held.multi_select
    schema |= {"type": "array", "items": {"anyOf": named} if is_named else {"type": "string", "enum": values}}
    schema |= {member: getattr(several, name) for member, name in _COUNTS.items() if several.HasField(name)}
    return {**schema, "default": list(several.default_items)} if several.default_items else schema


_COUNTS: Final = {"minItems": "min_items", "maxItems": "max_items"}


def _fill_schema(message: Any, value: Any, budget: Budget) -> None:
    kind = value.get("type")
    if kind == "array" or "enum" in value or "oneOf" in value:
        _fill_choice(message.enum_schema, value)
    elif kind == "boolean":
        fill(message.boolean_schema, value, budget)
    elif kind in ("number", "integer"):
        _fill_number(message.number_schema, value, is_whole=kind == "integer")
    elif kind == "string":
        _describe(message.string_schema, value)
        _set(message.string_schema, value, _LENGTHS)
        word = value.get("format")
        message.string_schema.format = _FORMATS.index(word) if word in _FORMATS else 0
    else:
        raise CannotCross(f"gRPC has no field of type {str(kind)[:100]!r} in a form")


def _describe(held: Any, value: Any) -> None:
    held.SetInParent()
    _set(held, value, {"title": "title", "description": "description"})


def _set(held: Any, value: Any, members: dict[str, str]) -> None:
    for member, name in members.items():
        if value.get(member) is not None:
            setattr(held, name, value[member])


def _fill_number(held: Any, value: Any, *, is_whole: bool) -> None:
    _describe(held, value)
    bounds = held.integer_range if is_whole else held.double_range
    bounds.SetInParent()
    _set(bounds, value, {"minimum": "minimum", "maximum": "maximum"})
    _set(held, value, {"default": "default_integer" if is_whole else "default_number"})


def _fill_choice(held: Any, value: Any) -> None:
    _describe(held, value)
    is_several = value.get("type") == "array"
    choice = value["items"] if is_several else value
    named = choice.get("oneOf") or choice.get("anyOf")
    held.enum_list.extend([each["const"] for each in named] if named else choice["enum"])
    held.enum_names.extend([each.get("title") or each["const"] for each in named] if named else choice.get("enumNames") or ())
    if not is_several:
        _set(held.single_select, value, {"default": "default_item"})
        return
    held.multi_select.SetInParent()
    _set(held.multi_select, value, _COUNTS)
    held.multi_select.default_items.extend(value.get("default") or ())


QUESTION_FORMS: Final[dict[str, Form]] = {
    "InputRequest": Form(_read_request, _fill_request),
    "InputResponse": Form(_read_response, _fill_response),
    "ElicitRequest": Form(_read_elicitation, _fill_elicitation),
    "ElicitResult": Form(_read_elicited, fill_fields),
    "SamplingMessage": Form(read_said, fill_said),
    "SamplingCreateMessageRequest": Form(walk, _fill_sampling),
    "SamplingCreateMessageResult": Form(_read_sampled, _fill_sampled),
    "PrimitiveSchemaDefinition": Form(_read_schema, _fill_schema),
}
FORMS.update(QUESTION_FORMS)
