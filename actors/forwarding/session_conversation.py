"""A server whose connections belong to sessions, in a cluster: what a session says goes to the node where it lives."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from mcp_gateway.transports.ports.cell_names import node_of
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.strategies import scheme_of
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamConversation, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request
from mcp_gateway.transports.protocol.sealed.sealing import Seal

from .forwarding import Forwarding
from .node_tokens import NodeTokens


class SessionConversation:
    """One replica as its own node speaks to it, or another one where the session lives. Implements `UpstreamConversation`.

    Where each node has a process of its own, what that has given a client without a session leads there as well.
    """

    def __init__(self, forwarding: Forwarding, replica: ReplicaId, own: UpstreamConversation, seal: Seal) -> None:
        """own: of this node."""
        self._forwarding = forwarding
        self._replica = replica
        self._own = own
        self._owner = forwarding.owner_of(replica)
        self._tokens = NodeTokens(seal, replica.backend) if scheme_of(replica.address) == "stdio" else None

    def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> Coroutine[Any, Any, UpstreamAnswer]:
        if self._tokens is not None and request.session is None and isinstance(request.message, Request):
            return self._exchange_by_token(self._tokens, request, request.message, on_event)
        return self._exchange_at(self._forwarding.owner_for(self._replica, request.session), request, on_event)

    def _exchange_at(self, owner: str, request: UpstreamRequest, on_event: EventHandler) -> Coroutine[Any, Any, UpstreamAnswer]:
        if owner == self._owner:
            return self._own.exchange(request, on_event)
        return self._forwarding.exchange_at(owner, replica=self._replica, request=request, on_event=on_event)

    async def _exchange_by_token(
        self, tokens: NodeTokens, request: UpstreamRequest, message: Request, on_event: EventHandler
    ) -> UpstreamAnswer:
        node, inner = tokens.read(message)
        owner = self._forwarding.cell_at(node, self._replica) if node else self._owner
        if self._forwarding.is_gone(owner):  # and its process with it: what that has given, this one may know, or refuses
            owner = self._owner
        served_by = node_of(owner)

        async def tell(event: Message | None, event_id: str | None) -> None:
            await on_event(None if event is None else tokens.told(served_by, event), event_id)

        answer = await self._exchange_at(owner, replace(request, message=inner), tell)
        if answer.response is None:
            return answer
        return replace(answer, response=tokens.given(served_by, inner, answer.response))

    async def probe(self, timeout_s: float) -> None:
        await self._own.probe(timeout_s)

    async def close(self) -> None:
        await self._own.close()
