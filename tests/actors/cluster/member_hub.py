"""Members of a cluster that share something, without a membership: who is there is what the test says."""

from __future__ import annotations

from mcp_gateway.actors.cluster.memory_engine import MemoryHub
from mcp_gateway.actors.cluster.shared_limits import Members


class Hub:
    """Who is a member, and what carries their messages."""

    def __init__(self) -> None:
        self.engines = MemoryHub()
        self.members: Members = ()

    def join(self, *names: str) -> None:
        self.members = tuple((name, number) for number, name in enumerate(names, start=1))
