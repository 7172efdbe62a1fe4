"""What the processes of a node say to each other: wiring, changes, heartbeats, stopping, status and commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from mcp_gateway.config.cluster_settings import ClusterSettings
from mcp_gateway.config.settings import Settings

if TYPE_CHECKING:  # the pure modules that share these messages import no Thespian
    from thespian.actors import ActorAddress

EVENT_LOG = "event-log"  # its name among the children of a node
CLUSTER_MEMBER = "cluster-member"
NODE_SUPERVISOR = "node-supervisor"
TAKE_REVOCATIONS = "take-revocations"  # a command of the cluster member: what all nodes refuse
TAKE_SETTINGS = "take-settings"  # the same for backends and what else may change
NODE_GLOBAL_NAME = "mcp-gateway-node"  # under which launcher and admin commands find the NodeSupervisor


# ---- wiring arguments


@attrs.frozen(kw_only=True)
class NodeArguments:
    """Launcher -> NodeSupervisor, in its Wiring.

    settings:     with the real port where the file says 0.
    kept_path:    where it keeps the backends and routes of now for a node supervisor after it; see `kept_backends`.
    cell_factory: dotted path of a CellFactory.
    launcher_pid: the process whose death ends the node.
    started_at_s: launcher's start, seconds since the epoch, for the status.
    forking_entry: module of what child processes are forked from after an upgrade, see `thespian_hardening.fork_server`.
    """

    settings: Settings = attrs.field(repr=False)
    kept_path: Path
    forking_entry: str = ""
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
    cluster:    whose log gives the ids, where there is one.
    """

    state_path: Path | None
    retention_events: int
    cell_count: int
    cluster: ClusterSettings | None = None


# ---- changing what runs


@attrs.frozen(kw_only=True)
class ApplySettings:
    """NodeSupervisor -> every cell, also one that starts or ends: other backends and routes; see `CellContent.apply_settings`.

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
    """NodeSupervisor -> every cell and the cluster member: the cells that run now. cells: {name: (address, incarnation)}."""

    cells: dict[str, tuple[ActorAddress, int]] = attrs.field(repr=False)


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
    """Launcher -> NodeSupervisor -> every cell and the cluster member: accept nothing new, end what runs within deadline_s."""

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
class NodeStatusRequested:
    """Admin command -> NodeSupervisor -> every cell."""

    request_id: str


@attrs.frozen(kw_only=True)
class NodeStatusReported:
    """The answer: of a cell, what `CellContent.status` says; of the NodeSupervisor, what `status --json` prints."""

    request_id: str
    name: str
    status: dict[str, Any] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class CommandRequested:
    """Admin command, or a cell for its content -> NodeSupervisor, which carries it out or passes it on to a cell.

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
