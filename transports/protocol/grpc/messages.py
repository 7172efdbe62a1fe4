"""The messages of MCP's gRPC proto as the JSON of MCP 2026-07-28, and back.

Most of both is the same under the same name, so fields are walked by their descriptors; what differs is in the tables below.
Members that the proto has no field for are left out, and so are fields that only newer protos have.
Source: GoogleCloudPlatform/mcp-grpc-transport-proto, mcp_messages.proto; MCP 2026-07-28, schema.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from .values import Budget, CannotCross, fill_struct, number_of, object_of

_ENUMS: Final[dict[str, tuple[str, ...]]] = {
    "Role": ("", "user", "assistant"),
    "Theme": ("", "light", "dark"),
    "CacheScope": ("", "public", "private"),
    "ResultType": ("", "complete", "input_required"),
    "IncludeContext": ("none", "thisServer", "allServers"),
    "Type": ("", "accept", "decline", "cancel"),
}
_MEMBERS: Final[dict[str, str]] = {
    "ElicitResult.type": "action",
    "EmbeddedResource.contents": "resource",
    "ReadResourceResponse.resource": "contents",
    "SamplingCreateMessageRequest.stop_sequence": "stopSequences",
}
_ALWAYS: Final[dict[str, frozenset[str]]] = {
    name: frozenset(members.split())
    for name, members in {
        "Tool": "name",
        "Resource": "uri name",
        "ResourceTemplate": "uriTemplate name",
        "Prompt": "name",
        "Argument": "name",
        "Icon": "src",
        "Root": "uri",
        "TextContent": "text",
        "ImageContent": "data mimeType",
        "AudioContent": "data mimeType",
        "ResourceContents": "uri",
        "EmbeddedResource": "resource",
        "ListToolsResponse": "tools",
        "ListResourcesResponse": "resources",
        "ListResourceTemplatesResponse": "resourceTemplates",
        "ListPromptsResponse": "prompts",
        "ListRootsResult": "roots",
        "ReadResourceRequest": "uri",
        "ReadResourceResponse": "contents",
        "GetPromptRequest": "name",
        "GetPromptResponse": "messages",
        "CallToolResponse": "content",
        "SamplingCreateMessageRequest": "messages maxTokens",
        "SamplingCreateMessageResult": "model",
    }.items()
}
"""{message: members that the JSON has to have, be they empty}."""

_LEFT_OUT: Final = frozenset({"resume_data", "notify_on_root_list_update"})
"""Fields of earlier protos, deprecated."""

_BLOCKS: Final[dict[str, str]] = {
    "text": "text",
    "image": "image",
    "audio": "audio",
    "resource": "embedded_resource",
    "resource_link": "resource_link",
}
"""{type of a content block: field}. Of the fields of one message one is set."""

_JSON_TRUE: Final = ("destructiveHint", "openWorldHint")
"""Hints of tools that MCP takes for true where they are absent; the proto takes what is absent for false."""


@attrs.frozen
class Form:
    """How one kind of message differs from what the walk makes of it. Both may raise CannotCross."""

    read: Callable[[Message, Budget], Any]
    fill: Callable[[Message, Any, Budget], None]


def json_of(message: Message, budget: Budget) -> Any:
    """What the message says. Raises: CannotCross"""
    budget.take()
    form = FORMS.get(message.DESCRIPTOR.name)
    return walk(message, budget) if form is None else form.read(message, budget)


def fill(message: Message, value: Any, budget: Budget) -> None:
    """Have the message say this. Raises: CannotCross; TypeError and ValueError where a value is not of its field's type."""
    budget.take()
    message.SetInParent()
    form = FORMS.get(message.DESCRIPTOR.name)
    if form is None:
        fill_fields(message, value, budget)
    else:
        form.fill(message, value, budget)


# ---- the walk


def walk(message: Message, budget: Budget) -> dict[str, Any]:
    """The members that fields of the same names have."""
    described = message.DESCRIPTOR
    always = _ALWAYS.get(described.name, frozenset())
    result: dict[str, Any] = {}
    for field in described.fields:
        if field.name in _LEFT_OUT:
            continue
        if field.name == "common":
            result.update(json_of(message.common, budget))
            continue
        member = member_of(field)
        value = getattr(message, field.name)
        is_there = message.HasField(field.name) if field.has_presence else bool(value)
        if is_there or member in always:
            result[member] = _json_of_field(field, value, budget)
    return result


