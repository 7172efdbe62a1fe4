"""What the bridges of one cell share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from mcp_gateway.transports.ports.guard_port import Guard
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.upstream_port import Elsewhere
from mcp_gateway.transports.protocol.curation.curation import Curation
from mcp_gateway.transports.protocol.curation.tool_pins import Comparison, Definition
from mcp_gateway.transports.protocol.eras.tasks import KeptTask
from mcp_gateway.transports.protocol.sealed.sealing import Seal

from .parked_calls import ParkedCalls, ParkingLimits
from .task_ledger import TaskLedger, TaskLimits


class TaskRecords(Protocol):
    """What outlives the processes that run tasks. name: of a task, which no other has. holder: whose share of the room it takes.

    Methods raise nothing: what cannot be kept is not found later.
    """

    def begin(self, name: str, holder: str, task: KeptTask) -> None: ...

    def finish(self, name: str, holder: str, task: KeptTask) -> None: ...

    def find(self, name: str) -> KeptTask | None: ...

    def forget(self, name: str) -> None: ...


class ToolPins(Protocol):
    """What tools were when they were approved. Methods raise nothing."""

    def take(self, backend: str, listed: Mapping[str, Definition]) -> Comparison: ...

    def is_changed(self, backend: str, tool: str) -> bool: ...


def _no_guard(tools: Mapping[str, Any]) -> Guard | None:
    """Where nobody knows of guards."""
    return None


def _no_speakers(replica: ReplicaId) -> frozenset[str]:
    """Where there are no other cells."""
    return frozenset()


def _publish_nothing(topic: str, payload: Mapping[str, Any]) -> None:
    """Where nobody follows events."""


@attrs.define(kw_only=True)
class BridgeSite:
    """The cell that a bridge works in.

    seal:      the same one in every cell of the node.
    elsewhere: how to reach the other cells; None where there are none.
    others:    the names of the other cells that run now.
    speakers:  those of them that speak to a replica by a connection of their own.
    hosted:    {task: lets go of it} of the tasks that run here.
    records:   of them on disk; None where nothing outlives the process.
    pins:      of the tools of all backends that have them pinned.
    publish:   tells the event bus.
    curations: {backend: how its tools are served here}, of each backend that has been connected to.
    guard_of:  what is asked about calls of a backend with these settings of its tools; None where nobody is.
    """

    cell_name: str
    seal: Seal = attrs.field(repr=False)
    elsewhere: Elsewhere | None = None
    others: Callable[[], frozenset[str]] = frozenset
    speakers: Callable[[ReplicaId], frozenset[str]] = _no_speakers
    parked: ParkedCalls = attrs.field(factory=lambda: ParkedCalls(ParkingLimits()))
    tasks: TaskLedger = attrs.field(factory=lambda: TaskLedger(TaskLimits()))
    hosted: dict[str, Callable[[], None]] = attrs.field(factory=dict)
    records: TaskRecords | None = None
    pins: ToolPins | None = None
    curations: dict[str, Curation] = attrs.field(factory=dict)
    publish: Callable[[str, Mapping[str, Any]], None] = _publish_nothing
    guard_of: Callable[[Mapping[str, Any]], Guard | None] = _no_guard
