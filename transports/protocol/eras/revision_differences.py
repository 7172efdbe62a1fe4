"""What an older revision of the handshake era has no place for, as tables, and how a newer message is fitted into it.

Source: schema/<revision>/schema.ts of 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25 and 2026-07-28. Members that an older
schema does not name are left out; content of a kind that it does not know becomes text, because a client refuses the whole
message for one block of an unknown type. Nothing is changed on the way from an older revision to a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.transports.protocol.mcp.revisions import REVISIONS, nearest_legacy

# {kind of object: {member: the revision that brought it}}
_NAMED = {"title": "2025-06-18", "_meta": "2025-06-18", "icons": "2025-11-25"}
MEMBERS_SINCE: Final[Mapping[str, Mapping[str, str]]] = {
    "Tool": {**_NAMED, "annotations": "2025-03-26", "outputSchema": "2025-06-18", "execution": "2025-11-25"},
    "Resource": _NAMED,
    "ResourceTemplate": _NAMED,
    "Prompt": _NAMED,
    "PromptArgument": {"title": "2025-06-18"},
    "Implementation": {"title": "2025-06-18", "icons": "2025-11-25", "description": "2025-11-25", "websiteUrl": "2025-11-25"},
    "Contents": {"_meta": "2025-06-18"},
    "Block": {"_meta": "2025-06-18"},
    "Annotations": {"lastModified": "2025-06-18"},
    "CallToolResult": {"structuredContent": "2025-06-18"},
    "ServerCapabilities": {"completions": "2025-03-26", "tasks": "2025-11-25"},
    "progress": {"message": "2025-03-26"},
    "elicitation": {"mode": "2025-11-25", "task": "2025-11-25"},
    "sampling": {"tools": "2025-11-25", "toolChoice": "2025-11-25", "task": "2025-11-25", "_meta": "2025-06-18"},
}

# Kinds of content, and requests of servers, by the revision that brought them. What is absent was there from the start.
BLOCKS_SINCE: Final[Mapping[str, str]] = {
    "audio": "2025-03-26",
    "resource_link": "2025-06-18",
    "tool_use": "2025-11-25",
    "tool_result": "2025-11-25",
}
QUESTIONS_SINCE: Final[Mapping[str, str]] = {"elicitation/create": "2025-06-18"}
_LISTS_OF_CONTENT_SINCE: Final = "2025-11-25"
_TITLED_CHOICES_SINCE: Final = "2025-11-25"

_Json = dict[str, Any]


def is_older(revision: str, since: str) -> bool:
    """Either may be one that nobody knows, as some servers speak: it is read as the nearest."""
    return _age(revision) < _age(since)


def _age(revision: str) -> int:
    return REVISIONS.index(revision if revision in REVISIONS else nearest_legacy(revision))


def fitted_result(method: str, result: _Json, revision: str) -> _Json:
    """A result of any newer server as a client of this revision can read it; `result` itself is left as it is."""
    fit = _RESULTS.get(method)
    return result if fit is None else fit(result, revision)


def fitted_notification(method: str, params: _Json, revision: str) -> _Json:
    return _without(params, "progress", revision) if method == "notifications/progress" else params


def question_problem(method: str, params: Mapping[str, Any], revision: str) -> str:
    """Why a client of this revision cannot be asked this, or "" where it can."""
    since = QUESTIONS_SINCE.get(method)
    if since is not None and is_older(revision, since):
        return f"a client of revision {revision} has no {method}"
    is_by_url = method == "elicitation/create" and params.get("mode") == "url"
    if is_by_url and is_older(revision, MEMBERS_SINCE["elicitation"]["mode"]):
        return f"a client of revision {revision} has no elicitation by URL"
    if method == "sampling/createMessage" and params.get("tools") and is_older(revision, MEMBERS_SINCE["sampling"]["tools"]):
        return f"a client of revision {revision} samples without tools"
    return ""


def fitted_question(method: str, params: _Json, revision: str) -> _Json:
    """The params of a server's request as a client of this revision can read them."""
    if method == "elicitation/create":
        fitted = _without(params, "elicitation", revision)
        if is_older(revision, _TITLED_CHOICES_SINCE):
            return _with(fitted, "requestedSchema", _untitled_choices)
        return fitted
    if method == "sampling/createMessage":
        fitted = _without(params, "sampling", revision)
        return _with_each(fitted, "messages", lambda message: _one_block(message, revision))
    return params


def fitted_answer(method: str, result: _Json, revision: str) -> _Json:
    """A client's answer to a server's request, as a server of this revision can read it."""
    return _one_block(result, revision) if method == "sampling/createMessage" else result


def _without(value: _Json, kind: str, revision: str) -> _Json:
    newer = {member for member, since in MEMBERS_SINCE[kind].items() if is_older(revision, since)}
    return {member: each for member, each in value.items() if member not in newer} if newer & value.keys() else value


def _with(value: _Json, member: str, change: Callable[[_Json], _Json]) -> _Json:
    inner = value.get(member)
    return {**value, member: change(inner)} if isinstance(inner, dict) else value


