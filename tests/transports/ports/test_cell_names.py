"""Which node a name belongs to."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.ports.cell_names import node_of

NAMES = {"cell/0": "", "cell/0/event-bus": "", "a/cell/0": "a", "node-b/cell/12/router": "node-b", "event-log": "", "": ""}


@pytest.mark.parametrize(("name", "node"), NAMES.items())
def test_names_tell_their_node(name: str, node: str) -> None:
    assert node_of(name) == node
