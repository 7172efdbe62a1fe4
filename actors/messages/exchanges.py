"""From the event loop to the edge: a client's exchange opens, is read, and closes."""

from __future__ import annotations

from typing import Any

import attrs

from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.lean_message import LeanMessage


class ExchangeOpened(LeanMessage, frozen=True):
    """Handler -> edge: a client asks for something; its sink waits in the edge's port."""

    exchange: Exchange


@attrs.frozen
class ExchangeClosed:
    """Handler -> edge: the client of this exchange has gone."""

    exchange_id: int


@attrs.frozen
class StreamEnded:
    """Cell -> edge: the gateway ends this stream itself, because it drains."""

    exchange_id: int


@attrs.frozen
class PermissionsChanged:
    """Cell -> edge: other policies hold from now on."""


@attrs.frozen
class EventsFlushed:
    """Handler -> edge: the client has taken so many events of its stream."""

    exchange_id: int
    event_count: int


@attrs.frozen
class ChildAsked:
    """Loop -> edge: pass `question` on to the child; its answer carries the same request_id."""

    child: str
    question: Any


@attrs.frozen
class ClientEventsWaiting:
    """Loop -> edge: the topic feed holds events that shall be published."""
