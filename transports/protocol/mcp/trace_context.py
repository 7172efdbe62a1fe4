"""W3C trace context on its way through the gateway: in HTTP headers and in `_meta`, whichever a client or a server knows.

Source: W3C Trace Context, section 3 (traceparent, tracestate); W3C Baggage, section 3; MCP 2026-07-28, basic/index, "_meta":
the keys `traceparent`, `tracestate` and `baggage`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from . import jsonrpc

CONTEXT_KEYS: Final = ("traceparent", "tracestate", "baggage")
_HEADERS: Final = tuple((key.capitalize(), key) for key in CONTEXT_KEYS)
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST = 8_192
_HINT: Final = b'"traceparent"'


def trace_id_of(traceparent: str) -> str | None:
    """The trace id of a valid traceparent, else None."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    return match[2] if match[2].strip("0") and match[3].strip("0") else None


def context_in_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The context in the headers of a request, as it is, by lower-case names. headers: as in `server.Incoming`."""
    found = {}
    for name, key in _HEADERS:
        if name in headers:
            found[key] = headers[name]
    return found


def context_in_params(params: bytes) -> dict[str, str]:
    """The context in the `_meta` of a message's parameters; {} where there is none, or none that is valid."""
    if _HINT not in params:  # most messages have none: finding out must cost nothing
        return {}
    try:
        meta = jsonrpc.members(jsonrpc.members(params)["_meta"])
        found = {key: msgspec.json.decode(meta[key], type=str) for key in CONTEXT_KEYS if key in meta}
    except (KeyError, msgspec.DecodeError):
        return {}
    if trace_id_of(found.get("traceparent", "")) is None:
        return {}
    return {key: value for key, value in found.items() if len(value) <= _LONGEST and value.isprintable() and value.isascii()}


def params_with_context(params: bytes, context: Mapping[str, str]) -> bytes:
    """The parameters with this context in their `_meta`, in the place of another one; everything else as it was."""
    wanted = {key: context[key] for key in CONTEXT_KEYS if key in context}
    if "traceparent" not in wanted:
        return params
    try:
        members = jsonrpc.members(params)
        meta = jsonrpc.members(members.get("_meta", msgspec.Raw(b"")))
    except msgspec.DecodeError:
        return params
    for key in CONTEXT_KEYS:
        meta.pop(key, None)
    meta.update((key, msgspec.Raw(msgspec.json.encode(value))) for key, value in wanted.items())
    members["_meta"] = msgspec.Raw(msgspec.json.encode(meta))
    return msgspec.json.encode(members)
