"""Names of what tells a client that something has changed. Source: MCP 2026-07-28, basic/patterns/subscriptions, and schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
RESOURCE_UPDATED: Final = "notifications/resources/updated"
RESOURCE_SUBSCRIPTIONS: Final = "resourceSubscriptions"
"""What the filter of a subscription calls the resources whose updates it wants."""

LIST_CHANGES: Final[Mapping[str, str]] = {
    "notifications/tools/list_changed": "toolsListChanged",
    "notifications/prompts/list_changed": "promptsListChanged",
    "notifications/resources/list_changed": "resourcesListChanged",
}
"""{notification: what the filter of a subscription calls it}."""
EVERY_LIST: Final[Mapping[str, bool]] = dict.fromkeys(LIST_CHANGES.values(), True)
"""The filter of a subscription to the changes of every list."""


def feature_of(change: str) -> str:
    """The server capability that one of LIST_CHANGES belongs to: "tools", "prompts" or "resources"."""
    return change.split("/")[1]
