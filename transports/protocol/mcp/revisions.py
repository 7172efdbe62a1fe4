"""The revisions of MCP and what tells them apart on the wire."""

from __future__ import annotations

import re
from typing import Final

LEGACY_REVISIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Revisions with the `initialize` handshake, oldest first."""

MODERN_REVISIONS: Final = ("2026-07-28",)
"""Stateless revisions: `_meta` on every request."""

REVISIONS: Final = LEGACY_REVISIONS + MODERN_REVISIONS
NEWEST_LEGACY: Final = LEGACY_REVISIONS[-1]
NEWEST: Final = MODERN_REVISIONS[-1]

STREAMABLE_HTTP_DEFAULT: Final = "2025-03-26"
"""What a request without `MCP-Protocol-Version` speaks. Source: MCP 2025-11-25, basic/transports, "Protocol Version Header"."""

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
META_CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
META_CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
META_SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
META_SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"

# Source: RFC 5424, section 6.2.1, least severe first.
LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

# Results that say how long they may be kept. Source: MCP 2026-07-28, server/utilities/caching, "Cacheable Results".
CACHEABLE_METHODS: Final = frozenset(
    {"server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
)

# Requests that only read: asking twice is as good as asking once.
READING_METHODS: Final = CACHEABLE_METHODS | {"prompts/get", "completion/complete", "tasks/get", "tasks/result", "tasks/list"}

# Methods with one addressed item: the member of params that names it. The headers mirror it (2026-07-28) and routes match it.
# Source for tasks: SEP-2663, "Streamable HTTP: Routing Headers".
NAMED_ITEM_MEMBER: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
TASK_METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/update", "tasks/cancel"})
"""Requests about one task."""
ITEM_MEMBER: Final = {**NAMED_ITEM_MEMBER, **dict.fromkeys(TASK_METHODS, "taskId")}

# Lists of one merged server: the member of the result that holds the items. The key is what identifies one.
LIST_MEMBERS: Final = {
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
    "tasks/list": ("tasks", "taskId"),
}

_MODERN_METHODS: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "subscriptions/listen",
        "tasks/get",
        "tasks/update",
        "tasks/cancel",
    }
)
_LEGACY_METHODS: Final = (_MODERN_METHODS - {"server/discover", "subscriptions/listen", "tasks/update"}) | {
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/result",
    "tasks/list",
}

REMOVED_METHODS: Final = frozenset(_LEGACY_METHODS - _MODERN_METHODS)
"""Methods of the legacy revisions that the modern ones do not have any more. Source: MCP 2026-07-28, changelog; SEP-2663."""


_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[!-~]{1,64}")


def is_modern(revision: str) -> bool:
    return revision in MODERN_REVISIONS


def is_known_method(method: str, revision: str) -> bool:
    """Whether the revision's schema, or its extension for tasks, defines this client-to-server request."""
    return method in (_MODERN_METHODS if is_modern(revision) else _LEGACY_METHODS)


def negotiated_legacy(requested: str) -> str:
    """The revision that answers an `initialize`: the requested one, else the newest that has a handshake.

    Source: MCP 2025-11-25, basic/lifecycle, "Version Negotiation". A date from the future is answered, not refused.
    """
    return requested if requested in LEGACY_REVISIONS else NEWEST_LEGACY


def nearest_legacy(announced: str) -> str:
    """The revision by whose rules a server is understood that answers `initialize` with this version, which nobody may know.

    Of known ones itself; else the newest that is not newer, or the oldest of all. What is from the future, or no date, is
    taken for the newest: its servers are those that have just learned it. Ours; the specification leaves it to the client
    what it supports (MCP 2025-11-25, basic/lifecycle, "Version Negotiation").
    """
    if not _DATE.fullmatch(announced):
        return NEWEST_LEGACY
    return max((each for each in LEGACY_REVISIONS if each <= announced), default=LEGACY_REVISIONS[0])


def negotiated_with_server(announced: object) -> str:
    """What `MCP-Protocol-Version` names to a server that has answered `initialize` with this version.

    Its own word, known or not: it may refuse any other. A modern revision has no handshake, and a request that names it without
    `_meta` would be none. Source: MCP 2025-11-25, basic/transports, "Protocol Version Header".

    Raises: ValueError where no header can carry it.
    """
    if not isinstance(announced, str) or not _HEADER_VALUE.fullmatch(announced):
        raise ValueError(f"the server answered initialize with a protocolVersion that cannot be spoken: {str(announced)[:50]!r}")
    return NEWEST_LEGACY if is_modern(announced) else announced
