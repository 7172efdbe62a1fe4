"""`serve`: prepares the ground, starts the node, watches it from outside, drains and ends it. Itself no actor.

Order matters here: the environment is set before Thespian and prometheus-client are imported, everything is imported and frozen
before the first fork, and this process has neither loop nor thread.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any

import psutil
from setproctitle import setproctitle

from mcp_gateway.actors.node.kept_backends import with_kept_backends
from mcp_gateway.actors.runtime import thespian_hardening
from mcp_gateway.config.settings import Settings
from mcp_gateway.config.shown_text import shown

from .descendants import child_pids, kill_descendants
from .freed_memory import keep_freed_memory
from .log_lines import configure_logging, keep_log
from .preloading import load_for_processes
from .service_manager import ServiceManager
from .settings_source import SettingsSource
from .settings_watch import SettingsWatch, log_answer
from .start_checks import (
    STOP_SIGNALS,
    Hangup,
    RunDirectory,
    allow_many_files,
    announce,
    check_cluster,
    check_grpc,
    check_tls,
    log_exposure,
    log_what_was_left_out,
    prepare_state_directory,
    read_or_make_key,
    reserve_ports,
    say_where,
    with_real_ports,
    with_revocations,
)
from .time_limit import at_most

EXIT_FAILED = 1
FORKING_ENTRY = "mcp_gateway.scripts.serving.forking_process"
START_TIMEOUT_S = 20.0
EACH_CELL_S = 2.0  # more, to start and to stop, for each cell: they do so one after the other
ADOPTION_TIMEOUT_S = 2.0
ADOPTION_POLL_S = 0.002
POLL_S = 0.2
STOP_TIMEOUT_S = 5.0  # beyond the drain; then everything is killed
MAX_RESTARTS = 5  # of the whole system
RESTART_PERIOD_S = 60.0
MAX_SILENCE_S = 6.0  # a node supervisor without a heartbeat for that long is as good as dead; no work of its own takes longer

_logger = logging.getLogger(__name__)


def serve(settings: Settings, cell_factory: str, source: SettingsSource) -> int:
    """Serve until SIGTERM or Ctrl-C, then drain; return the exit code.

    Raises: StartRefused before anything has started
    """
    configure_logging(settings.logging)
    state_path = settings.gateway.state_path
    allow_many_files()
    keep_freed_memory()
    prepare_state_directory(state_path)
    keep_log(state_path, settings.logging)
    log_what_was_left_out(settings)
    settings = with_revocations(settings)
    check_tls(settings)
    check_cluster(settings)
    check_grpc(settings)
    key = read_or_make_key(state_path)
    reserved, admin_port = reserve_ports(settings)
    settings = with_real_ports(settings, port=reserved[0].getsockname()[1], admin_port=admin_port)
    log_exposure(settings)
    run_directory = RunDirectory.make(state_path)
    manager = ServiceManager.taken_from(os.environ)
    try:
        _prepare_process(run_directory, key, settings, cell_factory)
        return Launcher(settings, cell_factory, run_directory, source, manager).run()
    finally:
        kill_descendants()
        run_directory.remove()


def _prepare_process(run_directory: RunDirectory, key: bytes, settings: Settings, cell_factory: str) -> None:
    thespian_hardening.set_environment(log_file=run_directory.path / "thespian.log")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(run_directory.metrics_path)
    thespian_hardening.become_subreaper()
    load_for_processes(settings, cell_factory, key)


# Nobody logs through Thespian's logger process: each process writes its own lines to standard error.
LOG_DEFINITION: dict[str, Any] = {"version": 1, "disable_existing_loggers": False, "root": {"level": "CRITICAL", "handlers": []}}


class SystemDied(Exception):
    """A process without which the actor system cannot go on has ended; the text says which."""


class StopNow(Exception):
    """A second signal: the user does not want to wait for the drain."""


class Launcher:
    """Runs one actor system after the other until it is told to stop, or until they fail too often."""

    def __init__(
        self,
        settings: Settings,
        cell_factory: str,
        run_directory: RunDirectory,
        source: SettingsSource,
        manager: ServiceManager,
    ) -> None:
        self._settings = settings
        self._source = source
        self._manager = manager
        self._settings_watch = SettingsWatch(source, watches_files=settings.gateway.watch_config)
        self._hangup = Hangup()
        self._cell_factory = cell_factory
        self._run_directory = run_directory
        self._pid = os.getpid()
        self._started_at_s = time.time()
        self._start_count = 0
        self._has_served = False
        self._restarts_s: deque[float] = deque()
        self._signal_count = 0
        self._is_interruptible = False
        self._system: Any = None
        self._node: Any = None
        self._admin_pid = 0
        self._watched: dict[int, str] = {}  # {pidfd: name}

    def run(self) -> int:
        """Serve until told to stop; 0 after a drain, 1 when the system cannot be kept up."""
        setproctitle("mcp-gateway: launcher")
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        if not self._hangup.is_ignored:
            signal.signal(signal.SIGHUP, self._on_signal)
        try:
            while True:
                try:
                    with _deaths_noticed():
                        self._start()
                        self._watch()
                        self._drain()
                    return 0
                except SystemDied as death:
                    if self._signal_count:
                        return 0
                    if (exit_code := self._after_death(str(death))) is not None:
                        return exit_code
                finally:
                    self._let_go()
        except StopNow:
            return 0

    # ---- signals

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # Thespian's Admin is forked from here and inherits the handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if number == signal.SIGHUP and not self._hangup.is_stop():
            self._settings_watch.ask()
            return
        self._signal_count += 1
        if self._signal_count > 1 and self._is_interruptible:
            raise StopNow

    @property
    def _cells_s(self) -> float:
        return EACH_CELL_S * (self._settings.gateway.cell_count - 1)

    # ---- one actor system

    def _start(self) -> None:
        """Start the system; return when it serves, or when a signal says not to wait for that.

        Raises: SystemDied
        """
        start_s = START_TIMEOUT_S + self._cells_s
        with at_most(start_s, SystemDied(f"the node was not ready within {start_s:g} s")):
            self._start_node()
        if self._signal_count:
            return
        url = announce(self._settings, self._run_directory, pid=self._pid, source=self._source)
        if not self._has_served:
            self._has_served = True
            say_where(self._settings)
        else:
            _logger.warning("the node serves again", extra={"actor": "launcher", "fields": {"url": url}})
        self._manager.ready(f"listening on {url}")

    def _start_node(self) -> None:
        from thespian.actors import ActorSystem

        from mcp_gateway.actors.messages.lifecycle import ChildReady, Wiring
        from mcp_gateway.actors.messages.node import NODE_GLOBAL_NAME, NODE_SUPERVISOR, NodeArguments
        from mcp_gateway.actors.node.node_supervisor import NodeSupervisor

        self._start_count += 1
        try:
            capabilities = {"Admin Port": self._settings.actor_system.admin_port}
            self._system = ActorSystem("multiprocTCPBase", capabilities, logDefs=LOG_DEFINITION, transientUnique=True)
        except Exception as error:
            raise SystemDied(f"the actor system could not be started: {error}") from error
        admin = _wait_for_admin()
        self._admin_pid = admin.pid
        self._watch_process(admin.pid, "the actor system's admin")
        before = {process.pid for process in admin.children()}
        self._node = self._system.createActor(NodeSupervisor, globalName=NODE_GLOBAL_NAME)
        kept_path = self._run_directory.path / "backends.json"
        arguments = NodeArguments(
            settings=with_kept_backends(kept_path, self._settings),
            kept_path=kept_path,
            cell_factory=self._cell_factory,
            launcher_pid=self._pid,
            started_at_s=self._started_at_s,
            forking_entry=FORKING_ENTRY,
        )
        wiring = Wiring(name=NODE_SUPERVISOR, incarnation=self._start_count, addresses={}, arguments=arguments)
        self._system.tell(self._node, wiring)
        started = [process for process in admin.children() if process.pid not in before]
        if not started and len(before) < 2:  # there was the logger at most
            raise SystemDied("the node supervisor has ended")
        for process in started:
            self._watch_process(process.pid, "the node supervisor")
        while not isinstance(self._listen(POLL_S), ChildReady):
            if self._signal_count:
                return
        # An admin command that came in between may have made the actor before this process could see it come.
        for process in admin.children():
            if process.pid in before and wiring.name in " ".join(process.cmdline()):
                self._watch_process(process.pid, "the node supervisor")

    def _watch(self) -> None:
        """Return when a signal asks to stop.

        Raises: SystemDied
        """
        from mcp_gateway.actors.messages.node import CommandAnswered, Pong

        # Its heartbeats come unasked: a message to a node supervisor that hangs would hold up this process.
        heard_s = turned_s = time.monotonic()
        while not self._signal_count:
            message = self._listen(POLL_S)
            is_alive = isinstance(message, Pong)
            now_s = time.monotonic()
            # After a pause of this process itself (Ctrl-Z, a machine without time for it) nobody else has been silent.
            heard_s = now_s if is_alive else heard_s + max(0.0, now_s - turned_s - 2 * POLL_S)
            turned_s = now_s
            if now_s - heard_s > MAX_SILENCE_S:
                raise SystemDied(f"the node supervisor has been silent for {MAX_SILENCE_S:g} s")
            if is_alive:
                self._manager.alive(now_s)
            if isinstance(message, CommandAnswered):
                self._manager.ready(log_answer(message.answer))
            elif self._settings_watch.is_due(now_s):
                self._reload()
            self._end_orphans()

    def _reload(self) -> None:
        """Have the node take in what the files say now; its answer comes by itself."""
        from mcp_gateway.actors.messages.node import CommandRequested

        self._manager.reloading()
        settings = self._settings_watch.read()
        if settings is None:
            self._manager.ready("the last reload was refused: see the log")
            return
        request = CommandRequested(request_id=uuid.uuid4().hex, command="reload", arguments={"settings": settings})
        self._system.tell(self._node, request)

    def _drain(self) -> None:
        """Let exchanges end, then stop the node in order; both within bounds."""
        from mcp_gateway.actors.messages.lifecycle import StopRequested
        from mcp_gateway.actors.messages.node import DrainRequested, NodeDrained

        self._manager.stopping()
        self._is_interruptible = True
        if self._signal_count > 1:
            return
        drain_s = self._settings.gateway.drain_timeout
        stop_s = drain_s + STOP_TIMEOUT_S + self._cells_s
        too_late = SystemDied(f"the node did not stop within {stop_s:g} s")
        try:
            with at_most(stop_s, too_late):
                self._system.tell(self._node, DrainRequested(deadline_s=drain_s))
                while not isinstance(self._listen(POLL_S), NodeDrained):
                    pass
                self._system.tell(self._node, StopRequested())
                while True:
                    self._listen(POLL_S / 4)  # until the node supervisor has ended
        except SystemDied as died:
            if died is too_late:
                _logger.warning("%s: what is left of it is killed", died, extra={"actor": "launcher"})

    def _listen(self, timeout_s: float) -> Any:
        """The next message from the node, or None.

        Raises: SystemDied
        """
        from mcp_gateway.actors.messages.node import NodeFailed

        message = self._system.listen(timeout_s)
        if isinstance(message, NodeFailed):
            raise SystemDied(f"the node gave up: {message.reason}")
        ended = [self._watched[fd] for fd, _ in _poll(self._watched)]
        if ended:
            raise SystemDied(f"{ended[0]} has ended")
        return message

    def _watch_process(self, pid: int, name: str) -> None:
        try:
            self._watched[os.pidfd_open(pid)] = name
        except ProcessLookupError as error:
            raise SystemDied(f"{name} has ended") from error

    def _end_orphans(self) -> None:
        """End what a killed cell has left behind: this process adopts orphans, and has no child of its own but the Admin."""
        for pid in child_pids():
            if pid != self._admin_pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _let_go(self) -> None:
        """End every process of the system, and forget it."""
        self._run_directory.describe_nothing()
        kill_descendants()
        if self._has_served:
            from mcp_gateway.transports.telemetry.metric_archive import archive_all

            archive_all(self._run_directory.metrics_path)
        for fd in self._watched:
            os.close(fd)
        self._watched.clear()
        self._system = self._node = None
        gc.collect()  # closes the sockets of the old system: the next one's processes must not inherit them

    def _after_death(self, reason: str) -> int | None:
        """Say what happened; the exit code if it was once too often."""
        if not self._has_served:
            print(f"mcp-gateway: could not start: {shown(reason)}; the lines above say why", file=sys.stderr, flush=True)
            return EXIT_FAILED
        now_s = time.monotonic()
        self._restarts_s.append(now_s)
        while self._restarts_s[0] < now_s - RESTART_PERIOD_S:
            self._restarts_s.popleft()
        if len(self._restarts_s) > MAX_RESTARTS:
            text = f"the actor system died more than {MAX_RESTARTS} times in {RESTART_PERIOD_S:g} s, last: {reason}"
            print(f"mcp-gateway: {shown(text)}", file=sys.stderr, flush=True)
            return EXIT_FAILED
        _logger.error("%s: starting the whole system again", reason, extra={"actor": "launcher"})
        self._manager.says(f"starting again: {reason}")
        return None


@contextlib.contextmanager
def _deaths_noticed() -> Iterator[None]:
    """The block, in which a process of the system may end at any moment.

    Raises: SystemDied, also for what psutil and Thespian say of it.
    """
    from thespian.actors import ActorSystemException

    try:
        yield
    except (psutil.NoSuchProcess, ActorSystemException) as error:
        raise SystemDied(f"a process of the actor system has ended: {error}") from error


def _wait_for_admin() -> psutil.Process:
    """The Admin, which this process adopts a moment after the Admin has detached by forking twice.

    Raises: SystemDied
    """
    deadline_s = time.monotonic() + ADOPTION_TIMEOUT_S
    while time.monotonic() < deadline_s:
        for pid in child_pids():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                child = psutil.Process(pid)
                if " ".join(child.cmdline()).startswith(thespian_hardening.ADMIN_TITLE):
                    return child
        time.sleep(ADOPTION_POLL_S)  # the kernel tells nobody of an adoption
    raise SystemDied("the actor system's admin has ended")


def _poll(fds: Any) -> list[tuple[int, int]]:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return poller.poll(0)
