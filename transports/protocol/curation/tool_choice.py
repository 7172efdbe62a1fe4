"""Which tools of a backend are served. Pure; the rules are ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mcp_gateway.transports.protocol.merging.wildcard import Wildcard


class ToolChoice:
    """patterns: {"allow", "deny"}: names of tools in which "*" stands for any text; all are served where none is allowed, and
    what is denied is not, whatever is allowed.
    """

    def __init__(self, patterns: Mapping[str, Sequence[str]]) -> None:
        self._allow = [Wildcard(each) for each in patterns.get("allow") or ("*",)]
        self._deny = [Wildcard(each) for each in patterns.get("deny", ())]

    def serves(self, name: str) -> bool:
        return any(each.matches(name) for each in self._allow) and not any(each.matches(name) for each in self._deny)
