"""The root supervisor of a node: the event log and the cells as processes, heartbeats, drain and end."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from setproctitle import setproctitle
from thespian.actors import ActorAddress, ThespianWatch, WatchMessage

from mcp_gateway.actors.messages.cluster import (
    OwnRevocations,
)
from mcp_gateway.actors.messages.event_log import EventLogMoved
from mcp_gateway.actors.messages.node import (
    CLUSTER_MEMBER,
    EVENT_LOG,
    CellDrained,
    CellsChanged,
    DrainRequested,
    NodeDrained,
    NodeFailed,
    Ping,
    Pong,
)
from mcp_gateway.actors.runtime.thespian_hardening import send_with_result
from mcp_gateway.actors.supervision.restart_plan import ChildSpec, Phase, RestartIntensity, Strategy
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.metric_archive import archive_process
from mcp_gateway.transports.upstream.pipes.process_guard import is_guard

from .commanded_node import ANSWER_DEADLINE_S, ENDED, CommandedNode
from .heartbeats import Heartbeats
from .node_children import node_children
from .running_settings import RunningSettings

HEARTBEAT_S = 1.0


class NodeSupervisor(CommandedNode):
    """Keeps the processes of a node running, and ends with its launcher.

    Receives  Wiring, DrainRequested (launcher); NodeStatusRequested, CommandRequested (admin commands, cells);
              Pong, CellDrained, NodeStatusReported, CommandAnswered, SettingsApplied, ClusterDescribed, ChangeSpread, Forwarded,
              ForwardLost (its children)
    Sends     ChildReady, Pong every second, NodeDrained, NodeFailed (launcher); NodeStatusReported, CommandAnswered
              (admin commands, cells); Ping, DrainRequested, NodeStatusRequested, CommandRequested, ApplySettings, EventLogMoved,
              CellsChanged, PublishForNode, OwnRevocations, ShareRevocations, ShareSettings, ForwardToNode (its children)
    On crash  everything below ends with it, and the launcher starts the whole system again, with the backends of now
    """

    strategy = Strategy.ONE_FOR_ONE
    # Ours: OTP's default of 1 in 5 s is for code that fails; here a child also ends when somebody kills it on purpose.
    intensity = RestartIntensity(max_restarts=10, period_s=20.0)

    def __init__(self) -> None:
        super().__init__()
        self._launcher_fd: int | None = None
        self._heartbeats = Heartbeats()  # by short name
        self._heartbeat_count = 0
        self._is_beat_under_way = False
        self._told_of_log: set[tuple[str, int, int]] = set()  # (cell, its incarnation, the log's incarnation)
        self._told_of_cells: dict[str, int] = {}  # {full name: incarnation}
        self._drain_asker: ActorAddress | None = None
        self._draining: dict[str, int] = {}  # {full name: incarnation} of cells that have not drained
        self._node_incarnation = uuid.uuid4().hex

    # ---- wiring

    def on_wired(self) -> None:
        setproctitle(f"mcp-gateway: {self.name}")
        self._admin_pid = os.getppid()
        self._launcher_fd = os.pidfd_open(self._node.launcher_pid)
        self._settings = RunningSettings(self._node.settings, self._node.kept_path)
        self.start_timer("heartbeat", HEARTBEAT_S)
        super().on_wired()

    def child_specs(self) -> Sequence[ChildSpec]:
        return node_children(self._settings.now, self._node.cell_factory, self._node_incarnation)

    # ---- children

    def on_children_changed(self) -> None:
        self._tell_of_cells()
        self._publish_what_waits()
        self._tell_log_level()
        self._tell_settings()
        log = self.child_address(EVENT_LOG)
        if log is None:
            return
        log_incarnation = self.supervision.incarnation(EVENT_LOG)
        for short, _, incarnation, address in self._cells():
            if (short, incarnation, log_incarnation) not in self._told_of_log:
                self._told_of_log.add((short, incarnation, log_incarnation))
                self.send(address, EventLogMoved(log=log, log_incarnation=log_incarnation))

    def _tell_of_cells(self) -> None:
        """Tell every cell, and the cluster member, which ones serve, when that has changed.

        Also one that ends: it sends its clients to others, and others wait for what it has begun for theirs. The plan may have
        decided on its end already where it has not been told, but is just about to be.
        """
        cells = {
            full: (address, incarnation)
            for short, full, incarnation, address in self._cell_processes()
            if self.supervision.phase(short) in (Phase.RUNNING, Phase.STOPPING)
        }
        incarnations = {full: incarnation for full, (_, incarnation) in cells.items()}
        member = self.child_address(CLUSTER_MEMBER) if self._has_member else None
        if member is not None:
            incarnations[CLUSTER_MEMBER] = self.supervision.incarnation(CLUSTER_MEMBER)
        if incarnations != self._told_of_cells:
            if member is not None and incarnations[CLUSTER_MEMBER] != self._told_of_cells.get(CLUSTER_MEMBER):
                self.send(member, OwnRevocations(revocations=self._settings.now.revocations))
            self._told_of_cells = incarnations
            for address in (*(address for address, _ in cells.values()), *([] if member is None else [member])):
                self.send(address, CellsChanged(cells=cells))

    def on_child_gone(self, spec: ChildSpec, pid: int | None) -> None:
        self._tell_of_cells()
        full_name = self.child_full_name(spec)
        self._cell_has_drained(full_name, self._draining.get(full_name))
        self._answer_questions(self._questions.gone(full_name))
        if spec.name == CLUSTER_MEMBER:
            for question_id in self._sharing:
                self._answer_questions(self._questions.settled(question_id, ENDED))
            self._sharing.clear()
        if pid is not None and "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            archive_process(pid, Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))

    def on_child_event(self, kind: str, name: str, reason_text: str) -> None:
        if kind == "escalated" and self._wired_by is not None:
            self.send(self._wired_by, NodeFailed(reason=reason_text))
        self._publish(kind, name, reason_text)

    def _publish(self, kind: str, name: str, reason_text: str) -> None:
        """Tell the node's topics what has happened to a process, through any cell that runs, now or next."""
        child = self.child_full_name(self.supervision.spec(name)) if name else self.name
        if kind == "restarted":
            metrics.restarts_total.labels(child).inc()
        self._publish_event(f"mcp.supervisor.{kind}", {"child": child, "reason": reason_text})

    def receiveTimer_heartbeat(self, _payload: object) -> None:
        self.start_timer("heartbeat", HEARTBEAT_S)
        self._heartbeat_count += 1
        self._beat_to_launcher()
        for name in self.supervision.names:
            if self.supervision.phase(name) is not Phase.RUNNING or (address := self.child_address(name)) is None:
                continue
            missed_count = self._heartbeats.due(name, self.supervision.incarnation(name), self.child_pid(name))
            if missed_count is not None:
                self.kill_child(name, f"no heartbeat for {missed_count * HEARTBEAT_S:g} s")
            else:
                self.send(address, Ping(sequence=self._heartbeat_count))
        self._answer_questions(self._questions.expire(self.monotonic_s()))
        self._forget_fork_servers()

    def _beat_to_launcher(self) -> None:
        # One at a time: the launcher may be stopped (Ctrl-Z), and 20 messages that nobody takes would stop all traffic from here.
        if self._wired_by is None or self._is_beat_under_way:
            return
        self._is_beat_under_way = True
        beat = Pong(name=self.name, incarnation=self.incarnation, sequence=self._heartbeat_count)
        send_with_result(self, self._wired_by, beat, self._beat_has_arrived, ANSWER_DEADLINE_S)

    def _beat_has_arrived(self, _error: str | None) -> None:
        self._is_beat_under_way = False

    def receiveMsg_Pong(self, message: Pong, sender: ActorAddress) -> None:
        for name in self.supervision.names:
            if self.child_full_name(self.supervision.spec(name)) == message.name:
                self._heartbeats.answered(name, message.incarnation)

    def receiveMsg_Ping(self, message: Ping, sender: ActorAddress) -> None:
        if self._launcher_fd is not None:  # without a launcher there is no node: an admin command that came too early made this
            self.send(sender, Pong(name=self.name, incarnation=self.incarnation, sequence=message.sequence))

    # ---- drain

    def receiveMsg_DrainRequested(self, message: DrainRequested, sender: ActorAddress) -> None:
        self._drain_asker = sender
        if self._has_member and (member := self.child_address(CLUSTER_MEMBER)) is not None:
            self.send(member, message)
        for _, full_name, incarnation, address in self._cells():
            self._draining[full_name] = incarnation
            self.send(address, message)
        self._cell_has_drained("", None)

    def receiveMsg_CellDrained(self, message: CellDrained, sender: ActorAddress) -> None:
        self._cell_has_drained(message.name, message.incarnation)

    def _cell_has_drained(self, full_name: str, incarnation: int | None) -> None:
        if self._draining.get(full_name) == incarnation:
            self._draining.pop(full_name, None)
        if not self._draining and self._drain_asker is not None:
            self.send(self._drain_asker, NodeDrained())
            self._drain_asker = None

    # ---- the launcher's death

    def receiveMessage(self, message: Any, sender: ActorAddress) -> Any:
        super().receiveMessage(message, sender)
        # Thespian forgets the watch at every return without one.
        return None if self._launcher_fd is None or self._is_crashed else ThespianWatch([self._launcher_fd])

    def receiveMsg_WatchMessage(self, message: WatchMessage, sender: ActorAddress) -> None:
        """End the whole node at once: nobody is left to drain it for, and a stopped or hung process would not leave by itself."""
        if os.getppid() == self._admin_pid:
            admin = psutil.Process(self._admin_pid)
            for process in [admin, *admin.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    # The guards of stdio servers know what those have started meanwhile; they leave when their cells have.
                    if process.pid != os.getpid() and not is_guard(process.cmdline()):
                        process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
