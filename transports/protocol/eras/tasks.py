"""Tasks as each era tells of them: their members, their states, their ends. Pure.

Source: MCP 2025-11-25, basic/utilities/tasks, "Data Types" and "Task Execution Errors"; SEP-2663, "Tasks" and "Error Handling".
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.error_codes import INTERNAL_ERROR, INVALID_PARAMS, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response, members
from mcp_gateway.transports.protocol.mcp.tasks import RELATED_TASK, TASKS_EXTENSION, TASKS_REVISION, offers_task_calls

_encode = msgspec.json.encode

# {member of a task of the modern era: what 2025-11-25 calls it}
_MEMBERS: Final = {
    "taskId": "taskId",
    "status": "status",
    "statusMessage": "statusMessage",
    "createdAt": "createdAt",
    "lastUpdatedAt": "lastUpdatedAt",
    "ttlMs": "ttl",
    "pollIntervalMs": "pollInterval",
}
_GATEWAY_TASKS: Final[Mapping[str, Any]] = {"cancel": {}, "requests": {"tools": {"call": {}}}}
"""What the gateway does for legacy clients. It lists none: who asks for the list it could not tell apart well enough.
Source: MCP 2025-11-25, "Task Isolation and Access Control": receivers that cannot identify requestors should not."""


class TaskStatus(Enum):
    """Source: both specifications, "Task Status"."""

    WORKING = "working"
    INPUT_REQUIRED = "input_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)


@attrs.frozen(kw_only=True)
class TaskView:
    """A task that the gateway runs itself, at one moment.

    created_s, updated_s: seconds since the epoch.
    asked:                {key: entry of `inputRequests`} that no client has answered.
    result, error:        what the call has ended with, as JSON; at most one of them.
    """

    task_id: str
    status: TaskStatus
    created_s: float
    updated_s: float
    ttl_ms: int
    poll_ms: int
    message: str = ""
    asked: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, repr=False)
    result: bytes = attrs.field(default=b"", repr=False)
    error: bytes = attrs.field(default=b"", repr=False)

    def modern(self) -> dict[str, Any]:
        """The members of a `Task`."""
        shown: dict[str, Any] = {
            "taskId": self.task_id,
            "status": self.status.value,
            "createdAt": _iso(self.created_s),
            "lastUpdatedAt": _iso(self.updated_s),
            "ttlMs": self.ttl_ms,
            "pollIntervalMs": self.poll_ms,
        }
        return {**shown, "statusMessage": self.message} if self.message else shown

    def modern_created(self) -> bytes:
        return _encode({"resultType": "task", **self.modern()})

    def modern_detailed(self) -> dict[str, Any]:
        shown = self.modern()
        if self.status is TaskStatus.INPUT_REQUIRED:
            shown["inputRequests"] = self.asked
        elif self.status is TaskStatus.COMPLETED:
            shown["result"] = Raw(_unrelated(self.result))
        elif self.status is TaskStatus.FAILED:
            shown["error"] = Raw(self.error)
        return shown

    def legacy(self) -> dict[str, Any]:
        """A tool that has failed is a task that has. Source: MCP 2025-11-25, "Task Execution Errors"."""
        has_failed = self.status is TaskStatus.COMPLETED and is_error_result(self.result)
        return legacy_task({**self.modern(), **({"status": TaskStatus.FAILED.value} if has_failed else {})})

    def legacy_created(self) -> bytes:
        return _encode({"task": self.legacy()})

    def legacy_outcome(self, request_id: bytes) -> Response:
        """The answer to `tasks/result` of one that is over."""
        return legacy_outcome(self.modern_detailed(), request_id)


@attrs.frozen(kw_only=True)
class KeptTask:
    """What is kept of a task for when its process is no more.

    created_ms, ended_ms: since the epoch; ended_ms is 0 while it has not ended. result, error: as in `TaskView`.
    """

    created_ms: int
    ttl_ms: int
    ended_ms: int = 0
    status: TaskStatus = TaskStatus.WORKING
    result: bytes = attrs.field(default=b"", repr=False)
    error: bytes = attrs.field(default=b"", repr=False)


def _unrelated(result: bytes) -> bytes:
    """The result of a task inside that task, which names it already. Source: SEP-2663, "Task Polling"."""
    if RELATED_TASK.encode() not in result:
        return result
    values = members(result)
    meta = members(bytes(values.get("_meta", Raw(b"{}"))))
    meta.pop(RELATED_TASK, None)
    values["_meta"] = Raw(_encode(meta))
    return _encode({name: value for name, value in values.items() if name != "_meta" or meta})


def created_task(result: bytes) -> str | None:
    """The id of the task that a legacy server has made of a call, or None where this is the result of the call itself."""
    if b'"task"' not in result:
        return None
    try:
        return msgspec.json.decode(members(bytes(members(result)["task"]))["taskId"], type=str)
    except (KeyError, msgspec.DecodeError, RecursionError):
        return None


def legacy_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task of the modern era, detailed or not, as 2025-11-25 shows one."""
    shown = {old: task[new] for new, old in _MEMBERS.items() if new in task}
    shown.setdefault("ttl", None)
    if task.get("status") == "completed" and is_error_result(_encode(task.get("result"))):
        shown["status"] = "failed"
    return shown


