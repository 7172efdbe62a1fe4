"""A server whose connections belong to sessions, in a cluster: what a session says goes to the node where it lives."""

from __future__ import annotations

from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamConversation, UpstreamRequest

from .forwarding import Forwarding


class SessionConversation:
    """One replica as its own node speaks to it, or another one where the session lives. Implements `UpstreamConversation`."""

    def __init__(self, forwarding: Forwarding, replica: ReplicaId, own: UpstreamConversation) -> None:
        """own: of this node."""
        self._forwarding = forwarding
        self._replica = replica
        self._own = own
        self._owner = forwarding.owner_of(replica)

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        owner = self._forwarding.owner_for(self._replica, request.session)
        if owner == self._owner:
            return await self._own.exchange(request, on_event)
        return await self._forwarding.exchange_at(owner, replica=self._replica, request=request, on_event=on_event)

    async def probe(self, timeout_s: float) -> None:
        await self._own.probe(timeout_s)

    async def close(self) -> None:
        await self._own.close()
