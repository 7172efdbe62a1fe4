"""A server of which the cluster runs one: spoken to on the node that owns it, by whoever holds its fencing token."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Final

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.owner_history import tell_of_owner
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)

from .forwarding import Forwarding, owner_unreachable

_LONGEST_S: Final = 3_600.0
_NEWS_S: Final = 1.0
"""For this cell to hear of an owner that the other node knows of already."""


class OwnedConversation:
    """One replica as the cell sees it that holds it on its node. Implements `UpstreamConversation`.

    Owned here, it has a wire of its own, which ends as soon as the token is not this node's any more, or the lease is over.

    connect: opens the wire under a token.
    """

    def __init__(self, forwarding: Forwarding, replica: ReplicaId, connect: Callable[[int], UpstreamConversation]) -> None:
        self._cells = forwarding
        self._holdings = forwarding.holdings
        self._replica = replica
        self._thing = str(replica)
        self._connect = connect
        self._wire: UpstreamConversation | None = None
        self._token = 0
        self._use = ""
        self._held_until_s = 0.0  # on the clock of leases: of the last lease under which the wire was this node's
        self._ending = HeldTasks()
        self._is_closed = False
        self._holdings.watch(self._look)

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        if request.kind is RequestKind.TERMINATE and self._holdings.owner(self._thing) is None:
            return UpstreamAnswer(200, None)  # it has ended with whoever owned it
        timeout_s = _LONGEST_S if request.timeout_s is None else request.timeout_s
        for is_last in (False, True):
            try:
                owner = await self._holdings.owner_found(self._thing, timeout_s)
            except TimeoutError:
                raise owner_unreachable(f"the node that owns {self._thing}") from None
            try:
                if owner.node == self._cells.node:
                    return await self.carry_out(owner.token, request, on_event)
                return await self._cells.exchange_at(
                    self._cells.cell_at(owner.node, self._replica),
                    replica=self._replica,
                    request=request,
                    on_event=on_event,
                    token=owner.token,
                )
            except UpstreamError as error:
                if is_last or error.failure.reason != "owner_unreachable":
                    raise
                if self._holdings.owner(self._thing) == owner:
                    await self._holdings.changed(_NEWS_S)
                if self._holdings.owner(self._thing) == owner:
                    raise
        raise AssertionError("the last attempt has an outcome")

    async def carry_out(self, token: int, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        """Speak to the server for whoever knows this node as its owner under this token; 0: for whoever had begun here.

        Raises: UpstreamError, where that is not so any more.
        """
        if not token:
            owner = self._holdings.owner(self._thing)
            if owner is None or owner.node != self._cells.node:
                raise UpstreamError(Fate.CELL_LOST, f"{self._thing}, where this had begun, is on another node now")
            token = owner.token
        wire = await self._wire_under(token)
        return await wire.exchange(request, on_event)

    async def _wire_under(self, token: int) -> UpstreamConversation:
        """Raises: UpstreamError where this node must not use it, or not under this token."""
        await self._ending.wait()  # one process after the other, here as well
        if self._is_closed or not self._holdings.is_held(self._thing, token):
            raise owner_unreachable(f"the owner of {self._thing}, which is not {self._cells.cell_name} under token {token},")
        if self._wire is None:
            self._wire, self._token, self._use = self._connect(token), token, uuid.uuid4().hex[:12]
            self._held_until_s = self._holdings.lease_until_s
            tell_of_owner("used", self._thing, self._cells.node, lease_clock_s(), fence=token, use=self._use)
        return self._wire

    def _look(self) -> None:
        if self._wire is None:
            return
        if self._holdings.is_held(self._thing, self._token):
            self._held_until_s = self._holdings.lease_until_s
        else:
            self._leave()

    def _leave(self) -> None:
        if (wire := self._wire) is not None:
            self._wire = None
            self._ending.start(self._end(wire, self._token, self._use, self._held_until_s))

    async def _end(self, wire: UpstreamConversation, token: int, use: str, until_s: float) -> None:
        began_s = lease_clock_s()
        try:
            await wire.close()
        finally:
            tell_of_owner("left", self._thing, self._cells.node, began_s, fence=token, use=use, lease_until_s=until_s)

    async def probe(self, timeout_s: float) -> None:
        """The owner's own node judges the server; where nobody can know who that is, nobody judges it."""
        try:
            owner = await self._holdings.owner_found(self._thing, timeout_s)
        except TimeoutError:
            return
        if owner.node == self._cells.node:
            await (await self._wire_under(owner.token)).probe(timeout_s)

    async def close(self) -> None:
        self._is_closed = True
        self._holdings.forget(self._look)
        self._leave()
        await asyncio.shield(self._ending.wait())
