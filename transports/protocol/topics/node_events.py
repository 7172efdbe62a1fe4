"""Of which node of a cluster an event of the gateway's own tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .client_events import CLIENT_TOPICS
from .topic_log import Event

_NODE: Final = "node"


def marked(topic: str, payload: Mapping[str, Any], node: str) -> dict[str, Any]:
    """The payload with the node that publishes it. What clients publish, and all without a cluster (""), stays as it is."""
    return {**payload, _NODE: node} if node and not topic.startswith(CLIENT_TOPICS) else dict(payload)


def is_of_node(event: Event, node: str) -> bool:
    """Whether it tells of this node, or of none in particular: a pain of another one is no pain here."""
    if not node or event.topic.startswith(CLIENT_TOPICS):
        return True
    return bool(event.payload.get(_NODE, node) == node)
