"""What operators do from the dashboard: which commands there are, what each is about, and how one is read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.protocol.mcp.refusals import Refused

LARGEST_BODY: Final = 8_192
LONGEST_WORD: Final = 2_000
COMMANDS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "drain": (("name",), ("replica",)),
    "undrain": (("name",), ("replica",)),
    "restart": (("child",), ()),
    "log-level": (("level",), ()),
    "approve": (("backend", "tool"), ()),
    "end-session": (("session",), ()),
    "revoke": (("subject",), ()),
    "reinstate": (("subject",), ()),
}
"""{command: (words that it needs, words that it takes besides)}; named as on the command line, where it is there."""


@attrs.frozen
class OperatorAction:
    """One thing to be done. words: {name as in COMMANDS: as the operator's page has it}."""

    command: str
    words: Mapping[str, str]

    @property
    def about(self) -> str:
        """What it is done to, in one line."""
        return " ".join(self.words.values())


@attrs.frozen
class ActionOutcome:
    """text: what was done, or why it was not, in one sentence."""

    is_done: bool
    text: str


def read_action(body: bytes) -> OperatorAction:
    """body: {"command": "drain", "name": "files"}.

    Raises: Refused.
    """
    if len(body) > LARGEST_BODY:
        raise Refused("too_large", f"an action is no larger than {LARGEST_BODY} bytes")
    try:
        found: Any = msgspec.json.decode(body, type=dict[str, str])
    except (msgspec.DecodeError, RecursionError):
        raise Refused("parse_error", "an action is a JSON object of strings") from None
    command = found.pop("command", "")
    if command not in COMMANDS:
        raise Refused("invalid_params", f"there is no action {command[:100]!r}; there are {', '.join(COMMANDS)}")
    needed, others = COMMANDS[command]
    words = {name: value for name, value in found.items() if value}
    if wrong := [*(each for each in needed if each not in words), *(each for each in words if each not in needed + others)]:
        raise Refused("invalid_params", f"{command} takes {', '.join(needed + others)}; missing or unknown: {wrong[0][:100]!r}")
    if too_long := [name for name, value in words.items() if len(value) > LONGEST_WORD]:
        raise Refused("invalid_params", f"{too_long[0]} is longer than {LONGEST_WORD} characters")
    if "*" in words.get("subject", ""):  # a name that somebody has chosen must not stand for others
        raise Refused("invalid_params", "a name with * is a pattern, which mcp-gateway revoke takes")
    return OperatorAction(command, words)
