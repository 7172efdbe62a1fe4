"""Which node a command is for."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.actors.node.named_nodes import DRAIN_NODE, NamedCommand, named_command


def named(command: str, *, own: str = "a", **arguments: Any) -> NamedCommand:
    return named_command(command, arguments, own=own, others=("b", "files"), backends=("files", "demo"))


@pytest.mark.parametrize(
    ("child", "node", "rest"),
    [
        ("b/cell/0", "b", "cell/0"),
        ("b/cell/0/router", "b", "cell/0/router"),
        ("b/event-log", "b", "event-log"),
        ("a/cell/0/router", "", "cell/0/router"),
        ("cell/0", "", "cell/0"),
        ("event-log", "", "event-log"),
        ("c/cell/0", "", "c/cell/0"),  # a node that is not there is nobody's name
        ("b", "", "b"),
        ("", "", ""),
    ],
)
def test_a_part_is_named_with_its_node_or_is_of_this_one(child: str, node: str, rest: str) -> None:
    for command in ("restart", "kill"):
        assert named(command, child=child, signal=9) == NamedCommand(node, command, {"child": rest, "signal": 9})


def test_a_node_is_drained_by_its_name_and_a_backend_of_that_name_comes_first() -> None:
    assert named("drain", name="b") == NamedCommand("b", DRAIN_NODE, {})
    assert named("drain", name="a") == NamedCommand("", DRAIN_NODE, {})
    assert named("drain", name="files") == NamedCommand("", "drain", {"name": "files"})
    assert named("drain", name="b", replica="x") == NamedCommand("", "drain", {"name": "b", "replica": "x"})
    assert named("drain", name="b", replica="") == NamedCommand("", "drain", {"name": "b", "replica": ""}), "a backend is meant"
    assert named("drain", name="nobody") == NamedCommand("", "drain", {"name": "nobody"})


def test_without_a_cluster_every_name_is_of_this_node() -> None:
    assert named("kill", own="", child="b/cell/0") == NamedCommand("", "kill", {"child": "b/cell/0"})
    assert named("drain", own="", name="b") == NamedCommand("", "drain", {"name": "b"})


def test_other_commands_are_left_as_they_are() -> None:
    assert named("log-level", level="info", child="b/cell/0") == NamedCommand(
        "", "log-level", {"level": "info", "child": "b/cell/0"}
    )
