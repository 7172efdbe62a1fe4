"""The two Protocols between a cell process and the gateway inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event

from .cluster import Ownership


class NodeLink(Protocol):
    """What a cell's content may ask of the node around it. Loop thread only.

    is_caught_up:  whether this cell has been given all that the log had when the cell joined it.
    lost:          what is missing of the events that have come back so far.
    last_event_id: up to which ids have been told, events or not.
    """

    @property
    def is_caught_up(self) -> bool: ...

    @property
    def lost(self) -> LostIds: ...

    @property
    def last_event_id(self) -> int: ...

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        """Give an event to the node's EventLog; kept and sent again until it is stored. It comes back by `deliver_events`."""

    def events_after(self, event_id: int) -> list[Event]:
        """Events that have come back so far, ids ascending, as many as are retained: for an actor that missed some."""

    def request_stop(self, reason: str) -> None:
        """Escalate: crash this cell process; whoever supervises it starts a new one."""

    def forward(self, cell_name: str, message: object) -> None:
        """Send to another cell of the node or the cluster.

        Its content gets it by `deliver_forwarded`; what is lost comes to `forward_failed`.

        Raises: LookupError where no such cell runs.
        """

    def want(self, thing: str) -> None:
        """Have this node own what the cluster has once, unless another one does; `owners_told` says who."""

    async def change(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Have a command carried out that `CommandRequested` names, for the whole node: "restart", "log-level", or a change as
        `backend_changes.backend_change` has it; the answer as in `CommandAnswered`, once every cell has taken it in.

        Raises: TimeoutError
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

    async def drain(self, deadline_s: float, *, others_serve: bool = False, node_ends: bool = False) -> None:
        """Stop accepting; return when the exchanges have ended, or after deadline_s.

        others_serve: other cells, or nodes, go on, so that clients who are connected here have somewhere else to go.
        node_ends:    all cells of the node do this: none of them has a successor.
        """

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

    def cells_changed(self, running: Mapping[str, object]) -> None:
        """These other cells run, {name in the cluster: incarnation}; told again after each change.

        Without a cluster they are those of the node.
        """

    def nodes_changed(self, cell_counts: Mapping[str, int], *, is_member: bool) -> None:
        """These other nodes of the cluster are there, {node: cells configured there}; never called without a cluster.

        is_member: whether this node is there for them; where not, there are none.
        """

    def hold_limits(self, default: float, parts: Mapping[str, float]) -> None:
        """Hold clients to these parts of their limits; see `LimitsHeld`. Never called without a cluster."""

    def limits_asked(self) -> dict[str, float]:
        """What clients have asked for since the last time; see `LimitsAsked`. Never called without a cluster."""

    def owners_told(self, owners: Mapping[str, Ownership], lease_until_s: float) -> None:
        """As `OwnersTold`; never called without a cluster."""

    def cluster_described(self, status: Mapping[str, Any]) -> None:
        """As `ClusterDescribed`; never called without a cluster."""

    def deliver_forwarded(self, from_cell: str, message: object) -> None:
        """Take a message that another cell has forwarded."""

    def forward_failed(self, cell_name: str, messages: tuple[object, ...], *, is_unsent: bool = False) -> None:
        """These messages did not reach that cell, as far as is known. is_unsent: certainly not."""


class CellFactory(Protocol):
    """`make_cell`: builds the content of a cell; named by its dotted path ("package.module:function")."""

    def __call__(self, settings: Settings, cell_index: int, cell_name: str, link: NodeLink) -> CellContent: ...
