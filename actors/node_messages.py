"""What the processes of a node say to each other, and the two Protocols between a cell process and the gateway inside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from mcp_gateway.actors.lanes import LIGHT_BYTES, weight_bytes
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.topic_log import Event

if TYPE_CHECKING:  # the pure modules that share these messages import no Thespian
    from thespian.actors import ActorAddress

EVENT_LOG = "event-log"  # its name among the children of a node
NODE_GLOBAL_NAME = "mcp-gateway-node"  # under which launcher and admin commands find the NodeSupervisor


# ---- between a cell process and its content


class NodeLink(Protocol):
    """What a cell's content may ask of the node around it. Loop thread only.

    is_caught_up: whether this cell has been given all that the log had when the cell joined it.
    """

    @property
    def is_caught_up(self) -> bool: ...

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        """Give an event to the node's EventLog; kept and sent again until it is stored. It comes back by `deliver_events`."""

    def events_after(self, event_id: int) -> list[Event]:
        """Events that have come back so far, ids ascending, as many as are retained: for an actor that missed some."""

    def request_stop(self, reason: str) -> None:
        """Escalate: crash this cell process; whoever supervises it starts a new one."""

    def forward(self, cell_name: str, message: object) -> None:
        """Send to another cell of the node, whose content gets it by `deliver_forwarded`; what is lost comes to `forward_failed`.

        Raises: LookupError where no such cell runs.
        """

    async def node_status(self) -> dict[str, Any]:
        """What `mcp-gateway status --json` prints, of the whole node.

        Raises: TimeoutError
        """


