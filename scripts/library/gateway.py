"""A gateway on the event loop of the program that wants one, or on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import attrs

from mcp_gateway.actors.cell.cell import Cell, Hosting
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.config.loader import ConfigError, load_settings, settings_from_mapping
from mcp_gateway.config.setting_rules import InvalidSetting
from mcp_gateway.config.settings import IN_PROCESS_BASE, Settings
from mcp_gateway.scripts.serving.embedded_node import EmbeddedNode
from mcp_gateway.scripts.serving.start_checks import (
    StartRefused,
    check_grpc,
    check_tls,
    prepare_state_directory,
    reserve_port,
    with_real_ports,
    with_revocations,
)
from mcp_gateway.transports.downstream.server.mounted_server import MountedServer

from .given_settings import SOURCE, Backends, file_of

if TYPE_CHECKING:
    from mcp_gateway.transports.downstream.server.server import GatewayServer

_MOUNTED_PATHS = (r"/mcp(?:/.*)?", r"/\.well-known/oauth-protected-resource(?:/.*)?")

_logger = logging.getLogger(__name__)


class GatewayError(Exception):
    """The gateway cannot run as it was asked to; a line for each reason."""


class Gateway:
    """One endpoint for any MCP client, before any MCP servers, for the length of a `with` or `async with` block.

        async with Gateway({"files": ["python", "server.py"], "search": "https://search.example/mcp"}) as gateway:
            async with Client(gateway.url) as client:
                ...

    `async with` serves on the running event loop (asyncio, and so Tornado's), `with` on one of a thread of its own. Nothing else
    of the program is touched: no signal handler, no logging. It may be entered again after it has ended.

    backends: {name: URL, command or table}, or tables as `[[backends]]` of a file has them; None is the demo server.
    config:   a configuration file in place of the others.
    tables:   other tables of a file by name, such as `gateway={"port": 4000}`; without one a free port is taken, and nothing is
              kept on disk.

    Raises: GatewayError for settings that cannot be used.
    """

    def __init__(self, backends: Backends | None = None, *, config: str | os.PathLike[str] | None = None, **tables: Any) -> None:
        if config is not None and (backends is not None or tables):
            raise TypeError("a Gateway takes its settings from config, or from backends and tables, not from both")
        try:
            settings = load_settings(config) if config is not None else settings_from_mapping(file_of(backends, tables), SOURCE)
        except (ConfigError, InvalidSetting) as error:
            raise GatewayError(str(error)) from error
        self._settings = attrs.evolve(
            settings,
            gateway=attrs.evolve(settings.gateway, cells=1),
            actor_system=attrs.evolve(settings.actor_system, base=IN_PROCESS_BASE),
        )
        self._is_mounted = False
        self._node: EmbeddedNode | None = None
        self._reserved: list[socket.socket] = []
        self._keeping: asyncio.Task[None] | None = None
        self._thread: _GatewayThread | None = None

    @property
    def url(self) -> str:
        """The address of the MCP endpoint: all backends as one server."""
        return f"{self._base_url()}/mcp"

    def url_of(self, backend: str) -> str:
        """The address of one backend alone, its names without prefix."""
        return f"{self._base_url()}/mcp/servers/{quote(backend, safe='')}"

    def mount(self) -> list[tuple[str, MountedServer]]:
        """Rules for a `tornado.web.Application`, whose server takes the connections from then on; to be called before the start.

        The addresses are those of the application, so `url` is not known here. Set `public_url` or `allowed_hosts` of the table
        `gateway` where clients reach it by another name than localhost.
        """
        if self._node is not None:
            raise GatewayError("a gateway is mounted before it starts")
        self._is_mounted = True
        target = MountedServer(self._server)
        return [(path, target) for path in _MOUNTED_PATHS]

    async def status(self) -> dict[str, Any]:
        """What `mcp-gateway status --json` prints; of an `async with` block only."""
        return await self._running().node_status()

    # ---- on the running loop

    async def __aenter__(self) -> Self:
        if self._node is not None:
            raise GatewayError("the gateway runs already")
        try:
            settings = self._prepared()
            node = EmbeddedNode(settings, self._make_cell)
            try:
                await node.start()
            except BaseException:
                node.close()
                raise
        except BaseException as error:
            self._let_go_of_port()
            if isinstance(error, (OSError, StartRefused)):
                raise GatewayError(str(error)) from error
            raise
        self._node = node
        self._keeping = asyncio.get_running_loop().create_task(_keep(node))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        node, self._node = self._running(), None
        assert self._keeping is not None
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        try:
            if error is None:
                await node.drain(node.settings.gateway.drain_timeout)
            await node.stop_cell()
        finally:
            node.close()
            self._let_go_of_port()

    def _prepared(self) -> Settings:
        """Raises: StartRefused"""
        settings = self._settings
        prepare_state_directory(settings.gateway.state_path)
        settings = with_revocations(settings)
        check_tls(settings)
        check_grpc(settings)
        if self._is_mounted:
            return settings
        self._reserved = reserve_port(settings.gateway.host, settings.gateway.port)
        return with_real_ports(settings, port=self._reserved[0].getsockname()[1])

    def _let_go_of_port(self) -> None:
        while self._reserved:
            self._reserved.pop().close()

    def _make_cell(self, settings: Settings, cell_index: int, cell_name: str, link: NodeLink) -> Cell:
        hosting = Hosting.MOUNTED if self._is_mounted else Hosting.GUEST
        return Cell(settings, cell_index, cell_name, link, hosting=hosting)

    def _server(self) -> GatewayServer | None:
        content = None if self._node is None else self._node.content
        return content.server if isinstance(content, Cell) else None

    def _running(self) -> EmbeddedNode:
        if self._node is None:
            raise GatewayError("the gateway does not run: it serves for the length of a `with` block")
        return self._node

    def _base_url(self) -> str:
        running = self._running()
        if self._is_mounted:
            raise GatewayError("the gateway is mounted: its address is that of the application")
        return running.settings.url

    # ---- on a thread

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise GatewayError("the gateway runs already")
        thread = _GatewayThread(self)
        thread.begin()
        self._thread = thread
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        thread, self._thread = self._thread, None
        assert thread is not None
        thread.end()


async def _keep(node: EmbeddedNode) -> None:
    _logger.error("the gateway has given up: %s", await node.keep_running())


class _GatewayThread:
    """Runs an event loop with one gateway on it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._has_begun = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        # No daemon: whatever the program does, servers are ended and files closed.
        self._thread = threading.Thread(target=self._run, name="mcp-gateway")

    def begin(self) -> None:
        """Raises: whatever the start of the gateway raises."""
        self._thread.start()
        self._has_begun.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def end(self) -> None:
        assert self._loop is not None
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            self._has_begun.set()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self._gateway:
            self._has_begun.set()
            await self._over.wait()
