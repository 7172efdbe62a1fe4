"""Publishing and following events inside a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event


@attrs.frozen(kw_only=True)
class PublishEvent:
    """Any actor -> event bus. payload: JSON-able."""

    topic: str
    payload: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Subscribe:
    """Any actor -> event bus: send `EventPublished` for topics that match ("mcp.replica.*", "all").

    after_id:     first those that the log still has after this one; None sends only what comes.
    of_all_nodes: of the gateway's own events, also those that tell of other nodes of the cluster.
    """

    pattern: str
    subscriber_id: str
    after_id: int | None = None
    of_all_nodes: bool = False


@attrs.frozen
class Unsubscribe:
    pattern: str
    subscriber_id: str


@attrs.frozen(kw_only=True)
class EventPublished:
    """Event bus -> subscriber: one event, in the order of the log. event_id: increasing, without gaps per log."""

    event_id: int
    topic: str
    payload: Mapping[str, Any] = attrs.field(repr=False)
    timestamp_ms: int


@attrs.frozen
class EventsLogged:
    """Cell -> event bus -> edge: events that the log has ordered, of this cell and of others.

    is_caught_up: whether the cell holds, with these, all that the log had when the cell joined it.
    lost:         what is not among the events that the cell has been given so far.
    last_id:      all ids up to here have been given to the cell, or are lost; 0: up to the last of the events.
    """

    events: tuple[Event, ...] = attrs.field(repr=False)
    is_caught_up: bool = True
    lost: LostIds = NOTHING_LOST
    last_id: int = 0


@attrs.frozen
class FollowLog:
    """Edge -> event bus: send `EventsLogged` with what the cell holds after this id, then with all that comes."""

    after_id: int
