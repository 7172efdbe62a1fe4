"""What a tool was when it was approved, and whether it still is that. Pure.

A tool is approved when it is first seen, and again by an operator. A server that changes what a tool says or takes afterwards may
have been taken over, or may have waited for trust ("rug pull"). Older revisions leave out members, so each is pinned by itself:
one that was not seen before is new, one that is missing has not changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import attrs
import msgspec
from msgspec import Raw

MOST_TOOLS: Final = 10_000
"""Of one backend. Those beyond count as changed."""
_PINNED: Final = ("title", "description", "inputSchema", "outputSchema", "annotations")

Definition = Mapping[str, str]
"""{member: hash of what it says}."""


@attrs.frozen
class Pin:
    """One member of one tool: as it was approved, and as it was seen last."""

    approved: str
    seen: str


Pins = Mapping[tuple[str, str], Pin]
"""{(tool, member): pin} of one backend."""


@attrs.frozen
class Comparison:
    """written: pins that are new or other ones now. changed: tools that are not what was approved. news: those of them that were
    seen so for the first time.
    """

    written: Pins
    changed: frozenset[str]
    news: frozenset[str]


def definitions_of(tools: Iterable[Mapping[str, Raw]]) -> dict[str, Definition]:
    """{name: definition} of tools as their server lists them. Raises: msgspec.DecodeError where one is none."""
    return {
        msgspec.json.decode(tool["name"], type=str): {member: _hash(tool[member]) for member in _PINNED if member in tool}
        for tool in tools
        if "name" in tool
    }


def compare(known: Pins, listed: Mapping[str, Definition]) -> Comparison:
    """What a list says against what is known."""
    tools = {tool for tool, _ in known}
    written: dict[tuple[str, str], Pin] = {}
    changed: set[str] = set()
    news: set[str] = set()
    for tool, definition in listed.items():
        if tool not in tools and len(tools) >= MOST_TOOLS:
            changed.add(tool)
            continue
        tools.add(tool)
        for member, seen in definition.items():
            pin = known.get((tool, member))
            if pin is None:
                written[tool, member] = Pin(seen, seen)
                continue
            if seen != pin.seen:
                written[tool, member] = Pin(pin.approved, seen)
                news |= {tool} if seen != pin.approved else set()
            if seen != pin.approved:
                changed.add(tool)
    return Comparison(written, frozenset(changed), frozenset(news))


def _hash(value: Raw) -> str:
    """Of what the JSON says, however it is written."""
    return hashlib.sha256(msgspec.json.encode(msgspec.json.decode(value), order="sorted")).hexdigest()[:32]