def _with_each(value: _Json, member: str, change: Callable[[_Json], _Json]) -> _Json:
    items = value.get(member)
    if not isinstance(items, list):
        return value
    return {**value, member: [change(each) if isinstance(each, dict) else each for each in items]}


def _listed(member: str, kind: str) -> Callable[[_Json, str], _Json]:
    def fit(result: _Json, revision: str) -> _Json:
        return _with_each(result, member, lambda item: _fitted_item(item, kind, revision))

    return fit


def _fitted_item(item: _Json, kind: str, revision: str) -> _Json:
    fitted = _without(item, kind, revision)
    if kind == "Prompt":
        fitted = _with_each(fitted, "arguments", lambda argument: _without(argument, "PromptArgument", revision))
    if kind == "Tool":
        # Up to 2025-11-25 structured content is an object. Source: MCP 2026-07-28, changelog, SEP-2106.
        schema = fitted.get("outputSchema")
        if is_older(revision, "2026-07-28") and isinstance(schema, dict) and schema.get("type") != "object":
            fitted = {member: each for member, each in fitted.items() if member != "outputSchema"}
        return fitted
    return _with(fitted, "annotations", lambda each: _without(each, "Annotations", revision))


def _initialize(result: _Json, revision: str) -> _Json:
    result = _with(result, "serverInfo", lambda info: _without(info, "Implementation", revision))
    return _with(result, "capabilities", lambda each: _without(each, "ServerCapabilities", revision))


def _tool_result(result: _Json, revision: str) -> _Json:
    fitted = _with_each(result, "content", lambda block: _block(block, revision))
    structured = fitted.get("structuredContent")
    is_unreadable = is_older(revision, "2026-07-28") and not isinstance(structured, dict)
    if "structuredContent" in fitted and (is_unreadable or _without(fitted, "CallToolResult", revision) is not fitted):
        fitted = {member: each for member, each in fitted.items() if member != "structuredContent"}
        if not fitted.get("content"):  # what the model would have read is not lost
            fitted["content"] = [_text(msgspec.json.encode(structured).decode())]
    return fitted


def _prompt(result: _Json, revision: str) -> _Json:
    return _with_each(result, "messages", lambda message: _with(message, "content", lambda block: _block(block, revision)))


def _contents(result: _Json, revision: str) -> _Json:
    return _with_each(result, "contents", lambda each: _without(each, "Contents", revision))


def _block(block: _Json, revision: str) -> _Json:
    """A content block; one of a kind that the revision does not know becomes text that says what it was."""
    kind = block.get("type")
    since = BLOCKS_SINCE.get(kind) if isinstance(kind, str) else None
    if since is not None and is_older(revision, since):
        if kind == "resource_link":
            title = block.get("title") or block.get("name") or ""
            return _text(f"[resource {title}]({block.get('uri', '')})")
        if kind == "audio":
            return _text(f"[audio of type {block.get('mimeType', 'unknown')}]")
        return _text(msgspec.json.encode(block).decode())
    fitted = _without(block, "Block", revision)
    fitted = _with(fitted, "resource", lambda contents: _without(contents, "Contents", revision))
    if kind == "resource_link":
        fitted = _without(fitted, "Resource", revision)
    return _with(fitted, "annotations", lambda each: _without(each, "Annotations", revision))


def _one_block(message: _Json, revision: str) -> _Json:
    """A sampling message: several blocks are one text where the revision has no list of them."""
    content = message.get("content")
    if isinstance(content, list):
        blocks = [_block(each, revision) if isinstance(each, dict) else each for each in content]
        if not is_older(revision, _LISTS_OF_CONTENT_SINCE):
            return {**message, "content": blocks}
        if len(blocks) == 1:
            return {**message, "content": blocks[0]}
        texts = [str(each.get("text", "")) for each in blocks if isinstance(each, dict) and each.get("type") == "text"]
        return {**message, "content": _text("\n".join(texts))}
    return _with(message, "content", lambda block: _block(block, revision))


def _untitled_choices(schema: _Json) -> _Json:
    """Choices with titles (`oneOf`) as `enum` and `enumNames`. Source: schema of 2025-06-18, EnumSchema."""

    def fit(each: _Json) -> _Json:
        choices = each.get("oneOf")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) and "const" in choice for choice in choices):
            return each
        rest = {member: value for member, value in each.items() if member != "oneOf"}
        names = [str(choice.get("title", choice["const"])) for choice in choices]
        return {**rest, "enum": [choice["const"] for choice in choices], "enumNames": names}

    return _with(schema, "properties", lambda properties: {
        name: fit(each) if isinstance(each, dict) else each for name, each in properties.items()
    })  # fmt: skip


def _text(text: str) -> _Json:
    return {"type": "text", "text": text}


_RESULTS: Final[Mapping[str, Callable[[_Json, str], _Json]]] = {
    "initialize": _initialize,
    "tools/list": _listed("tools", "Tool"),
    "resources/list": _listed("resources", "Resource"),
    "resources/templates/list": _listed("resourceTemplates", "ResourceTemplate"),
    "prompts/list": _listed("prompts", "Prompt"),
    "tools/call": _tool_result,
    "prompts/get": _prompt,
    "resources/read": _contents,
}
