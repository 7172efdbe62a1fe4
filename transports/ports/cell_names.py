"""Names of cells and of what is in them: "cell/0/router", or "node-a/cell/0/router" in a cluster. Pure."""

from __future__ import annotations


def node_of(name: str) -> str:
    """The node that a name begins with, "" where there is no cluster."""
    parts = name.split("/", 2)
    return parts[0] if len(parts) > 1 and parts[1] == "cell" else ""
