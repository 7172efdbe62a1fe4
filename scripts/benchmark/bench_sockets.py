"""What the clients of the benchmarks speak over plain sockets: as little of HTTP and WebSocket as a quick client needs."""

from __future__ import annotations

import base64
import os
import socket
import struct

_TIMEOUT_S = 10.0
_REFUSED = (b"HTTP/1.1 4", b"HTTP/1.1 5")


class NotServed(Exception):
    """The gateway did not take the client."""


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def open_websocket(port: int, path: str, protocol: str = "") -> socket.socket:
    """Raises: NotServed."""
    client = connect(port)
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *([f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []),
    )
    client.sendall("\r\n".join([*lines, "", ""]).encode())
    read_until(client, b" 101 ", b"\r\n\r\n")
    return client


def masked(text: bytes) -> bytes:
    """One text frame of a client, of less than 64 KiB. Source: RFC 6455, section 5.2."""
    mask = os.urandom(4)
    size = struct.pack("!B", 0x80 | len(text)) if len(text) < 126 else struct.pack("!BH", 0x80 | 126, len(text))
    return b"\x81" + size + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(text))


def read_until(client: socket.socket, *wanted: bytes) -> bytes:
    """All that came until each of these had. Raises: NotServed."""
    seen = b""
    while not all(each in seen for each in wanted):
        chunk = client.recv(65_536)
        seen += chunk
        if not chunk or seen.startswith(_REFUSED):
            raise NotServed(seen[:500].decode(errors="replace"))
    return seen
