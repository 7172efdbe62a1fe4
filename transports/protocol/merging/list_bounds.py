"""Lists of servers without what is named beyond any use: a name of 100 kB would be in every client's prompt, log and table. Pure.

Source: MCP 2025-11-25, server/tools, "Tool Names": 1 to 128 characters, as a SHOULD; the bounds are ours, and leave room for
those who do otherwise.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS

LONGEST_NAME: Final = 1_000
LONGEST_URI: Final = 8_192


class _Item(msgspec.Struct):
    name: Raw = Raw(b"")
    uri: Raw = Raw(b"")
    uriTemplate: Raw = Raw(b"")


_decode_named = msgspec.json.Decoder(list[_Item]).decode
_decode_items = msgspec.json.Decoder(list[Raw]).decode


def bounded_list(method: str, result: bytes) -> tuple[bytes, int]:
    """(a result of `tools/list` and the like without items whose names are too long, how many those are).

    What is no list of objects is for others to complain about.
    """
    if method not in LIST_MEMBERS or len(result) <= LONGEST_NAME:
        return result, 0
    try:
        values = members(result)
        listed = values.get(LIST_MEMBERS[method][0], Raw(b"[]"))
        is_kept = [_is_bounded(item) for item in _decode_named(listed)]
        if all(is_kept):
            return result, 0
        items = [item for item, keeps in zip(_decode_items(listed), is_kept, strict=True) if keeps]
    except (msgspec.DecodeError, RecursionError):
        return result, 0
    values[LIST_MEMBERS[method][0]] = Raw(msgspec.json.encode(items))
    return msgspec.json.encode(values), is_kept.count(False)


def _is_bounded(item: _Item) -> bool:
    return _is_short(item.name, LONGEST_NAME) and _is_short(item.uri, LONGEST_URI) and _is_short(item.uriTemplate, LONGEST_URI)


def _is_short(shown: Raw, longest: int) -> bool:
    """In JSON a character takes at least a byte, in quotes."""
    content = bytes(shown)
    return len(content) <= longest + 2 or not content.startswith(b'"') or len(msgspec.json.decode(content, type=str)) <= longest
