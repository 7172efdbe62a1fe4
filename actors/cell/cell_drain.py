"""How a cell comes to its end within a given time: what waits for what, and how long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.transports.downstream.server.server import GatewayServer

_POLL_S: Final = 0.02
_CLOSE_WIRES_S: Final = 2.2  # stdio servers are ended in that time; the node gives the whole cell a little longer
_LEAST_CLOSE_WIRES_S: Final = 0.4
_SEND_AWAY_S: Final = 1.0  # for clients who are connected to a cell that leaves: who has more to ask hears by then where to go
_KEPT_FOR_LEAVING: Final = 0.3  # of the time of a drain: for what other cells ask until they know that this one leaves
_KEPT_FOR_WIRES: Final = (
    0.05  # of the time of a drain: requests that fill it leave servers that much of it, so that it holds for all
)

_logger = logging.getLogger(__name__)


def requests_s(drain_s: float) -> float:
    """How long requests may take to end, of the time for a whole drain."""
    return drain_s - min(_LEAST_CLOSE_WIRES_S, drain_s * _KEPT_FOR_WIRES)


def wires_s(left_s: float) -> float:
    """How long servers may take to end, where so much of the drain's time is left."""
    return min(_CLOSE_WIRES_S, max(_LEAST_CLOSE_WIRES_S, left_s))


async def drained(
    port: LoopPort,
    server: GatewayServer,
    cells: Forwarding,
    held_count: Callable[[], int],
    deadline_s: float,
    *,
    others_serve: bool,
    node_ends: bool,
) -> None:
    """Accept nothing new, let requests end; streams of sessions are ended at once, their clients come back elsewhere.

    Where others serve, a client that is connected here has one more request served, and reads that its connection ends; with
    that there is nobody who has to be refused. What other cells ask for then waits for the successor, unless the node ends: then
    there is none, and they are served to the end.

    held_count: of calls that run as tasks, or wait for their clients, who come by way of other cells; what is longer ends here.
    """
    port.is_draining = True
    server.drain(others_serve=others_serve)
    port.end_streams()
    now_s = time.monotonic()
    give_up_s = now_s + requests_s(deadline_s)
    send_away_s = min(give_up_s, now_s + _SEND_AWAY_S) if others_serve else now_s
    while (now_s := time.monotonic()) < give_up_s:
        if not port.waiting and (now_s >= send_away_s or not server.connection_count):
            break
        await asyncio.sleep(_POLL_S)
    if others_serve and not node_ends:
        await _none_left(held_count, give_up_s - deadline_s * _KEPT_FOR_LEAVING)
        if held := held_count():
            _logger.warning("drain: %d calls that run as tasks or wait for their clients did not end in time", held)
        await cells.leave(give_up_s)
        await _none_left(lambda: len(port.waiting), give_up_s)  # sockets that stay open until the end may have asked again
    if port.waiting:
        _logger.warning("drain: %d requests did not end in time", len(port.waiting))


async def _none_left(count: Callable[[], int], until_s: float) -> None:
    while count() and time.monotonic() < until_s:
        await asyncio.sleep(_POLL_S)
