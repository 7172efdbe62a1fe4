"""Server-Sent Events: an incremental parser that is bounded, and the encoder.

Source: WHATWG HTML, section 9.2 "Server-sent events" (parsing and interpreting an event stream).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_WHOLE_EVENT: Final = re.compile(rb"(?:event: message\n)?data: ([^\n]{0,4096})\n\n")
"""As servers write a message; what is larger, or written otherwise, is read line by line."""
_LARGE_BYTES: Final = 65_536
_LF: Final = 0x0A  # looked for as numbers: as bytes that takes seven times as long in a short event
_CR: Final = 0x0D


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. retry_ms: the reconnection time that came with it, if any."""

    data: bytes
    event: str = "message"
    event_id: str | None = None
    retry_ms: int | None = None


class EventTooLarge(Exception):
    """One event grew beyond the limit before it ended."""


class EventStreamParser:
    """Turns chunks of an event stream into events; holds at most one unfinished event of max_event_bytes.

    Events without data are dispatched where they carry an id (MCP's priming events) or a reconnection time: browsers drop
    them, but note what they carry. An event's name alone is dropped. A line end is one as soon as its CR has come.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = bytearray()
        self._is_first_line = True
        self._ended_with_cr = False
        self._data: list[bytes] = []
        self._event = ""
        self._event_id: str | None = None
        self._retry_ms: int | None = None
        self._size = 0

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that this chunk completes.

        Raises: EventTooLarge.
        """
        if self._ended_with_cr and chunk:
            self._ended_with_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._ended_with_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        events = []
        if not self._rest and not self._size:  # no event has begun
            read = 0
            while (whole := _WHOLE_EVENT.match(chunk, read)) is not None and len(whole[1]) < self._max_event_bytes - 32:
                events.append(ServerSentEvent(whole[1]))
                read = whole.end()
                self._is_first_line = False
            if read == len(chunk):
                return events
            chunk = chunk[read:]
        first, *lines = chunk.split(b"\n")
        if not lines:  # part of a long line
            self._hold(chunk)
            return events
        if self._rest:
            self._rest += first
            first = bytes(self._rest)
            self._rest.clear()
        if self._is_first_line:
            self._is_first_line = False
            first = first.removeprefix(b"\xef\xbb\xbf")
        last = lines.pop()
        for line in (first, *lines):
            if line:
                self._take(line)
            else:
                event = self._dispatch()
                if event is not None:
                    events.append(event)
        self._hold(last)
        return events

    def _hold(self, part: bytes) -> None:
        self._rest += part
        self._check_size(len(self._rest) - (3 if self._is_first_line else 0))  # a byte order mark does not count

    def _check_size(self, line_bytes: int) -> None:
        if self._size + line_bytes > self._max_event_bytes:
            raise EventTooLarge(f"an event is larger than {self._max_event_bytes} bytes")

    def _take(self, line: bytes) -> None:
        self._check_size(len(line))
        if line.startswith(b"data: "):  # as most lines do, and those that are long: copied once
            self._size += len(line)
            self._data.append(line[6:])
            return
        if line.startswith(b":"):
            return  # a comment: nothing of it is held
        self._size += len(line)
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._event = "message" if value == b"message" else value.decode(errors="replace")
        elif field == b"id" and b"\0" not in value:
            self._event_id = value.decode(errors="replace")
        elif field == b"retry" and value.isdigit() and len(value) < 10:
            self._retry_ms = int(value)

    def _dispatch(self) -> ServerSentEvent | None:
        data, event, event_id, retry_ms = self._data, self._event, self._event_id, self._retry_ms
        self._reset()
        if not data and event_id is None and retry_ms is None:
            return None
        return ServerSentEvent(b"\n".join(data), event or "message", event_id, retry_ms)

    def _reset(self) -> None:
        self._data, self._event, self._event_id, self._retry_ms, self._size = [], "", None, None, 0


def encode_event(data: bytes, *, event: str | None = None, event_id: str | None = None, retry_ms: int | None = None) -> bytes:
    """The bytes of one event. Line breaks in data, which JSON may have between its tokens, split it over data fields.

    Raises: ValueError where the name or the id holds a line break, or the id a NUL: they would say something else.
    """
    is_one_line = _LF not in data and _CR not in data
    if is_one_line and event is None and event_id is None and retry_ms is None and len(data) < _LARGE_BYTES:
        return b"data: %b\n\n" % data
    parts: list[bytes] = []
    if event is not None:
        parts += (b"event: ", _one_line(event), b"\n")
    if event_id is not None:
        if "\0" in event_id:
            raise ValueError(f"not an id of an event: {event_id[:100]!r}")
        parts += (b"id: ", _one_line(event_id), b"\n")
    if retry_ms is not None:
        parts.append(b"retry: %d\n" % retry_ms)
    lines = (data,) if is_one_line else data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in lines:
        parts += (b"data: ", line, b"\n")
    parts.append(b"\n")
    return b"".join(parts)


def _one_line(text: str) -> bytes:
    if "\n" in text or "\r" in text:
        raise ValueError(f"a field of an event is one line, not {text[:100]!r}")
    return text.encode()


KEEP_ALIVE = b":\n\n"
"""A comment: says that the stream is alive and carries nothing."""

HEARTBEAT = encode_event(b"{}", event="heartbeat")
"""An event that says no more, for clients that never see comments. Source: the gateway's contract."""
