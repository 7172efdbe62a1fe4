"""What both forms of tasks call things: the experimental one of revision 2025-11-25, and the extension of 2026-07-28. Pure.

Source: MCP 2025-11-25, basic/utilities/tasks; SEP-2663 (extension `io.modelcontextprotocol/tasks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .error_codes import MISSING_CAPABILITY, json_error
from .jsonrpc import members
from .modern_rules import meta_of
from .refusals import Refused
from .revisions import META_CLIENT_CAPABILITIES

TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"
TASKS_REVISION: Final = "2025-11-25"
"""The one legacy revision that has tasks."""
RELATED_TASK: Final = "io.modelcontextprotocol/related-task"
"""`_meta` key of what belongs to a task of a legacy session."""
LEGACY_TASK_STATUS: Final = "notifications/tasks/status"
MODERN_TASK_STATUS: Final = "notifications/tasks"
TASK_SUBSCRIPTIONS: Final = "taskIds"
"""What the filter of a subscription calls the tasks whose changes it wants."""

_REQUIRED_EXTENSION: Final[Mapping[str, Any]] = {"extensions": {TASKS_EXTENSION: {}}}
_UNDECLARED: Final = f"Missing required client capability: {TASKS_EXTENSION}"


def offers_extension(capabilities: Any) -> bool:
    """Whether the capabilities of a modern client or server name the extension."""
    extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
    return isinstance(extensions, dict) and isinstance(extensions.get(TASKS_EXTENSION), dict)


def offers_task_calls(capabilities: Any) -> bool:
    """Whether a legacy server takes `tools/call` as a task: its capability `tasks.requests.tools.call`."""
    for name in ("tasks", "requests", "tools"):
        capabilities = capabilities.get(name) if isinstance(capabilities, dict) else None
    return isinstance(capabilities, dict) and isinstance(capabilities.get("call"), dict)


def declares_extension(params: bytes) -> bool:
    """Whether the client of a modern request has declared the extension in it."""
    return TASKS_EXTENSION.encode() in params and offers_extension(meta_of(params).get(META_CLIENT_CAPABILITIES))


def missing_extension() -> bytes:
    """The error for a client that has not declared it. Source: SEP-2663, "Capability Negotiation"."""
    return json_error(MISSING_CAPABILITY, _UNDECLARED, {"requiredCapabilities": _REQUIRED_EXTENSION})


def undeclared_tasks(request_id: bytes) -> Refused:
    """The same as a refusal."""
    return Refused("missing_capability", _UNDECLARED, request_id=request_id, data={"requiredCapabilities": _REQUIRED_EXTENSION})


def wants_task(params: bytes) -> bool:
    """Whether a legacy client's `tools/call` is to run as a task. Source: MCP 2025-11-25, "Task Parameters"."""
    if b'"task"' not in params:
        return False
    try:
        task = members(params).get("task")
    except (msgspec.DecodeError, RecursionError):
        return False
    return task is not None and bytes(task).startswith(b"{")


def task_id_of(params: bytes) -> str | None:
    """The task that a request about one names, or None where it names none."""
    try:
        return msgspec.json.decode(members(params)["taskId"], type=str)
    except (KeyError, msgspec.DecodeError, RecursionError):
        return None
