"""A gRPC client of bare bytes, which reads as little as it likes: what libraries read on their own it leaves where it is."""

from __future__ import annotations

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, _HEADERS, SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4


def call_bytes(path: str, message: bytes, stream_id: int = 1) -> bytes:
    """A connection's first bytes and one whole call on it; of the answer it takes 65,535 bytes, as HTTP/2 has it at first.

    Source: RFC 9113, sections 3.4, 4.1 and 6.9.2; RFC 7541, section 6.2.2.
    """
    data = prefix(len(message)) + message
    return begun_call_bytes(path, stream_id) + b"".join(
        frame(DATA, _END_STREAM if at + 16_000 >= len(data) else 0, stream_id, data[at : at + 16_000])
        for at in range(0, len(data), 16_000)
    )


def begun_call_bytes(path: str, stream_id: int = 1) -> bytes:
    """The same without its message."""
    return PREFACE + frame(SETTINGS, 0, 0, b"") + head_bytes(path, stream_id)


def head_bytes(path: str, stream_id: int) -> bytes:
    """How one more call begins."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    return frame(
        _HEADERS, _END_HEADERS, stream_id, _literals([*fields, ("content-type", "application/grpc"), ("te", "trailers")])
    )


def prefix(byte_count: int) -> bytes:
    """What comes before a message of so many bytes. Source: gRPC, "PROTOCOL-HTTP2", Length-Prefixed-Message."""
    return b"\0" + struct.pack(">I", byte_count)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream_id) + payload


def _literals(fields: Iterable[tuple[str, str]]) -> bytes:
    """Each without an index; names and values of less than 127 characters."""
    return b"".join(b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode() for name, value in fields)
