"""`serve --embedded`: one cell on the event loop of this process, no actor ports, no other processes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from typing import Any

from setproctitle import setproctitle

from mcp_gateway.actors.messages.node_link import CellFactory
from mcp_gateway.actors.node.backend_changes import backend_change
from mcp_gateway.actors.node.cell_factory import load_cell_factory
from mcp_gateway.actors.runtime.thespian_hardening import become_subreaper
from mcp_gateway.config.loader import ConfigError
from mcp_gateway.config.settings import Settings
from mcp_gateway.config.shown_text import shown
from mcp_gateway.transports.upstream.pipes.process_guard import PROCESS_GUARD

from .descendants import kill_descendants, reap_adopted
from .embedded_node import EmbeddedNode
from .freed_memory import keep_freed_memory
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
    check_grpc,
    check_tls,
    log_exposure,
    log_what_was_left_out,
    prepare_state_directory,
    reserve_port,
    say_where,
    with_real_ports,
    with_revocations,
)

EXIT_FAILED = 1

_logger = logging.getLogger(__name__)


def serve(settings: Settings, cell_factory: str, source: SettingsSource) -> int:
    """Serve until SIGTERM or Ctrl-C, then drain; return the exit code.

    Raises: StartRefused before anything has started
    """
    configure_logging(settings.logging)
    allow_many_files()
    keep_freed_memory()
    prepare_state_directory(settings.gateway.state_path)
    keep_log(settings.gateway.state_path, settings.logging)
    log_what_was_left_out(settings)
    settings = with_revocations(settings)
    check_tls(settings)
    check_grpc(settings)
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
    """Runs the node of this process until a signal ends it, has files read again, and talks to a service manager."""

    def __init__(self, settings: Settings, factory: CellFactory, run_directory: RunDirectory, source: SettingsSource) -> None:
        self._node = EmbeddedNode(settings, factory)
        self._source = source
        self._run_directory = run_directory
        self._stop_requested = asyncio.Event()
        self._skip_drain = asyncio.Event()
        self._manager = ServiceManager.taken_from(os.environ)
        self._settings_watch = SettingsWatch(source, watches_files=settings.gateway.watch_config)
        self._hangup = Hangup()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        try:
            return await self._serve()
        finally:
            self._node.close()

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        settings = self._node.settings
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        if not self._hangup.is_ignored:
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        try:
            await self._node.start()
        except OSError as error:
            raise StartRefused(f"cannot listen on {settings.gateway.host}:{settings.gateway.port}: {error}") from error
        except Exception as error:
            _logger.exception("the cell could not be started")
            print(f"mcp-gateway: could not start: {shown(str(error))}; the lines above say why", file=sys.stderr, flush=True)
            return EXIT_FAILED
        url = announce(settings, self._run_directory, pid=os.getpid(), source=self._source)
        say_where(settings)
        self._manager.ready(f"listening on {url}")
        self._turn()
        given_up = await self._first_of(self._stop_requested.wait(), self._node.keep_running())
        if isinstance(given_up, str):
            print(f"mcp-gateway: {shown(given_up)}", file=sys.stderr, flush=True)
            return EXIT_FAILED
        self._manager.stopping()
        await self._first_of(self._node.drain(self._node.settings.gateway.drain_timeout), self._skip_drain.wait())
        await self._node.stop_cell()
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
                change = backend_change(self._node.settings, "reload", {"settings": wanted})
            except ConfigError as error:
                status = log_answer({"refused": str(error).splitlines()})
            else:
                status = self._node.take(change)
        self._manager.ready(status)

    def _on_signal(self) -> None:
        if self._stop_requested.is_set():
            self._skip_drain.set()
        self._stop_requested.set()

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
