"""Where the ids of tasks stand in what servers and clients say, and their change into those of the other side. Pure.

Source: MCP 2025-11-25, basic/utilities/tasks, "Data Types" and "Associating Task-Related Messages"; SEP-2663, "Tasks".
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.change_notifications import ACKNOWLEDGED
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response, members
from mcp_gateway.transports.protocol.mcp.revisions import TASK_METHODS
from mcp_gateway.transports.protocol.mcp.tasks import LEGACY_TASK_STATUS, MODERN_TASK_STATUS, RELATED_TASK, TASK_SUBSCRIPTIONS

from .naming import Naming, outer_result

Rename = Callable[[str], str]

_encode = msgspec.json.encode
_NO_TASK = b"askId"  # stands in every message that names a task: "taskId", "taskIds"


def outer_task_result(method: str, result: bytes, naming: Naming, rename: Rename) -> bytes:
    """A server's result with the ids of tasks that its clients know; what a task has ended with is a result inside it.

    A malformed one passes as it is.
    """
    if _NO_TASK not in result:
        return result
    try:
        values = _related(members(result), rename)
        if method in TASK_METHODS or bytes(values.get("resultType", b"")) == b'"task"':
            values = _task(values, naming, rename)
        elif "task" in values:
            values["task"] = Raw(_encode(_task(members(bytes(values["task"])), naming, rename)))
        elif method == "tasks/list" and "tasks" in values:
            tasks = msgspec.json.decode(values["tasks"], type=list[Raw])
            values["tasks"] = Raw(_encode([_task(members(bytes(task)), naming, rename) for task in tasks]))
    except (msgspec.DecodeError, RecursionError):
        return result
    return _encode(values)


def outer_task_message(message: Message, naming: Naming, rename: Rename) -> Message:
    """What a server says before its answer, or on a stream. Its own requests about tasks are about those that its client runs."""
    if isinstance(message, Notification) and _NO_TASK in message.params:
        try:
            values = _related(members(message.params), rename)
            if message.method in (LEGACY_TASK_STATUS, MODERN_TASK_STATUS):
                values = _task(values, naming, rename)
            elif message.method == ACKNOWLEDGED:
                values = _subscribed(values, rename)
        except (msgspec.DecodeError, RecursionError):
            return message
        return Notification(message.method, _encode(values))
    if isinstance(message, Request) and _NO_TASK in message.params and not message.method.startswith("tasks/"):
        return Request(message.id, message.method, _renamed_meta(message.params, rename))
    return message


def inner_task_message(message: Message, rename: Rename) -> Message:
    """What a client says, with the ids that its server knows."""
    if isinstance(message, Response):
        return Response(message.id, _renamed_meta(message.result, rename), message.error) if message.result else message
    if _NO_TASK not in message.params:
        return message
    params = _renamed_meta(message.params, rename)
    if isinstance(message, Notification):
        return Notification(message.method, params)
    try:
        if message.method in TASK_METHODS:
            params = _encode(_renamed(members(params), "taskId", rename))
        elif message.method == "subscriptions/listen":
            params = _encode(_subscribed(members(params), rename))
    except (msgspec.DecodeError, RecursionError):
        return message
    return Request(message.id, message.method, params)


def named_tasks(method: str, params: bytes) -> list[str]:
    """The tasks that a request is about, or wants to hear of; none where it cannot be read."""
    if _NO_TASK not in params:
        return []
    try:
        if method in TASK_METHODS:
            return [msgspec.json.decode(members(params)["taskId"], type=str)]
        wanted = members(bytes(members(params).get("notifications", Raw(b"{}"))))
        return msgspec.json.decode(wanted.get(TASK_SUBSCRIPTIONS, Raw(b"[]")), type=list[str])
    except (KeyError, msgspec.DecodeError, RecursionError):
        return []


def _task(values: dict[str, Raw], naming: Naming, rename: Rename) -> dict[str, Raw]:
    values = _renamed(values, "taskId", rename)
    if "result" in values:
        values["result"] = Raw(outer_result(naming, bytes(values["result"])))
    return values


def _subscribed(values: dict[str, Raw], rename: Rename) -> dict[str, Raw]:
    """A filter of a subscription, as it is asked for and as it is acknowledged."""
    wanted = members(bytes(values.get("notifications", Raw(b"{}"))))
    if TASK_SUBSCRIPTIONS in wanted:
        ids = msgspec.json.decode(wanted[TASK_SUBSCRIPTIONS], type=list[str])
        wanted[TASK_SUBSCRIPTIONS] = Raw(_encode([rename(each) for each in ids]))
        values["notifications"] = Raw(_encode(wanted))
    return values


def _related(values: dict[str, Raw], rename: Rename) -> dict[str, Raw]:
    meta = members(bytes(values["_meta"])) if RELATED_TASK.encode() in bytes(values.get("_meta", b"")) else {}
    if RELATED_TASK in meta:
        meta[RELATED_TASK] = Raw(_encode(_renamed(members(bytes(meta[RELATED_TASK])), "taskId", rename)))
        values["_meta"] = Raw(_encode(meta))
    return values


def _renamed_meta(json_object: bytes, rename: Rename) -> bytes:
    if RELATED_TASK.encode() not in json_object:
        return json_object
    try:
        return _encode(_related(members(json_object), rename))
    except (msgspec.DecodeError, RecursionError):
        return json_object


def _renamed(values: dict[str, Raw], member: str, rename: Rename) -> dict[str, Raw]:
    if bytes(values.get(member, b"")).startswith(b'"'):
        values[member] = Raw(_encode(rename(msgspec.json.decode(values[member], type=str))))
    return values
