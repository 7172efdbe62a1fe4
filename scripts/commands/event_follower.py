"""`mcp-gateway events`: follows a topic of a running gateway over its event stream, and comes back when that is cut off."""

from __future__ import annotations

import datetime
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from mcp_gateway.config.shown_text import shown, shown_json
from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, EventTooLarge, ServerSentEvent

from .gateway_address import GatewayAddress, NothingToFollow, refusal

_LARGEST_EVENT_BYTES: Final = 1 << 20
_RETRY_S: Final = 0.5
_AWAY_S: Final = 5.0
"""A gateway that starts again is back by then."""


class TopicRefused(Exception):
    """The gateway does not serve this stream; the text is its reason."""


def follow(gateway: GatewayAddress, topic: str, since_id: int | None) -> Iterator[ServerSentEvent]:
    """Events of the topic and gaps, for as long as the gateway runs.

    Raises: NothingToFollow, TopicRefused
    """
    last_id = None if since_id is None else str(since_id)
    served_s = time.monotonic()
    while True:
        is_served = False
        try:
            for event in _stream(gateway, topic, last_id):
                is_served = True
                last_id = event.event_id or last_id
                if event.event in ("vsm_event", "gap"):
                    yield event
        except (OSError, http.client.HTTPException, EventTooLarge) as error:
            if not is_served and time.monotonic() - served_s > _AWAY_S:
                raise NothingToFollow(f"the gateway on {gateway.url} has ended ({error})") from error
        if is_served:
            served_s = time.monotonic()  # until now, however long its topic has been quiet
        time.sleep(_RETRY_S)


def _stream(gateway: GatewayAddress, topic: str, last_id: str | None) -> Iterator[ServerSentEvent]:
    connection = gateway.connection()
    try:
        headers = {"Accept": "text/event-stream", **({} if last_id is None else {"Last-Event-ID": last_id}), **gateway.headers()}
        connection.request(
            "GET", f"/mcp/sse/events/{quote(topic)}", headers={name: value.encode() for name, value in headers.items()}
        )
        stream = connection.sock
        answer = connection.getresponse()
        if answer.status != 200:
            raise TopicRefused(_reason(answer.read(), gateway))
        stream.settimeout(None)  # heartbeats may be switched off
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        parser = EventStreamParser(_LARGEST_EVENT_BYTES)
        while chunk := answer.read1(65_536):
            yield from parser.feed(chunk)
    finally:
        connection.close()


def _reason(body: bytes, gateway: GatewayAddress) -> str:
    try:
        error = json.loads(body)["error"]
        return refusal(error["message"], error["data"]["reason"], gateway)
    except (ValueError, KeyError, TypeError):
        return "what answers there is no gateway"


def json_line(event: ServerSentEvent) -> str:
    """One event for programs: what the stream carries, and its id."""
    data: dict[str, Any] = json.loads(event.data)
    return shown_json({"gap": data} if event.event == "gap" else {"id": int(event.event_id or 0), **data})


def human_line(event: ServerSentEvent) -> str:
    """One event for people: time of day, id, topic, payload."""
    data: dict[str, Any] = json.loads(event.data)
    if event.event == "gap":
        return shown(f"events {data['first_id']} to {data['last_id']} are no longer kept")
    moment = datetime.datetime.fromtimestamp(data["timestamp"] / 1000).astimezone()
    payload = " ".join(f"{_word(name)}={_word(value)}" for name, value in data["payload"].items())
    time_of_day = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
    return shown(f"{time_of_day}  {event.event_id:>6}  {data['event_type']}  {payload}".rstrip())


def _word(value: Any) -> str:
    """A word as it is, anything else as JSON, so that neither a key nor a value can fake another field."""
    is_word = isinstance(value, str) and value.isprintable() and value and not set(value) & set(' ="')
    return value if is_word else json.dumps(value)
