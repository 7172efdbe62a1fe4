"""`serve --embedded`: one cell on the event loop of this process, no actor ports, no other processes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections import deque
from typing import Any

from setproctitle import setproctitle

from mcp_gateway.actors.events.embedded_event_log import EmbeddedEventLog
from mcp_gateway.actors.messages.node_link import CellContent, CellFactory
from mcp_gateway.actors.node.backend_changes import BackendChange, backend_change
from mcp_gateway.actors.node.cell_factory import load_cell_factory
from mcp_gateway.actors.node.kept_revocations import keep_revocations
from mcp_gateway.actors.node.node_status import tree_row
from mcp_gateway.actors.runtime.thespian_hardening import become_subreaper
from mcp_gateway.config.loader import ConfigError
from mcp_gateway.config.settings import Settings
from mcp_gateway.config.shown_text import shown
from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event
from mcp_gateway.transports.upstream.pipes.process_guard import PROCESS_GUARD

from .descendants import kill_descendants, reap_adopted
from .log_lines import configure_logging, keep_log
from .service_manager import ServiceManager
from .settings_source import SettingsSource
from .settings_watch import LOOK_S, SettingsWatch, log_answer
from .start_checks import (
    STOP_SIGNALS,
    Hangup,
    RunDirectory,
    StartRefused,
    allow_many_files,
    announce,
    check_tls,
    log_exposure,
    log_what_was_left_out,
    prepare_state_directory,
    reserve_port,
    say_where,
    with_real_ports,
    with_revocations,
)

CELL_NAME = "cell/0"
EXIT_FAILED = 1
MAX_RESTARTS = 5
RESTART_PERIOD_S = 60.0

_logger = logging.getLogger(__name__)


def serve(settings: Settings, cell_factory: str, source: SettingsSource) -> int:
    """Serve until SIGTERM or Ctrl-C, then drain; return the exit code.

    Raises: StartRefused before anything has started
    """
    configure_logging(settings.logging)
    allow_many_files()
    prepare_state_directory(settings.gateway.state_path)
    keep_log(settings.gateway.state_path, settings.logging)
    log_what_was_left_out(settings)
    settings = with_revocations(settings)
    check_tls(settings)
    reserved = reserve_port(settings.gateway.host, settings.gateway.port)
    settings = with_real_ports(settings, port=reserved[0].getsockname()[1])
    gc.disable()  # start-up allocates and keeps: collections would find nothing
    factory = load_cell_factory(cell_factory)
    gc.enable()
    log_exposure(settings)
    run_directory = RunDirectory.make(settings.gateway.state_path)
    try:
        setproctitle("mcp-gateway: embedded")
        become_subreaper()
        return asyncio.run(EmbeddedGateway(settings, factory, run_directory, source).run())
    finally:
        kill_descendants()  # what servers have started and left, whatever it has made of itself
        run_directory.remove()


class EmbeddedGateway:
    """Runs one cell's content and stands in for the node around it: the event log, and the supervisor of last resort."""

    def __init__(self, settings: Settings, factory: CellFactory, run_directory: RunDirectory, source: SettingsSource) -> None:
        self._settings = settings
        self._source = source
        self._factory = factory
        self._run_directory = run_directory
        self._stop_requested = asyncio.Event()
        self._skip_drain = asyncio.Event()
        self._escalations: asyncio.Queue[str] = asyncio.Queue()
        self._restarts_s: deque[float] = deque()
        self._content: CellContent | None = None
        retention = settings.transports.http_sse.retention_events
        self._log = EmbeddedEventLog(settings.gateway.state_path, retention, self._deliver)
        self._started_at_s = time.time()
        self._manager = ServiceManager.taken_from(os.environ)
        self._settings_watch = SettingsWatch(source, watches_files=settings.gateway.watch_config)
        self._hangup = Hangup()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        try:
            return await self._serve()
        finally:
            self._log.close()

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        if not self._hangup.is_ignored:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            content: CellContent | None = await self._start()
        except OSError as error:
            gateway = self._settings.gateway
            raise StartRefused(f"cannot listen on {gateway.host}:{gateway.port}: {error}") from error
        except Exception as error:
            _logger.exception("the cell could not be started")
            print(f"mcp-gateway: could not start: {shown(str(error))}; the lines above say why", file=sys.stderr, flush=True)
            return EXIT_FAILED
        url = announce(self._settings, self._run_directory, pid=os.getpid(), source=self._source)
        say_where(self._settings)
        self._manager.ready(f"listening on {url}")
        self._turn()
        while not self._stop_requested.is_set():
            reason = await self._first_of(self._stop_requested.wait(), self._escalations.get())
            if not isinstance(reason, str):
                break
            if content is not None:
                self._content = None
                await content.stop()
                content = None
            if not self._may_restart():
                text = f"the cell failed more than {MAX_RESTARTS} times in {RESTART_PERIOD_S:g} s, last: {reason}"
                print(f"mcp-gateway: {shown(text)}", file=sys.stderr, flush=True)
                return EXIT_FAILED
            _logger.error("the cell is started again: %s", reason)
            try:
                content = await self._start()
            except Exception as error:
                _logger.exception("the cell could not be started again")
                self._escalations.put_nowait(repr(error))
        self._manager.stopping()
        if content is not None:
            await self._first_of(content.drain(self._settings.gateway.drain_timeout), self._skip_drain.wait())
            self._content = None
            await content.stop()
        return 0

    def _on_hangup(self) -> None:
        if self._hangup.is_stop():
            self._on_signal()
        else:
            self._settings_watch.ask()
            self._turn()

    def _turn(self) -> None:
        """Look at the files and at adopted children now and then, and show a service manager that the loop turns."""
        if self._timer is not None:
            self._timer.cancel()
        # First: whatever fails below, the next turn comes.
        self._timer = asyncio.get_running_loop().call_later(min(LOOK_S, self._manager.watchdog_s or LOOK_S), self._turn)
        reap_adopted(PROCESS_GUARD.owns)
        now_s = time.monotonic()
        self._manager.alive(now_s)
        if self._settings_watch.is_due(now_s):
            self._reload()

    def _reload(self) -> None:
        self._manager.reloading()
        wanted = self._settings_watch.read()
        status = "the last reload was refused: see the log"
        if wanted is not None:
            try:
                change = backend_change(self._settings, "reload", {"settings": wanted})
            except ConfigError as error:
                status = log_answer({"refused": str(error).splitlines()})
            else:
                status = self._take(change)
        self._manager.ready(status)

    def _take(self, change: BackendChange) -> str:
        """Run with it from now on; a line about it for a service manager."""
        self._settings = change.settings
        if self._content is not None:
            self._content.apply_settings(change.settings)
        for kind, backend in change.events:
            self._log.publish(f"mcp.backend.{kind}", {"backend": backend}, int(time.time() * 1000))
        return log_answer({"changes": change.events, "tables": change.tables, "left": change.left})

    def _on_signal(self) -> None:
        if self._stop_requested.is_set():
            self._skip_drain.set()
        self._stop_requested.set()

    async def _start(self) -> CellContent:
        content = self._factory(self._settings, 0, CELL_NAME, self)
        last_event_id = self._log.last_id
        await content.start()
        self._content = content
        content.deliver_events(self._log.events_after(last_event_id))
        return content

    def _may_restart(self) -> bool:
        now_s = time.monotonic()
        self._restarts_s.append(now_s)
        while self._restarts_s[0] < now_s - RESTART_PERIOD_S:
            self._restarts_s.popleft()
        return len(self._restarts_s) <= MAX_RESTARTS

    @staticmethod
    async def _first_of(*awaitables: Any) -> Any:
        """The result of what ends first; the others are cancelled. An error is raised."""
        tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()

    # ---- NodeLink

    is_caught_up = True

    @property
    def lost(self) -> LostIds:
        return self._log.lost

    def events_after(self, event_id: int) -> list[Event]:
        return self._log.events_after(event_id)

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        self._log.publish(topic, payload, timestamp_ms)

    def _deliver(self, events: list[Event]) -> None:
        if self._content is not None:
            self._content.deliver_events(events)

    def request_stop(self, reason: str) -> None:
        self._escalations.put_nowait(reason)

    async def change(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            change = backend_change(self._settings, command, arguments)
        except ConfigError as error:
            return {"refused": str(error).splitlines()}
        state_path = self._settings.gateway.state_path
        if state_path is not None and change.settings.revocations != self._settings.revocations:
            try:
                keep_revocations(state_path, change.settings.revocations)
            except OSError as error:
                return {"error": f"it cannot be kept: {error.strerror}"}
        self._take(change)
        return {"ok": True}

    async def node_status(self) -> dict[str, Any]:
        status = await self._content.status() if self._content is not None else {}
        row = tree_row("embedded", pid=os.getpid(), uptime_s=time.time() - self._started_at_s, children=status.pop("tree", ()))
        uptime_s = round(time.time() - self._started_at_s, 3)
        return {"version": VERSION, "uptime_seconds": uptime_s, "tree": [row], **status}

    def forward(self, cell_name: str, message: object) -> None:
        raise LookupError(f"{cell_name} does not run: an embedded gateway is one cell")
