"""Whether an object in a client's message has two members of one name. Pure.

Whoever reads such an object takes the first, the last or both: what a policy has seen need not be what the server runs.

Source: RFC 8259, section 4: names should be unique, else nobody can say what is read; RFC 7493 (I-JSON), section 2.3: must be.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.framing.surrogates import without_halves

WHOLE_BYTES: Final = 65_536
"""Larger messages are looked at where routes, policies and limits look: the envelope, `params`, and in it `_LEVELS`.
To look at the whole would take a message of 4 MiB a fifth of a second, in which nobody else is served."""

_LEVELS: Final = ("arguments", "_meta", "ref", "notifications")

_decode = msgspec.json.Decoder().decode
_decode_level = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode
_NUMBER = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|-?([0-9])[0-9.eE+-]*', re.DOTALL)


def has_duplicate_names(body: bytes) -> bool:
    """body: valid JSON, as `jsonrpc.decode` has found. Names are compared as they read, not as they are escaped.

    Raises: RecursionError where it is nested too deep to be read.
    """
    if len(body) > WHOLE_BYTES:
        return _has_on_levels(body)
    try:
        once = _encode(_decode(body))
    except msgspec.DecodeError:  # numbers beyond any range, and halves of characters, are no concern of ours
        body = _NUMBER.sub(rb"\1\2", without_halves(body))
        once = _encode(_decode(body))
    # What has been read has no name twice. Most clients write it as we do, with or without spaces; else the names are counted.
    return once != body and once != _compact(body) and _member_count(once) != _member_count(body)


def _has_on_levels(body: bytes) -> bool:
    envelope = _decode_level(body)
    params = _level(envelope.get("params"))
    levels = [body, params, *(_level_of(params, name) for name in _LEVELS)]
    return any(_has_at_top(level) for level in levels if level)


def _has_at_top(level: bytes) -> bool:
    shown = _compact(level)
    once = _encode(_decode_level(shown))
    return once != shown and _member_count(once) != _member_count(shown)


def _level_of(level: bytes, name: str) -> bytes:
    return _level(_decode_level(level).get(name)) if level else b""


def _level(value: Raw | None) -> bytes:
    content = b"" if value is None else bytes(value)
    return content if content.startswith(b"{") else b""


def _compact(body: bytes) -> bytes:
    return msgspec.json.format(body, indent=-1)


def _member_count(body: bytes) -> int:
    """Each member of an object has one colon that is in no string."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2]).count(b":")
