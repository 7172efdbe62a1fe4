"""The other cells of a node, which answer every exchange alike. Implements `upstream_port.Elsewhere`."""

from __future__ import annotations

from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamRequest


class OtherCells:
    """asked: (cell, replica) of each exchange, in order."""

    def __init__(self, answer: UpstreamAnswer) -> None:
        self._answer = answer
        self.asked: list[tuple[str, ReplicaId]] = []

    async def exchange_at(
        self, cell_name: str, *, replica: ReplicaId, request: UpstreamRequest, on_event: EventHandler
    ) -> UpstreamAnswer:
        self.asked.append((cell_name, replica))
        return self._answer

    def is_gone(self, cell_name: str) -> bool:
        return False