def legacy_outcome(task: Mapping[str, Any], request_id: bytes) -> Response:
    """What `tasks/result` says of a task that is over: exactly what the call itself would have said.

    Source: MCP 2025-11-25, "Result Retrieval".
    """
    if task.get("status") == "completed":
        result = members(_encode(task.get("result") or {}))
        meta = members(bytes(result.get("_meta", Raw(b"{}"))))
        meta[RELATED_TASK] = Raw(_encode({"taskId": task.get("taskId")}))
        result["_meta"] = Raw(_encode(meta))
        return Response(request_id, _encode(result), b"")
    error = task.get("error")
    if error is None:
        error = Raw(json_error(INTERNAL_ERROR, f"the task was {task.get('status')}"))
    return Response(request_id, b"", _encode(error))


def is_error_result(result: bytes) -> bool:
    """Whether a tool says that it has failed."""
    if b'"isError"' not in result:
        return False
    return bytes(members(result).get("isError", b"")) == b"true"


def unknown_task(task_id: str) -> bytes:
    return json_error(INVALID_PARAMS, f"Failed to retrieve task: there is no task {task_id[:200]!r}")


# ---- capabilities


def with_extension(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """A server's capabilities for modern clients, with tasks where it has tools: what it cannot, the gateway does."""
    if not isinstance(capabilities.get("tools"), dict):
        return dict(capabilities)
    known = capabilities.get("extensions")
    extensions = known if isinstance(known, dict) else {}
    return {**capabilities, "extensions": {TASKS_EXTENSION: {}, **extensions}}


def with_declared_tasks(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """A client's capabilities, of one that takes a task for an answer."""
    known = capabilities.get("extensions")
    return {**capabilities, "extensions": {**(known if isinstance(known, dict) else {}), TASKS_EXTENSION: {}}}


def with_legacy_tasks(capabilities: Mapping[str, Any], revision: str) -> dict[str, Any]:
    """The same for legacy clients, of the one revision that has them."""
    if revision != TASKS_REVISION or not isinstance(capabilities.get("tools"), dict) or offers_task_calls(capabilities):
        return dict(capabilities)
    return {**capabilities, "tasks": _GATEWAY_TASKS}


def with_optional_tasks(result: bytes) -> bytes:
    """A page of `tools/list` whose tools may all run as tasks, because the gateway runs those that their server does not.

    Source: MCP 2025-11-25, "Tool-Level Negotiation". Raises: msgspec.DecodeError where it is no such page.
    """
    values = members(result)
    tools = msgspec.json.decode(values.get("tools", Raw(b"[]")), type=list[dict[str, Raw]])
    for tool in tools:
        execution = members(bytes(tool.get("execution", Raw(b"{}"))))
        if bytes(execution.get("taskSupport", b"")) != b'"required"':
            tool["execution"] = Raw(_encode({**execution, "taskSupport": "optional"}))
    return _encode({**values, "tools": tools})


def task_support(result: bytes) -> dict[str, str]:
    """{tool: "required", "optional" or "forbidden"} of a page of a legacy server's `tools/list`.

    Raises: msgspec.DecodeError where it is no such page.
    """
    found: dict[str, str] = {}
    for tool in msgspec.json.decode(members(result).get("tools", Raw(b"[]")), type=list[dict[str, Any]]):
        execution, name = tool.get("execution"), tool.get("name")
        support = execution.get("taskSupport") if isinstance(execution, dict) else None
        if isinstance(name, str):
            found[name] = support if support in ("required", "optional") else "forbidden"
    return found


def _iso(seconds: float) -> str:
    shown = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return shown.isoformat(timespec="milliseconds").replace("+00:00", "Z")
