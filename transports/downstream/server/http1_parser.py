"""HTTP/1.1 requests out of bytes, however these are split: heads, bodies, ends, or the refusal at which reading stops. Pure.

llhttp reads the fields of a head. The rest is little, and stricter than llhttp can be told to be: the request line is a pattern
of `request_head`, a body is counted, and chunks have neither extensions nor trailers, which nobody sends to an MCP server.

Source: RFC 9112.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, TypeAlias

import httptools
import msgspec

from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .request_head import HEADERS_TOO_LARGE, check_fields, check_lines, malformed

_END: Final = b"\r\n\r\n"
_ANY_END: Final = re.compile(rb"\n\r?\n")
_ANY_REQUEST: Final = b"GET / HTTP/1.1\r\n"
_MOST_KEPT_LINES: Final = 1_024
_LONGEST_KEPT_LINE: Final = 128
MOST_FIELDS: Final = 256
"""Of one head: each line costs as much to read, be it long or short. Ours; clients send twenty, proxies add as many."""
_NEVER_KEPT: Final = frozenset({"Authorization", "Proxy-Authorization", "Cookie", "Mcp-Session-Id"})
"""What gives access to something is gone with its request."""
_LINE_END: Final = b"\r\n"
_SIZE: Final = re.compile(rb"[0-9a-fA-F]+")
_LONGEST_SIZE_LINE: Final = 64
_LARGEST_BODY_BYTES: Final = 1 << 40
"""Ours: of all chunks together, so that no sum is beyond a machine's numbers. What is too large for a message is far below."""


class RequestHead(msgspec.Struct, frozen=True):
    """What a request says before its body.

    target:  as it was sent. version: "HTTP/1.1" or "HTTP/1.0".
    headers: {name as in "Mcp-Session-Id": value}; a header that came twice has both values, joined by a comma.
    """

    method: str
    target: str
    version: str
    headers: dict[str, str]

    @property
    def keeps_alive(self) -> bool:
        """Whether the client wants the connection for its next request. Source: RFC 9112, section 9.3."""
        connection = self.headers.get("Connection", "").lower()
        if self.version == "HTTP/1.1":
            return connection != "close"
        return connection == "keep-alive" and ("Content-Length" in self.headers or self.method in ("GET", "HEAD"))


class RequestEnd(Enum):
    """A request is whole."""

    END = auto()


END: Final = RequestEnd.END
Event: TypeAlias = RequestHead | bytes | RequestEnd | Refused


class RequestParser:
    """Reads the requests of one connection, one after the other."""

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._begun = bytearray()  # of a head that is not whole; behind a whole request, what came with it
        self._body: _CountedBody | _ChunkedBody | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next head is here."""
        return self._body is None and bool(self._begun)

    @property
    def chunk_count(self) -> int:
        """Of a body in chunks: how many the last bytes have brought; they cost as much to read, be they long or short."""
        return self._body.chunk_count if isinstance(self._body, _ChunkedBody) else 0

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes bring of the current request: its head, parts of its body, END.

        A refusal is the last event that there is on this connection. After END there is nothing either, until `take_rest`.
        """
        events: list[Event] = []
        try:
            if self._body is None:
                data = self._read_head(data, events)
            if self._body is not None and self._body.read(data, events):
                self._begun += self._body.rest
                events.append(END)
        except Refused as refused:
            events.append(refused.with_traceback(None))
        return events

    def take_rest(self) -> bytes:
        """What came behind the end of a request; the next one is read from now on."""
        self._body = None
        if not self._begun:
            return b""
        rest = bytes(self._begun)
        self._begun.clear()
        return rest

    def _read_head(self, data: bytes, events: list[Event]) -> bytes:
        """What stands behind it. Raises: Refused."""
        begun = self._begun
        searched = max(0, len(begun) - len(_END) + 1)
        if begun:
            begun += data
        here: bytes | bytearray = begun or data
        end = here.find(_END, searched) + len(_END)
        if end < len(_END):
            if len(here) > self._max_head_bytes:
                raise HEADERS_TOO_LARGE
            if _ANY_END.search(here, searched) is not None:
                check_lines(bytes(here))
            if not begun:
                begun += data
            return b""
        if end > self._max_head_bytes:
            raise HEADERS_TOO_LARGE
        head, rest = bytes(here[:end]), bytes(here[end:])
        begun.clear()
        read = read_head(head)
        events.append(read)
        self._body = _ChunkedBody() if "Transfer-Encoding" in read.headers else _CountedBody(read.headers)
        return rest


