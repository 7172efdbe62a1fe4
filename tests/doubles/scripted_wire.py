"""A transport to servers whose every exchange waits until the test says how it ends."""

from __future__ import annotations

import asyncio

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request, Response


class Exchange:
    """One exchange under way. is_cancelled: the upstream gave it up."""

    def __init__(self, request: UpstreamRequest, on_event: EventHandler) -> None:
        self.request = request
        self.on_event = on_event
        self.is_cancelled = False
        self.result: asyncio.Future[UpstreamAnswer] = asyncio.get_running_loop().create_future()

    def answer(self, result: bytes = b"{}", status: int = 200, session_id: str | None = None) -> None:
        message = self.request.message
        response = Response(message.id, result, b"") if isinstance(message, Request) else None
        self.result.set_result(UpstreamAnswer(status, response, session_id))

    def fail(self, error: Exception) -> None:
        self.result.set_exception(error)

    async def event(self, message: Message | None, event_id: str | None = None) -> None:
        await self.on_event(message, event_id)


class ScriptedWire:
    """One connection object of the transport. open: exchanges that have not ended."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.is_closed = False
        self.probe_error: Exception | None = None
        self.probe_hangs = False

    @property
    def open(self) -> list[Exchange]:
        return [each for each in self.exchanges if not each.result.done()]

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        exchange = Exchange(request, on_event)
        self.exchanges.append(exchange)
        try:
            return await exchange.result
        except asyncio.CancelledError:
            exchange.is_cancelled = True
            raise

    async def probe(self, timeout_s: float) -> None:
        if self.probe_hangs:
            await asyncio.Event().wait()
        if self.probe_error is not None:
            raise self.probe_error

    async def close(self) -> None:
        self.is_closed = True


class ScriptedTransport:
    """Registry strategy for http replicas. wires: {replica address: every wire that was opened to it, in order}."""

    name = "scripted_upstream"
    schemes = frozenset({"http"})

    def __init__(self) -> None:
        self.wires: dict[str, list[ScriptedWire]] = {}

    def connect(self, target: ReplicaTarget) -> ScriptedWire:
        wire = ScriptedWire()
        self.wires.setdefault(target.address, []).append(wire)
        return wire

    def wire(self, replica: str) -> ScriptedWire:
        """The newest one."""
        return self.wires[replica][-1]


REFUSED = UpstreamError(Fate.UNREACHABLE, "cannot connect")


async def settle() -> None:
    """Let the tasks that have something to do run."""
    for _ in range(10):
        await asyncio.sleep(0)
