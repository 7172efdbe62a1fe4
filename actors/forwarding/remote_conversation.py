"""A server whose connection another cell holds, spoken to by way of that cell."""

from __future__ import annotations

from mcp_gateway.actors.messages.between_cells import WireProbed
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamError, UpstreamRequest

from .forwarding import Forwarding


class RemoteConversation:
    """One replica as the cells of a node see it that do not own it. Implements `UpstreamConversation`."""

    def __init__(self, forwarding: Forwarding, replica: ReplicaId) -> None:
        self._forwarding = forwarding
        self._owner = forwarding.owner_of(replica)
        self._replica = replica

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        return await self._forwarding.exchange_at(self._owner, replica=self._replica, request=request, on_event=on_event)

    async def probe(self, timeout_s: float) -> None:
        try:
            question = WireProbed(self._replica, timeout_s)
            failure: Failure | None = await self._forwarding.ask_cell(self._owner, question, timeout_s)
        except (LookupError, TimeoutError) as error:
            raise UpstreamError(Fate.BROKEN, f"{self._owner}: {str(error) or 'no answer in time'}") from None
        if failure is not None:
            raise UpstreamError.of(failure)

    async def close(self) -> None:
        """Nothing is held here."""
