"""Results of tools that are larger than clients shall get: cut where that can be seen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import members

CUT: Final = "io.mcp-gateway/cut"
"""`_meta` key of a result that was cut: {"bytes": how large it was}."""

_LEAST_TEXT: Final = 64
_KEPT: Final = ("resultType", "isError")
_TOO_MUCH: Final = Raw(b" " * 32)
_GIVEN: Final = frozenset({"content", "structuredContent", "toolResult"})
_NOT_YET: Final = (b'"input_required"', b'"task"')
_decode_blocks = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode


def cut_result(result: bytes, most_bytes: int) -> bytes:
    """The result where it is small enough. Else as many whole blocks as there is room for, the beginning of a text, and a last
    block that says so; its structured content, of which a part would be another one, is left out, and it is an error then.

    Raises: msgspec.DecodeError where it is no result of a tool.
    """
    if len(result) <= most_bytes:
        return result
    values = members(result)
    if not is_final(values):
        return result
    room, kept = most_bytes, []
    for block in _decode_blocks(values.get("content", Raw(b"[]"))):
        size = len(_encode(block))
        if size > room:
            if bytes(block.get("type", b"")) == b'"text"' and room > _LEAST_TEXT:
                kept.append(block | {"text": Raw(_encode(_shortened(_decode_text(block.get("text", Raw(b'""'))), room)))})
            break
        kept.append(block)
        room -= size
    told = f"[Cut by the gateway: the result had {len(result)} bytes, and {most_bytes} are the most.]"
    content = [*kept, {"type": "text", "text": told}]
    if values.pop("structuredContent", None) is not None or "content" not in values:
        values["isError"] = Raw(b"true")
    values.pop("content", None)
    if len(_encode(values)) > most_bytes:  # what is said beside it
        values = {name: values[name] for name in _KEPT if len(values.get(name, _TOO_MUCH)) < len(_TOO_MUCH)}
    meta = members(bytes(values.get("_meta", Raw(b"{}"))))
    values["_meta"] = Raw(_encode({**meta, CUT: {"bytes": len(result)}}))
    return _encode({**values, "content": content})


def is_final(values: Mapping[str, Raw]) -> bool:
    """Whether it is what the tool has given, and no question or task: those are no results yet, and hold nothing of one.

    Source: MCP 2026-07-28, "ResultType"; 2025-11-25, "CreateTaskResult"; `toolResult` is of before 2024-11-05 and read by
    clients in TypeScript to this day.
    """
    if values.keys() & _GIVEN:
        return True
    return "task" not in values and bytes(values.get("resultType", b"")) not in _NOT_YET


def _shortened(text: str, room: int) -> str:
    """As much as there is room for, as JSON, whatever its characters take."""
    return text.encode("utf-8", "surrogatepass")[: room // 2].decode("utf-8", "ignore")
