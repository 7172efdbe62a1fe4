"""What a client may publish: which topics, which payloads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .topic_log import InvalidTopic, TopicPattern, check_topic

CLIENT_TOPICS: Final = "client."
"""Where the topics of clients begin: nobody outside can publish what an actor would."""
MAX_PAYLOAD_BYTES: Final = 16_384
"""As JSON. Ours: every cell holds the whole retention in memory, at most 160 MB of it for 10 000 events."""


def is_for_operators(pattern: TopicPattern) -> bool:
    """Where clients are known: the gateway's own topics, and patterns that match any of those."""
    return not pattern.is_within(CLIENT_TOPICS)


def check_client_event(topic: object, payload: object) -> tuple[str, Mapping[str, Any]]:
    """The topic and the payload, if a client may publish them.

    Raises: Refused with invalid_params or too_large; its text says what is wrong.
    """
    if not isinstance(topic, str):
        raise Refused("invalid_params", "the topic of an event is a string")
    if not topic.startswith(CLIENT_TOPICS):
        raise Refused("invalid_params", f"clients publish topics that begin with {CLIENT_TOPICS!r}, not {topic[:100]!r}")
    try:
        check_topic(topic)
    except InvalidTopic:
        text = f"{topic[:100]!r} is no topic: segments of a-z, 0-9, _ and - joined by '.', 200 characters at most"
        raise Refused("invalid_params", text) from None
    if not isinstance(payload, Mapping):
        raise Refused("invalid_params", "the payload of an event is a JSON object")
    try:
        size = len(msgspec.json.encode(payload))
    except (TypeError, ValueError, RecursionError):
        raise Refused("invalid_params", "the payload of an event is no JSON that can be written") from None
    if size > MAX_PAYLOAD_BYTES:
        raise Refused("too_large", f"the payload of an event is at most {MAX_PAYLOAD_BYTES} bytes, not {size}")
    return topic, payload
