"""Events of the gateway's own say of which node they tell; those of clients are left alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.protocol.topics.node_events import is_of_node, marked
from mcp_gateway.transports.protocol.topics.topic_log import Event


def event(topic: str, payload: dict[str, Any]) -> Event:
    return Event(id=1, topic=topic, payload_json=msgspec.json.encode(payload), timestamp_ms=0)


@pytest.mark.parametrize(
    ("topic", "node", "told"),
    [
        ("mcp.health.failed", "a", {"x": 1, "node": "a"}),
        ("mcp.health.failed", "", {"x": 1}),
        ("client.chat", "a", {"x": 1}),
    ],
)
def test_what_the_gateway_publishes_in_a_cluster_names_its_node(topic: str, node: str, told: dict[str, Any]) -> None:
    assert marked(topic, {"x": 1}, node) == told


@pytest.mark.parametrize(
    ("topic", "payload", "node", "is_own"),
    [
        ("mcp.health.failed", {"node": "a"}, "a", True),
        ("mcp.health.failed", {"node": "b"}, "a", False),
        ("mcp.health.failed", {"node": "b"}, "", True),
        ("mcp.health.failed", {}, "a", True),
        ("client.chat", {"node": "b"}, "a", True),
    ],
)
def test_what_hurts_another_node_is_told_from_what_hurts_this_one(
    topic: str, payload: dict[str, Any], node: str, is_own: bool
) -> None:
    assert is_of_node(event(topic, payload), node) is is_own
