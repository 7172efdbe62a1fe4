"""The tools of one backend as clients see and call them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.merging.list_bounds import LONGEST_NAME

from .portable_names import is_marked, room_beside
from .tool_choice import ToolChoice
from .tool_edits import ToolEdit
from .tool_names import ToolNames

AS_IS: Final = "as_is"
_NAME_FIRST: Final = re.compile(rb'\s*\{\s*"name"\s*:\s*"([A-Za-z0-9_.-]{1,128})"')
MOST_SEEN: Final = 1_000
_MOST_PASSING: Final = 1_000
"""Names that are remembered to pass as they are."""


class _Named(msgspec.Struct):
    name: str


class _Call(msgspec.Struct):
    name: Raw = Raw(b"")


_decode_tools = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_named = msgspec.json.Decoder(list[_Named]).decode
_decode_name = msgspec.json.Decoder(str).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_encode = msgspec.json.encode


class UnknownTool(Exception):
    """No tool is served by that name."""


class Curation:
    """tools: as `config.tool_settings` has them. prefix: that stands before the names in the merged server.

    is_chosen: whether it says which tools are served, or as what.
    seen:      {the server's name of a tool: what it is served as, None where it is not} of those that lists have shown so far and
               that are not served by their own name, `MOST_SEEN` at most.
    """

    def __init__(self, tools: Mapping[str, Any], prefix: str) -> None:
        longest = 0 if tools.get("names") == AS_IS else room_beside(prefix)
        self.names = ToolNames(ToolChoice(tools), tools.get("rename", {}), longest)
        self.seen: dict[str, str | None] = {}
        self._passing: set[str] = set()
        self._edits = {name: ToolEdit(override) for name, override in tools.get("overrides", {}).items()}
        self.is_chosen = any(tools.get(key) for key in ("allow", "deny", "rename", "overrides"))

    def served_list(self, result: bytes, withheld: frozenset[str] = frozenset()) -> bytes:
        """A result of `tools/list` as clients see it: the same object where that is what the server says.

        withheld: the server's names of tools that are not served for another reason.

        Raises: msgspec.DecodeError where it is none, and what must not be seen might be in it.
        """
        try:
            values = members(result)
            listed = values.get("tools", Raw(b"[]"))
            own = [tool.name for tool in _decode_named(listed)]
            here = [None if name in withheld else self.names.listed(name) for name in own]
            if here == own and not (self._edits and any(name in self._edits for name in own)):
                return result
            self._note_seen(own, here)
            shown = []
            for tool, name, own_name in zip(_decode_tools(listed), here, own, strict=True):
                if name is not None:
                    if name != own_name:
                        tool["name"] = Raw(_encode(name))
                    if (edit := self._edits.get(own_name)) is not None:
                        edit.shown(tool)
                    shown.append(tool)
        except msgspec.DecodeError:
            if self.is_chosen or withheld:
                raise
            return result  # for others to complain about
        values["tools"] = Raw(_encode(shown))
        return _encode(values)

    def _note_seen(self, own: list[str], here: list[str | None]) -> None:
        for own_name, name in zip(own, here, strict=True):
            if name == own_name:
                self.seen.pop(own_name, None)
            elif own_name in self.seen or len(self.seen) < MOST_SEEN:
                self.seen[own_name] = name

    def passes(self, here: str) -> bool:
        """Whether a call by this name is known to pass as it is."""
        return here in self._passing

    def name_called(self, params: bytes) -> str | None:
        """By what name a call asks for a tool; None for one without, which is the server's to refuse.

        Most clients write it first, where it is found without a look at the rest: none of their messages has a name twice.
        """
        if (first := _NAME_FIRST.match(params)) is not None:
            return first[1].decode()
        try:
            return _decode_name(_decode_call(params).name)
        except msgspec.DecodeError:
            return None

    def own_call(self, here: str, params: bytes) -> bytes:
        """The params of a call as the server shall read them: the same object where that is what the client says.

        Raises: UnknownTool; msgspec.DecodeError where the arguments that they shall have are no object.
        """
        own = self.names.called(here)
        if own is None:
            raise UnknownTool(here)
        edit = self._edits.get(own)
        if own == here and (edit is None or not edit.gives_arguments):
            if len(self._passing) >= _MOST_PASSING:  # clients make up names
                self._passing.clear()
            if len(here) <= LONGEST_NAME and not is_marked(here):
                self._passing.add(here)
            return params
        values = members(params)
        values["name"] = Raw(_encode(own))
        if edit is not None and edit.gives_arguments:
            values["arguments"] = Raw(edit.filled(bytes(values.get("arguments", Raw(b"{}")))))
        return _encode(values)