class CellContent(Protocol):
    """A whole gateway cell, run by one event loop. Everything is called on that loop."""

    async def start(self) -> None:
        """Start the actors and serve; returns when requests are accepted.

        Raises: OSError if the port cannot be bound.
        """

    async def drain(self, deadline_s: float) -> None:
        """Stop accepting; return when the exchanges have ended, or after deadline_s."""

    async def stop(self) -> None:
        """Let go of everything."""

    async def status(self) -> dict[str, Any]:
        """JSON-able: {"tree": [row...], "backends": [...], "sessions": count, "connections": {transport: count}}."""

    async def command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out "restart" or "kill" of {"child": "router"}, or another command: {"ok": true, ...} or {"error": text}."""

    def deliver_events(self, events: list[Event]) -> None:
        """Take events of any cell of the node, each once, ids ascending; without gaps unless the log itself has lost some."""

    def apply_settings(self, settings: Settings) -> None:
        """Run these backends and routes from now on; nothing else in them differs from those of the start.

        When it returns, every new request meets them. What did not change keeps its connections, processes and sessions.
        """

    def cells_changed(self, running: dict[str, int]) -> None:
        """These other cells of the node run, {name: incarnation}; told again after each change."""

    def deliver_forwarded(self, from_cell: str, message: object) -> None:
        """Take a message that another cell has forwarded."""

    def forward_failed(self, cell_name: str, messages: tuple[object, ...]) -> None:
        """These messages did not reach that cell."""


class CellFactory(Protocol):
    """`make_cell`: builds the content of a cell; named by its dotted path ("package.module:function")."""

    def __call__(self, settings: Settings, cell_index: int, cell_name: str, link: NodeLink) -> CellContent: ...


# ---- wiring arguments


@attrs.frozen(kw_only=True)
class NodeArguments:
    """Launcher -> NodeSupervisor, in its Wiring.

    settings:     with the real port where the file says 0.
    kept_path:    where it keeps the backends and routes of now for a node supervisor after it; see `kept_backends`.
    cell_factory: dotted path of a CellFactory.
    launcher_pid: the process whose death ends the node.
    started_at_s: launcher's start, seconds since the epoch, for the status.
    """

    settings: Settings = attrs.field(repr=False)
    kept_path: Path
    cell_factory: str
    launcher_pid: int
    started_at_s: float


@attrs.frozen(kw_only=True)
class CellArguments:
    """NodeSupervisor -> cell process, in its Wiring."""

    settings: Settings = attrs.field(repr=False)
    cell_factory: str
    cell_index: int


@attrs.frozen(kw_only=True)
class EventLogArguments:
    """NodeSupervisor -> EventLog, in its Wiring.

    state_path: where it keeps events; None keeps them in memory.
    cell_count: how many cells share the log; a new incarnation waits for what they still hold.
    """

    state_path: Path | None
    retention_events: int
    cell_count: int


# ---- changing what runs


@attrs.frozen(kw_only=True)
class ApplySettings:
    """NodeSupervisor -> every cell: other backends and routes; see `CellContent.apply_settings`.

    revision: counts the changes since the node supervisor started.
    """

    revision: int
    settings: Settings = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class SettingsApplied:
    """Cell -> NodeSupervisor: done."""

    name: str
    revision: int


# ---- cells among themselves


@attrs.frozen(kw_only=True)
class CellsChanged:
    """NodeSupervisor -> every cell: the cells that run now. cells: {name: (address, incarnation)}."""

    cells: dict[str, tuple[ActorAddress, int]] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Forwarded:
    """Cell -> another cell: for the content of that one, see `forward_messages`."""

    from_cell: str
    message: object = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.message)


@attrs.frozen(kw_only=True)
class PublishForNode:
    """NodeSupervisor -> one cell: publish this; the supervisor itself has no outbox that outlives the event log."""

    topic: str
    payload: dict[str, Any] = attrs.field(repr=False)
    timestamp_ms: int


# ---- heartbeats


@attrs.frozen(kw_only=True)
class Ping:
    """NodeSupervisor -> each of its children, every second."""

    sequence: int


@attrs.frozen(kw_only=True)
class Pong:
    """Child -> NodeSupervisor: alive; of a cell, sent by its event loop."""

    name: str
    incarnation: int
    sequence: int


# ---- stopping


@attrs.frozen(kw_only=True)
class DrainRequested:
    """Launcher -> NodeSupervisor -> every cell: accept nothing new, end what runs within deadline_s."""

    deadline_s: float


@attrs.frozen(kw_only=True)
class CellDrained:
    """Cell -> NodeSupervisor: no exchange is left, or the deadline has passed."""

    name: str
    incarnation: int


@attrs.frozen(kw_only=True)
class NodeDrained:
    """NodeSupervisor -> launcher: every cell has drained or is gone."""


@attrs.frozen(kw_only=True)
class NodeFailed:
    """NodeSupervisor -> launcher: it gives up and ends; its children have failed too often, or could not be started at all."""

    reason: str


# ---- status and commands


@attrs.frozen(kw_only=True)
class StatusRequested:
    """Admin command -> NodeSupervisor -> every cell."""

    request_id: str


@attrs.frozen(kw_only=True)
class StatusReported:
    """The answer: of a cell, what `CellContent.status` says; of the NodeSupervisor, what `status --json` prints."""

    request_id: str
    name: str
    status: dict[str, Any] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class CommandRequested:
    """Admin command -> NodeSupervisor, which carries it out or passes it on to a cell.

    command:   "restart", "kill", "log-level", one of `backend_changes.BACKEND_COMMANDS`, or another that the cells know.
    arguments: {"child": full name, "signal": number} for the first two.
    """

    request_id: str
    command: str
    arguments: dict[str, Any] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class CommandAnswered:
    """The answer: {"ok": true, ...}, {"error": one line}, or {"refused": lines} where the arguments are wrong."""

    request_id: str
    answer: dict[str, Any] = attrs.field(repr=False)


# ---- events between cells


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
    confirmed_sequence: all that the source has published up to this number has been stored.
    unstored:           published here after that, and not confirmed.
    """

    cell_name: str
    source: str
    last_event_id: int
    recent_events: tuple[StoredEvent, ...] = attrs.field(repr=False)
    confirmed_sequence: int
    unstored: tuple[UnstoredEvent, ...] = attrs.field(repr=False)

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
    has_more:        the answer goes on with the next of these messages.
    """

    log_incarnation: int
    is_catch_up: bool = False
    has_more: bool = False
    events: tuple[StoredEvent, ...] = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return LIGHT_BYTES + sum(each.weight_bytes for each in self.events)
