"""Lists of servers without what is named, and texts that are, beyond any use: all of it goes into every client's prompt. Pure.

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
LONGEST_TITLE: Final = 1_000
LONGEST_DESCRIPTION: Final = 16_384
_CUT: Final = "…"


class _Item(msgspec.Struct):
    name: Raw = Raw(b"")
    uri: Raw = Raw(b"")
    uriTemplate: Raw = Raw(b"")
    title: Raw = Raw(b"")
    description: Raw = Raw(b"")


_decode_named = msgspec.json.Decoder(list[_Item]).decode
_decode_items = msgspec.json.Decoder(list[Raw]).decode


def bounded_list(method: str, result: bytes) -> tuple[bytes, int]:
    """(a result of `tools/list` and the like without items whose names are too long and with other long texts cut, how many
    items those are).

    What is no list of objects is for others to complain about.
    """
    if method not in LIST_MEMBERS or len(result) <= LONGEST_NAME:
        return result, 0
    try:
        values = members(result)
        listed = values.get(LIST_MEMBERS[method][0], Raw(b"[]"))
        named = _decode_named(listed)
        if all(_is_bounded(item) and _is_short_text(item) for item in named):
            return result, 0
        items = list(zip(named, _decode_items(listed), strict=True))
        kept = [(item, content) for item, content in items if _is_bounded(item)]
        changed = len(items) - len(kept) + sum(not _is_short_text(item) for item, _ in kept)
        shown = [content if _is_short_text(item) else _cut(content) for item, content in kept]
    except (msgspec.DecodeError, RecursionError):
        return result, 0
    values[LIST_MEMBERS[method][0]] = Raw(msgspec.json.encode(shown))
    return msgspec.json.encode(values), changed


def shortened(text: str, longest: int = LONGEST_DESCRIPTION) -> str:
    """The text, or as much of it as may be."""
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT


def _cut(content: Raw) -> Raw:
    item = members(bytes(content))
    for name, longest in (("title", LONGEST_TITLE), ("description", LONGEST_DESCRIPTION)):
        if not _is_short(item.get(name, Raw(b"")), longest):
            item[name] = Raw(msgspec.json.encode(shortened(msgspec.json.decode(item[name], type=str), longest)))
    return Raw(msgspec.json.encode(item))


def _is_bounded(item: _Item) -> bool:
    return _is_short(item.name, LONGEST_NAME) and _is_short(item.uri, LONGEST_URI) and _is_short(item.uriTemplate, LONGEST_URI)


def _is_short_text(item: _Item) -> bool:
    return _is_short(item.title, LONGEST_TITLE) and _is_short(item.description, LONGEST_DESCRIPTION)


def _is_short(shown: Raw, longest: int) -> bool:
    """In JSON a character takes at least a byte, in quotes."""
    content = bytes(shown)
    return len(content) <= longest + 2 or not content.startswith(b'"') or len(msgspec.json.decode(content, type=str)) <= longest
