"""Clients of the fan-out benchmark, as sockets: what each kind says to follow a topic. One more kind is one more function."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from .bench_sockets import connect, masked, open_websocket, read_until

TOPIC = "client.bench"
PHOENIX_PATH = "/mcp/websocket?vsn=2.0.0"

Follow = Callable[[int], socket.socket]
"""Connects to the port and returns when the client follows TOPIC; what comes then is events, their payloads in the clear."""


def follow_over_sse(port: int) -> socket.socket:
    client = connect(port)
    request = f"GET /mcp/sse/events/{TOPIC} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
    client.sendall(request.encode())
    read_until(client, b"event: connected", b"\r\n\r\n")
    return client


def follow_over_phoenix(port: int) -> socket.socket:
    client = open_websocket(port, PHOENIX_PATH)
    client.sendall(masked(json.dumps(["1", "1", f"mcp:{TOPIC}", "phx_join", {}]).encode()))
    read_until(client, b'"phx_reply"', b'"ok"')
    return client


CLIENT_KINDS: dict[str, tuple[str, tuple[Follow, ...]]] = {
    "sse": ("SSE topic stream", (follow_over_sse,)),
    "phoenix": ("Phoenix channel", (follow_over_phoenix,)),
    "both": ("both at once", (follow_over_sse, follow_over_phoenix)),
}
"""{name: (as the table shows it, how they follow: as many clients each way)}"""


class Publisher:
    """Publishes through a Phoenix channel, as a client does."""

    def __init__(self, port: int) -> None:
        self._client = open_websocket(port, PHOENIX_PATH)
        self._numbers = count(1)
        self._client.sendall(masked(json.dumps(["1", "0", "mcp:client.bench-publisher", "phx_join", {}]).encode()))
        read_until(self._client, b'"phx_reply"', b'"ok"')

    def publish(self) -> tuple[bytes, float]:
        """Publish one event; a marker that only its payload holds, and when it was sent, on the monotonic clock."""
        number = next(self._numbers)
        marker = f"mark-{number}-{os.urandom(4).hex()}"
        event: Any = {"event": TOPIC, "data": {"marker": marker}}
        message = masked(json.dumps(["1", str(number), "mcp:client.bench-publisher", "event", event]).encode())
        sent_s = time.monotonic()
        self._client.sendall(message)
        return marker.encode(), sent_s

    def take_reply(self) -> None:
        read_until(self._client, b'"ok"')

    def close(self) -> None:
        self._client.close()