def fill_fields(message: Message, values: Mapping[str, Any], budget: Budget) -> None:
    """The other way round."""
    if not isinstance(values, dict):
        raise TypeError(f"{message.DESCRIPTOR.name} is an object")
    for field in message.DESCRIPTOR.fields:
        if field.name in _LEFT_OUT:
            continue
        if field.name == "common":
            fill(message.common, values, budget)
        elif (value := values.get(member_of(field))) is not None:
            _fill_field(message, field, value, budget)


def member_of(field: FieldDescriptor) -> str:
    if field.name == "metadata":
        return "_meta"
    if field.name == "ttl":
        return "ttlMs"
    return _MEMBERS.get(f"{field.containing_type.name}.{field.name}") or str(field.json_name)


def _json_of_field(field: FieldDescriptor, value: Any, budget: Budget) -> Any:
    held = field.message_type
    if held is not None and held.GetOptions().map_entry:
        is_message = held.fields_by_name["value"].message_type is not None
        return {name: json_of(each, budget) if is_message else _counted(each, budget) for name, each in value.items()}
    if field.is_repeated:
        return [_counted(_json_of_one(field, each, budget), budget) for each in value]
    return _json_of_one(field, value, budget)


def _counted(value: Any, budget: Budget) -> Any:
    budget.take()
    return value


def _json_of_one(field: FieldDescriptor, value: Any, budget: Budget) -> Any:
    if field.message_type is not None:
        return json_of(value, budget)
    if field.enum_type is not None:
        words = _ENUMS[field.enum_type.name]
        return words[value] if value < len(words) else ""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return number_of(float(f"{value:.7g}"))  # 0.8, not the double nearest to what a float makes of it
    return number_of(value) if field.type == FieldDescriptor.TYPE_DOUBLE else value


def _fill_field(message: Message, field: FieldDescriptor, value: Any, budget: Budget) -> None:
    target = getattr(message, field.name)
    held = field.message_type
    if held is not None and held.GetOptions().map_entry:
        for name, each in value.items():
            budget.take()
            if held.fields_by_name["value"].message_type is None:
                target[name] = each
            else:
                fill(target[name], each, budget)
    elif field.is_repeated:
        for each in value:
            if held is not None:
                fill(target.add(), each, budget)
            else:
                target.append(_scalar(field, each))
    elif held is not None:
        fill(target, value, budget)
    else:
        setattr(message, field.name, _scalar(field, value))


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        words = _ENUMS[field.enum_type.name]
        return words.index(value) if value in words else 0
    if field.type == FieldDescriptor.TYPE_BYTES:
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            raise CannotCross(f"{member_of(field)} is no Base64") from None
    return value


# ---- what differs


def _read_struct(message: Any, budget: Budget) -> dict[str, Any]:
    return object_of(message, budget)


def _fill_struct(message: Any, value: Any, budget: Budget) -> None:
    if not isinstance(value, dict):
        raise CannotCross("gRPC has objects there, and nothing else")
    fill_struct(message, value, budget)


def _read_duration(message: Any, _: Budget) -> int:
    return max(0, int(message.ToMilliseconds()))


def _fill_duration(message: Any, value: Any, _: Budget) -> None:
    message.FromMilliseconds(round(value))


def read_block(message: Any, budget: Budget) -> dict[str, Any]:
    """The one content block that is set."""
    for kind, name in _BLOCKS.items():
        if name in message.DESCRIPTOR.fields_by_name and message.HasField(name):
            return {"type": kind, **json_of(getattr(message, name), budget)}
    raise CannotCross("content of a kind that is not known here")


def fill_block(message: Any, value: Any, budget: Budget) -> None:
    kind = value.get("type")
    name = _BLOCKS.get(kind) if isinstance(kind, str) else None
    if name is None or name not in message.DESCRIPTOR.fields_by_name:
        raise CannotCross(f"gRPC has no content of type {str(kind)[:100]!r}")
    fill(getattr(message, name), value, budget)


