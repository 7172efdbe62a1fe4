"""Whether a tool itself says that it has failed: an answer like any other to the protocol, a failure to who looks after it. Pure.

Source: MCP 2025-11-25, server/tools, "Error Handling"; OpenTelemetry semantic conventions for MCP, `error.type` = `tool_error`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined, size_bytes

TOOL_ERROR: Final = "tool_error"
_FLAG: Final = b'"isError"'
_MOST_READ_BYTES: Final = 65_536
_END_BYTES: Final = 256


class _Result(msgspec.Struct):
    isError: bool = False


class _Answer(msgspec.Struct):
    result: _Result = msgspec.field(default_factory=_Result)


_decode = msgspec.json.Decoder(_Answer).decode


def is_tool_error(answer: Pieces) -> bool:
    """answer: a JSON-RPC response. Of one above 64 KiB the end is looked at alone, where servers put the flag."""
    if size_bytes(answer) > _MOST_READ_BYTES:
        return _FLAG + b":true" in _end_of(answer).replace(b" ", b"")
    whole = joined(answer)
    if _FLAG not in whole:
        return False
    try:
        return _decode(whole).result.isError
    except msgspec.DecodeError:  # the flag is no boolean, or what comes is no response: nothing that anybody could rely on
        return False


def _end_of(answer: Pieces) -> bytes:
    end = b""
    for piece in (answer,) if isinstance(answer, bytes) else reversed(answer):
        end = piece[-_END_BYTES:] + end
        if len(end) >= _END_BYTES:
            break
    return end
