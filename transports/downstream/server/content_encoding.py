"""Undoes what a client has done to the body of its request, bounded by what comes out. Pure.

Source: RFC 9110, sections 8.4 and 15.5.16.
"""

from __future__ import annotations

import zlib
from typing import Final

from mcp_gateway.transports.protocol.mcp.refusals import Refused

ACCEPT_ENCODING: Final = "gzip, deflate, identity"
_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_ENCODINGS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_MOST_ENCODINGS: Final = 2
_MOST_MEMBERS: Final = 16
"""Parts that a gzip body may consist of (RFC 1952, section 2.2): each costs a copy of all that follow."""


class UnsupportedEncoding(Refused):
    """A 415, which is answered with what is taken."""

    def __init__(self, encoding: str) -> None:
        super().__init__(
            "invalid_request", f"Content-Encoding {encoding[:100]!r} is not taken; {ACCEPT_ENCODING} are", status=415
        )


def decoded(body: bytes, content_encoding: str, limit: int) -> bytes:
    """The body as it was before these encodings, which were applied in the order of the header.

    Raises: UnsupportedEncoding; Refused with too_large where more than `limit` bytes come out, with parse_error where the body is
    not what its header says.
    """
    encodings = [name for each in content_encoding.lower().split(",") if (name := each.strip()) not in ("", "identity")]
    if len(encodings) > _MOST_ENCODINGS or not _ENCODINGS.issuperset(encodings):
        raise UnsupportedEncoding(content_encoding)
    for encoding in reversed(encodings):
        try:
            body = _inflated(body, limit) if encoding == "deflate" else _gunzipped(body, limit)
        except zlib.error:
            raise _damaged(encoding) from None
    return body


def _gunzipped(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    for _ in range(_MOST_MEMBERS):
        part, body = _member(body, _GZIP, left)
        parts.append(part)
        left -= len(part)
        if not body:
            return b"".join(parts)
    raise _damaged("gzip")


def _inflated(body: bytes, limit: int) -> bytes:
    """Some clients leave the wrapping of zlib away. Source: RFC 9110, section 8.4.1.2, which knows them."""
    has_wrapping = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0
    found, rest = _member(body, zlib.MAX_WBITS if has_wrapping else _RAW, limit)
    if rest:
        raise _damaged("deflate")
    return found


def _member(body: bytes, window_bits: int, limit: int) -> tuple[bytes, bytes]:
    """One whole stream, and what stands behind it."""
    decoder = zlib.decompressobj(window_bits)
    found = decoder.decompress(body, limit + 1)
    if len(found) > limit:
        raise Refused("too_large", "the message is too large once it is decoded")
    if not decoder.eof:
        raise _damaged("gzip" if window_bits == _GZIP else "deflate")
    return found, decoder.unused_data


def _damaged(encoding: str) -> Refused:
    return Refused("parse_error", f"the body is not {encoding}, as its Content-Encoding says, or not all of it")