def read_head(head: bytes) -> RequestHead:
    """head: all up to the empty line. Raises: Refused."""
    line = check_lines(head)
    method, target, version = line.group().strip().decode("latin-1").split(" ")
    fields = head[line.end() : -len(_END)].split(_LINE_END)
    if len(fields) > MOST_FIELDS:
        raise HEADERS_TOO_LARGE
    headers: dict[str, str] = {}
    repeated: set[str] = set()
    for raw in fields:
        if not raw:  # of a head without fields
            continue
        name, value = _known_fields.get(raw) or _field(raw)
        if name in headers:
            repeated.add(name)
            value = f"{headers[name]},{value}"
        headers[name] = value

    def values(name: str) -> list[str]:
        """None, the one, or more than one: which they are does not matter then."""
        value = headers.get(name)
        return [] if value is None else [value, value] if name in repeated else [value]

    check_fields(f"{method} {target} {version}", values("Host"), values("Content-Length"), values("Transfer-Encoding"))
    return RequestHead(method, target, version, headers)


class _Line:
    """Takes what llhttp calls for."""

    __slots__ = ("field",)

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        name = "-".join([word.capitalize() for word in raw_name.decode("latin-1").split("-")])
        self.field = name, raw_value.decode("latin-1").strip(" \t")


_known_fields: dict[bytes, tuple[str, str]] = {}
"""{line: (name, value)}: clients send the same few with every request, and to read them anew took a twentieth of a call."""


def _field(raw: bytes) -> tuple[str, str]:
    """The name and the value in a line of a head. Raises: Refused."""
    line = _Line()
    try:
        httptools.HttpRequestParser(line).feed_data(_ANY_REQUEST + raw + _END)
    except httptools.HttpParserError as error:
        raise malformed(f"the head is malformed: {error}") from None
    if len(raw) <= _LONGEST_KEPT_LINE and line.field[0] not in _NEVER_KEPT:
        if len(_known_fields) >= _MOST_KEPT_LINES:
            _known_fields.clear()
        _known_fields[raw] = line.field
    return line.field


class _CountedBody:
    """A body whose length its head tells. rest: what stands behind its end."""

    __slots__ = ("_left", "rest")

    def __init__(self, headers: dict[str, str]) -> None:
        self._left = int(headers.get("Content-Length", 0))
        self.rest = b""

    def read(self, data: bytes, events: list[Event]) -> bool:
        """Whether this is the end."""
        if self._left:
            here = len(data)
            if here > self._left:
                data, self.rest = data[: self._left], data[self._left :]
                here = self._left
            self._left -= here
            if here:
                events.append(data)
        else:
            self.rest = data
        return not self._left


class _ChunkedBody:
    """A body in chunks. rest: what stands behind its end; chunk_count: how many the last bytes have brought.

    Source: RFC 9112, section 7.1. What it lets recipients ignore, extensions and trailers, is refused: few read it alike.
    """

    __slots__ = ("_begun", "_is_last", "_left", "_owes_line_end", "_total", "chunk_count", "rest")

    def __init__(self) -> None:
        self._begun = b""  # of a line that is not whole
        self._left = 0  # of a chunk that is not whole
        self._owes_line_end = False  # it is whole but for that
        self._is_last = False
        self._total = 0
        self.chunk_count = 0
        self.rest = b""

    def read(self, data: bytes, events: list[Event]) -> bool:
        """Whether this is the end. Raises: Refused."""
        parts: list[bytes] = []
        try:
            return self._read(self._begun + data, parts)
        finally:
            self.chunk_count = len(parts)
            if parts:
                events.append(b"".join(parts))

    def _read(self, data: bytes, parts: list[bytes]) -> bool:
        at = 0
        while not self._is_last or self._owes_line_end:
            if self._left:
                part = data[at : at + self._left]
                if part:
                    parts.append(part)
                self._left -= len(part)
                end = at + len(part)
                is_whole = not self._left
            elif self._owes_line_end:
                end = at + len(_LINE_END)
                is_whole = end <= len(data)
                if not _LINE_END.startswith(data[at:end]):
                    raise _unchunked("a chunk ends where its size says")
                self._owes_line_end = not is_whole
            else:
                end = data.find(_LINE_END, at, at + _LONGEST_SIZE_LINE) + len(_LINE_END)
                is_whole = end >= len(_LINE_END)
                if is_whole:
                    self._begin_chunk(data[at : end - len(_LINE_END)])
                elif len(data) - at >= _LONGEST_SIZE_LINE:
                    raise _unchunked("the size of a chunk is short")
            if not is_whole:
                self._begun = b"" if self._left else data[at:]
                return False
            at = end
        self.rest = data[at:]
        return True

    def _begin_chunk(self, size: bytes) -> None:
        if _SIZE.fullmatch(size) is None:
            raise _unchunked("the size of a chunk is a hexadecimal number and nothing else")
        self._left = int(size, 16)
        self._total += self._left
        if self._total > _LARGEST_BODY_BYTES:
            raise _unchunked("a body has an end")
        self._is_last = not self._left
        self._owes_line_end = True


def _unchunked(text: str) -> Refused:
    return malformed(f"the body is not chunked as it should be: {text}")
