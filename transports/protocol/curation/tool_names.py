"""By which names a backend's tools are served. Pure.

Of tools that would be called alike the first of the list has the name and the others are not served, in lists and calls alike; a
name that the configuration gives wins over the name of a server's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mcp_gateway.transports.protocol.merging.list_bounds import LONGEST_NAME

from .portable_names import is_marked, portable
from .tool_choice import ToolChoice

MOST_KNOWN: Final = 10_000
"""Names of a backend that were made portable, or could have been. Beyond, such tools are not served."""


class ToolNames:
    """rename: {name at the server: name here}, each name once. longest: of a name here; 0 leaves names as they are.

    Names that were made portable say no more what they stood for: that is known from the list, see `has_to_look_up`.
    """

    def __init__(self, choice: ToolChoice, rename: Mapping[str, str], longest: int) -> None:
        self._choice = choice
        self._rename = rename
        self._renamed = {here: own for own, here in rename.items()}
        self._longest = longest
        self._marked: dict[str, str] = {}  # {name here, with a mark: at the server}
        self._untold: dict[str, str] = {}

    def listed(self, own: str) -> str | None:
        """The name of a tool that the server lists, or None where it is not served."""
        if not self._choice.serves(own) or (own in self._renamed and own not in self._rename):
            return None
        here = self._rename.get(own, own)
        if not self._longest or len(own) > LONGEST_NAME:  # as long as that it is left out of lists anyway
            return here
        wanted, here = here, portable(here, self._longest)
        if not is_marked(here):
            return here
        if here not in self._marked:
            if len(self._marked) >= MOST_KNOWN:
                return None
            self._marked[here] = own
            if here != wanted:
                self._untold[own] = here
        return here if self._marked[here] == own else None

    def take_untold(self) -> dict[str, str]:
        """{name at the server: name here} of those that were made portable since this was asked last."""
        untold, self._untold = self._untold, {}
        return untold

    def has_to_look_up(self, here: str) -> bool:
        """Whether the list has to be seen before this name can be understood."""
        return bool(self._longest) and is_marked(here) and here not in self._marked

    def called(self, here: str) -> str | None:
        """The server's own name of a tool that a client calls, or None where none is served by that name."""
        own = self._marked.get(here)
        if own is None:
            own = self._renamed.get(here, here)
            if self._rename.get(own, own) != here or (self._longest and portable(here, self._longest) != here):
                return None
        return own if self._choice.serves(own) else None
