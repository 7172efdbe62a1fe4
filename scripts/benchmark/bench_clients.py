"""Clients of the fan-out benchmark, as sockets: what each kind says to follow a topic. One more kind is one more function."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from itertools import count
from typing import Any

_TIMEOUT_S = 10.0
_REFUSED = (b"HTTP/1.1 4", b"HTTP/1.1 5")
TOPIC = "client.bench"

Follow = Callable[[int], socket.socket]
"""Connects to the port and returns when the client follows TOPIC; what comes then is events, their payloads in the clear."""


class NotServed(Exception):
    """The gateway did not take the client."""


def follow_over_sse(port: int) -> socket.socket:
    client = _connect(port)
    request = f"GET /mcp/sse/events/{TOPIC} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
    client.sendall(request.encode())
    _read_until(client, b"event: connected", b"\r\n\r\n")
    return client


def follow_over_phoenix(port: int) -> socket.socket:
    client = _open_phoenix(port)
    client.sendall(_masked(json.dumps(["1", "1", f"mcp:{TOPIC}", "phx_join", {}]).encode()))
    _read_until(client, b'"phx_reply"', b'"ok"')
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
        self._client = _open_phoenix(port)
        self._numbers = count(1)
        self._client.sendall(_masked(json.dumps(["1", "0", "mcp:client.bench-publisher", "phx_join", {}]).encode()))
        _read_until(self._client, b'"phx_reply"', b'"ok"')

    def publish(self) -> tuple[bytes, float]:
        """Publish one event; a marker that only its payload holds, and when it was sent, on the monotonic clock."""
        number = next(self._numbers)
        marker = f"mark-{number}-{os.urandom(4).hex()}"
        event: Any = {"event": TOPIC, "data": {"marker": marker}}
        message = _masked(json.dumps(["1", str(number), "mcp:client.bench-publisher", "event", event]).encode())
        sent_s = time.monotonic()
        self._client.sendall(message)
        return marker.encode(), sent_s

    def take_reply(self) -> None:
        _read_until(self._client, b'"ok"')

    def close(self) -> None:
        self._client.close()


def _connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _open_phoenix(port: int) -> socket.socket:
    client = _connect(port)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        "GET /mcp/websocket?vsn=2.0.0 HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    )
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    _read_until(client, b" 101 ", b"\r\n\r\n")
    return client


def _masked(text: bytes) -> bytes:
    """One text frame of a client. Source: RFC 6455, section 5.2."""
    mask = os.urandom(4)
    size = struct.pack("!B", 0x80 | len(text)) if len(text) < 126 else struct.pack("!BH", 0x80 | 126, len(text))
    return b"\x81" + size + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))


def _read_until(client: socket.socket, *wanted: bytes) -> None:
    """Raises: NotServed."""
    seen = b""
    while not all(each in seen for each in wanted):
        chunk = client.recv(65_536)
        seen += chunk
        if not chunk or seen.startswith(_REFUSED):
            raise NotServed(seen[:500].decode(errors="replace"))
