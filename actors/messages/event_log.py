"""What the cells of a node and its event log say to each other."""

from __future__ import annotations

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event

from .weight import LIGHT_BYTES


@attrs.frozen(kw_only=True)
class UnstoredEvent:
    """An event that a cell has published and the log has not yet confirmed.

    source:   the process that published it, unique for each start of a cell.
    sequence: its number within the source, from 1; with the source, the key by which a repeated event is recognised.
    """

    source: str
    sequence: int
    topic: str
    payload_json: bytes = attrs.field(repr=False)
    timestamp_ms: int

    @property
    def weight_bytes(self) -> int:
        return LIGHT_BYTES + len(self.topic) + len(self.payload_json)


@attrs.frozen(kw_only=True)
class StoredEvent:
    """An event with its place in the order of the node, and where it came from."""

    event: Event
    source: str
    sequence: int

    @property
    def id(self) -> int:
        return self.event.id

    @property
    def topic(self) -> str:
        return self.event.topic

    @property
    def weight_bytes(self) -> int:
        return LIGHT_BYTES + len(self.event.topic) + len(self.event.payload_json)


@attrs.frozen(kw_only=True)
class EventLogMoved:
    """NodeSupervisor -> every cell: this is the EventLog now; join it."""

    log: ActorAddress = attrs.field(repr=False)
    log_incarnation: int


@attrs.frozen(kw_only=True)
class JoinEventLog:
    """Cell -> EventLog: distribute to me what follows last_event_id, and take what the last log may not have kept.

    recent_events:      the latest distributed events that this cell still holds, ids ascending, for a log that lost them.
    lost:               what recent_events lack up to last_event_id.
    confirmed_sequence: all that the source has published up to this number has been stored.
    unstored:           published here after that, and not confirmed.
    """

    cell_name: str
    source: str
    last_event_id: int
    recent_events: tuple[StoredEvent, ...] = attrs.field(repr=False)
    confirmed_sequence: int
    unstored: tuple[UnstoredEvent, ...] = attrs.field(repr=False)
    lost: LostIds = attrs.field()

    @lost.default
    def _nothing_between(self) -> LostIds:
        return LostIds.of_both(self.recent_events[0].id - 1 if self.recent_events else self.last_event_id)

    @property
    def weight_bytes(self) -> int:
        return LIGHT_BYTES + sum(each.weight_bytes for each in self.recent_events + self.unstored)


@attrs.frozen(kw_only=True)
class PublishEvents:
    """Cell -> EventLog: store these, in this order."""

    events: tuple[UnstoredEvent, ...] = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return LIGHT_BYTES + sum(each.weight_bytes for each in self.events)


@attrs.frozen(kw_only=True)
class EventsDistributed:
    """EventLog -> every cell: events that are stored, on disk where there is one.

    To the cell that published them they are the confirmation as well.

    log_incarnation: a cell drops what comes from an earlier log than the one it has joined.
    is_catch_up:     begins the answer to a JoinEventLog: what lies between the cell's last event and the first of these is gone.
    has_more:        the log has more that it has not told this cell yet, such as the rest of that answer.
    lost:            what is missing of all that the log has up to the last of these.
    last_id:         with the last of these messages all ids up to here have been told; 0: up to the last of the events.
    after_id:        they go on for who has all that there is up to here; by default, up to the id before the first.
    """

    log_incarnation: int
    is_catch_up: bool = False
    has_more: bool = False
    events: tuple[StoredEvent, ...] = attrs.field(repr=False)
    lost: LostIds = NOTHING_LOST
    last_id: int = 0
    after_id: int = attrs.field()

    @after_id.default
    def _next_to_the_first(self) -> int:
        return self.events[0].id - 1 if self.events else 0

    @property
    def weight_bytes(self) -> int:
        return LIGHT_BYTES + sum(each.weight_bytes for each in self.events)