def read_said(message: Any, budget: Budget) -> dict[str, Any]:
    """What one of both has said: a role and a block."""
    return {"role": _ENUMS["Role"][message.role] or "user", "content": read_block(message, budget)}


def fill_said(message: Any, value: Any, budget: Budget) -> None:
    if isinstance(value["content"], list):
        raise CannotCross("gRPC has one block of content in a message")
    message.role = _ENUMS["Role"].index(value["role"])
    fill_block(message, value["content"], budget)


def _read_contents(message: Any, budget: Budget) -> dict[str, Any]:
    """Of a resource: text, be it empty, where there are no bytes."""
    contents = walk(message, budget)
    return contents if "blob" in contents else {**contents, "text": message.text}


def _read_tool(message: Any, budget: Budget) -> dict[str, Any]:
    return {"inputSchema": {"type": "object"}, **walk(message, budget)}


def _fill_annotations(message: Any, value: Any, budget: Budget) -> None:
    fill_fields(message, {**dict.fromkeys(_JSON_TRUE, True), **value}, budget)


def _read_call(message: Any, budget: Budget) -> dict[str, Any]:
    call = {"name": message.request.name}
    if message.request.HasField("arguments"):
        call["arguments"] = object_of(message.request.arguments, budget)
    return {**json_of(message.common, budget), **call}


def _fill_call(message: Any, value: Any, budget: Budget) -> None:
    fill(message.common, value, budget)
    fill_fields(message.request, value, budget)


def _read_response_fields(message: Any, budget: Budget) -> dict[str, Any]:
    """A result that does not say what it is, is complete. Source: the proto, `ResultType`."""
    fields = walk(message, budget)
    return {**fields, "resultType": fields.get("resultType") or "complete"}


def _read_completion_request(message: Any, budget: Budget) -> dict[str, Any]:
    is_resource = message.HasField("resource_reference")
    held = message.resource_reference if is_resource else message.prompt_reference
    asked = {
        **json_of(message.common, budget),
        "ref": {"type": "ref/resource", "uri": held.uri} if is_resource else {"type": "ref/prompt", "name": held.name},
        "argument": {"name": message.argument.name, "value": message.argument.value},
    }
    return {**asked, "context": {"arguments": dict(message.context.arguments)}} if message.HasField("context") else asked


def _fill_completion_request(message: Any, value: Any, budget: Budget) -> None:
    fill(message.common, value, budget)
    reference = value["ref"]
    is_resource = reference["type"] == "ref/resource"
    fill(message.resource_reference if is_resource else message.prompt_reference, reference, budget)
    fill(message.argument, value["argument"], budget)
    if value.get("context") is not None:
        fill(message.context, value["context"], budget)


def _read_completion(message: Any, budget: Budget) -> dict[str, Any]:
    completion: dict[str, Any] = {"values": list(message.values)}
    if message.HasField("total_matches"):
        completion["total"] = message.total_matches
    if message.has_more:
        completion["hasMore"] = True
    return {**json_of(message.common, budget), "completion": completion}


def _fill_completion(message: Any, value: Any, budget: Budget) -> None:
    fill(message.common, value, budget)
    completion = value["completion"]
    message.values.extend(completion["values"])
    if completion.get("total") is not None:
        message.total_matches = completion["total"]
    message.has_more = bool(completion.get("hasMore"))


FORMS: Final[dict[str, Form]] = {
    "Struct": Form(_read_struct, _fill_struct),
    "Duration": Form(_read_duration, _fill_duration),
    "Content": Form(read_block, fill_block),
    "PromptMessage": Form(read_said, fill_said),
    "ResourceContents": Form(_read_contents, fill_fields),
    "Tool": Form(_read_tool, fill_fields),
    "ToolAnnotations": Form(walk, _fill_annotations),
    "CallToolRequest": Form(_read_call, _fill_call),
    "ResponseFields": Form(_read_response_fields, fill_fields),
    "CompletionRequest": Form(_read_completion_request, _fill_completion_request),
    "CompletionResponse": Form(_read_completion, _fill_completion),
}
"""{name of a message: how it differs}. Every name is one message's in this proto, but for what the walk treats alike."""
