"""Newline-delimited messages from chunks of bytes, bounded.

Source: MCP 2025-11-25, basic/transports, "stdio": messages are delimited by newlines and hold none.
"""

from __future__ import annotations

import attrs

_KEPT_BYTES = 256


@attrs.frozen
class LongLine:
    """A line beyond the limit; only its ends were kept."""

    head: bytes = attrs.field(repr=False)
    tail: bytes = attrs.field(repr=False)


class LineSplitter:
    """Turns chunks into lines without their ends; empty ones are left out. Holds at most one unfinished line of the limit."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""  # of a line that has grown too long
        self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes | LongLine]:
        """The lines that this chunk ends."""
        *ended, rest = chunk.split(b"\n")
        lines = []
        for part in ended:
            self._add(part)
            line = self._take()
            if line:
                lines.append(line)
        self._add(rest)
        return lines

    def rest(self) -> bytes | LongLine:
        """What came after the last line end, once no more will come."""
        return self._take()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._max_line_bytes:
            if part:
                self._parts.append(part)
            return
        whole = b"".join((*self._parts, part))
        self._parts.clear()
        if len(self._head) < _KEPT_BYTES:
            self._head = (self._head + whole)[:_KEPT_BYTES]
        self._tail = (self._tail + whole)[-_KEPT_BYTES:]

    def _take(self) -> bytes | LongLine:
        is_long = self._size > self._max_line_bytes
        line = LongLine(self._head, self._tail) if is_long else b"".join(self._parts).strip(b" \t\r")
        self._parts.clear()
        self._size, self._head, self._tail = 0, b"", b""
        return line
