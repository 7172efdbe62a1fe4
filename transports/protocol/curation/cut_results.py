"""Results of tools that are larger than clients shall get: cut where that can be seen. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import members

CUT: Final = "io.mcp-gateway/cut"
"""`_meta` key of a result that was cut: {"bytes": how large it was}."""

_LEAST_TEXT: Final = 64
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
    if "content" not in values and "structuredContent" not in values:
        return result  # a question, or a task: neither is a result yet
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
    if values.pop("structuredContent", None) is not None:
        values["isError"] = Raw(b"true")
    meta = members(bytes(values.get("_meta", Raw(b"{}"))))
    values["_meta"] = Raw(_encode({**meta, CUT: {"bytes": len(result)}}))
    return _encode({**values, "content": content})


def _shortened(text: str, room: int) -> str:
    """As much as there is room for, as JSON, whatever its characters take."""
    return text.encode("utf-8", "surrogatepass")[: room // 2].decode("utf-8", "ignore")
