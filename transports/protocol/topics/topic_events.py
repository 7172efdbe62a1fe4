"""Events of topics as an event stream carries them. Pure.

Source: the gateway's contract for names and shapes; WHATWG HTML, section 9.2 "Server-sent events", for what an id does.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_gateway.transports.protocol.framing.sse import encode_event

from .topic_log import Event

EVENT_NAME: Final = "vsm_event"
_LARGEST_ID: Final = 2**63 - 1


def event_json(event: Event) -> bytes:
    """What a subscriber is told of an event: its topic, its payload, and when it was published."""
    return b'{"event_type":"%b","payload":%b,"timestamp":%d}' % (event.topic.encode(), event.payload_json, event.timestamp_ms)


def encode_topic_event(event: Event) -> bytes:
    return encode_event(event_json(event), event=EVENT_NAME, event_id=str(event.id))


def encode_gap(gap: tuple[int, int]) -> bytes:
    """Tell which ids are lost. It carries the last of them: who breaks off here is not told again."""
    first_id, last_id = gap
    data = msgspec.json.encode({"first_id": first_id, "last_id": last_id, "count": last_id - first_id + 1})
    return encode_event(data, event="gap", event_id=str(last_id))


def encode_connected(topic: str, last_id: int | None, retry_ms: int) -> bytes:
    """The first event of a stream.

    last_id: where a stream starts that resumes none. It becomes the client's Last-Event-ID, so one that is cut off before its
             first event misses nothing either.
    """
    data = msgspec.json.encode({"topic": topic})
    return encode_event(data, event="connected", event_id=None if last_id is None else str(last_id), retry_ms=retry_ms)


def parse_event_id(text: str) -> int | None:
    """The id that a client names as its last one, or None where it can be none of ours."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        return None
    event_id = int(text)
    return event_id if event_id <= _LARGEST_ID else None
