"""Which tools of a backend are served: its list without the others, and whether one may be called. The rules are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from mcp_gateway.transports.protocol.mcp.jsonrpc import members

_decode_tools = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_name = msgspec.json.Decoder(str).decode


class ToolChoice:
    """patterns: {"allow", "deny"}: names of tools in which "*" stands for any text; all are served where none is allowed, and
    what is denied is not, whatever is allowed.
    """

    def __init__(self, patterns: Mapping[str, Sequence[str]]) -> None:
        self._allow = _either(patterns.get("allow") or ("*",))
        self._deny = _either(patterns.get("deny", ()))

    def serves(self, name: str) -> bool:
        return self._allow.fullmatch(name) is not None and self._deny.fullmatch(name) is None

    def served_list(self, result: bytes) -> bytes:
        """A result of `tools/list` without the tools that are not served.

        Raises: msgspec.DecodeError where it is none.
        """
        values = members(result)
        tools = _decode_tools(values.get("tools", msgspec.Raw(b"[]")))
        values["tools"] = msgspec.Raw(
            msgspec.json.encode([tool for tool in tools if self.serves(_decode_name(members(bytes(tool)).get("name", b"")))])
        )
        return msgspec.json.encode(values)


def _either(patterns: Sequence[str]) -> re.Pattern[str]:
    """One that matches what any of them does; none of them, nothing."""
    parts = (".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns)
    return re.compile("|".join(parts) if patterns else r"(?!)", re.DOTALL)
