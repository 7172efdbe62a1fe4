"""Which node of a cluster a command is for: names of other nodes' parts begin with their node's. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import attrs

DRAIN_NODE: Final = "drain-node"

NODE_COMMANDS: Final = frozenset({"restart", "kill", DRAIN_NODE})
"""What an operator may ask of another node."""


@attrs.frozen
class NamedCommand:
    """A command as the node carries it out that it is for. node: another one; "" for this one."""

    node: str
    command: str
    arguments: dict[str, Any]


def named_command(
    command: str, arguments: Mapping[str, Any], *, own: str, others: Collection[str], backends: Collection[str]
) -> NamedCommand:
    """Find the node. own: the name of this one, "" without a cluster; others: those that are there.

    A name without a node is of this one; `drain` takes a backend's name, or a node's where no backend has it.
    """
    given = dict(arguments)
    if command in ("restart", "kill"):
        node, _, child = str(given.get("child", "")).partition("/")
        if own and child and node in (own, *others):
            return NamedCommand("" if node == own else node, command, {**given, "child": child})
    elif command == "drain" and own and given.get("name") in (own, *others) and "replica" not in given:
        name = str(given["name"])
        if name not in backends:
            return NamedCommand("" if name == own else name, DRAIN_NODE, {})
    return NamedCommand("", command, given)
