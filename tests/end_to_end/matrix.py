"""Every client over every transport to every server over every transport, through one gateway: what works of all that MCP has.

Clients and servers are the official SDK's, with transports of ours for WebSockets and Phoenix channels. Nothing of the SDK speaks
MCP's own gRPC proto: client and server of that are of its stubs.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import tomllib
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import attrs

from tests.doubles import sdk_apps
from tests.doubles.grpc_everything_server import grpc_everything_server
from tests.doubles.ports import free_port
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.grpc_client import connected_by_grpc
from tests.end_to_end.matrix_features import FEATURES, FEATURES_ALONE, PAGE_SIZE, Cell, Feature, Tags
from tests.end_to_end.python_client import Record, connected
from tests.end_to_end.running_cluster import CLUSTERS, ClusterForm, start_in
from tests.end_to_end.running_gateway import Entrance, Form

Era = Literal["legacy", "modern"]
REVISION: dict[Era, str] = {"legacy": "2025-11-25", "modern": "2026-07-28"}

_EVERYTHING = Path(__file__).parents[1] / "doubles" / "everything_server.py"
_GAPS = Path(__file__).with_name("matrix_gaps.toml")
_FEATURE_TIMEOUT_S = 15.0
_FIRST_TIMEOUT_S = 60.0  # with the first feature processes start, in a cluster one at each node
_FIRST_FEATURE = next(iter(FEATURES))
# Each client waits for its server most of the time; more at once would only make everything later.
_CELLS_AT_ONCE = 6


@attrs.frozen
class ClientKind:
    """A row. path: of the endpoint, with `{backend}` in it; gRPC has none."""

    era: Era
    transport: str
    scheme: str
    path: str

    @property
    def name(self) -> str:
        return f"{REVISION[self.era]}, {self.transport}"

    def connected(self, site: Site, backend: str) -> AbstractAsyncContextManager[tuple[Any, Record]]:
        gateway = site.gateway
        if self.scheme == "grpc":
            return connected_by_grpc(f"{gateway.host}:{site.grpc_port}", backend)
        mode = "legacy" if self.era == "legacy" else REVISION["modern"]
        url = f"{self.scheme}://{gateway.host}:{gateway.port}{self.path.format(backend=backend)}"
        return connected(url, mode, extensions=[sdk_apps.ShowsInterfaces()])


@attrs.frozen
class ServerKind:
    """A column. transport: as `everything_server.py` calls it, which has all but gRPC."""

    era: Era
    transport: Literal["streamable-http", "sse", "websocket", "stdio", "grpc"]

    @property
    def name(self) -> str:
        shown = {"streamable-http": "Streamable HTTP", "sse": "HTTP+SSE", "websocket": "WebSocket", "grpc": "gRPC"}
        return f"{REVISION[self.era]}, {shown.get(self.transport, self.transport)}"

    @property
    def backend(self) -> str:
        return f"{self.era}-{self.transport}"


CLIENTS = [
    ClientKind("legacy", "Streamable HTTP", "http", "/mcp/servers/{backend}"),
    ClientKind("legacy", "HTTP+SSE", "http", "/mcp/sse/connect?backend={backend}"),
    ClientKind("legacy", "WebSocket", "ws", "/mcp/ws?backend={backend}"),
    ClientKind("legacy", "Phoenix channel", "ws", "/mcp/websocket?vsn=2.0.0&backend={backend}"),
    ClientKind("modern", "Streamable HTTP", "http", "/mcp/servers/{backend}"),
    ClientKind("modern", "WebSocket", "ws", "/mcp/ws?backend={backend}"),
    ClientKind("modern", "Phoenix channel", "ws", "/mcp/websocket?vsn=2.0.0&backend={backend}"),
    ClientKind("modern", "gRPC", "grpc", ""),
]
SERVERS = [
    ServerKind("legacy", "streamable-http"),
    ServerKind("legacy", "sse"),
    ServerKind("legacy", "websocket"),
    ServerKind("legacy", "stdio"),
    ServerKind("modern", "streamable-http"),
    ServerKind("modern", "websocket"),
    ServerKind("modern", "stdio"),
    ServerKind("modern", "grpc"),
]


@attrs.frozen
class Site:
    """The gateway, where it listens for gRPC, and what to ask each server for that happened inside."""

    gateway: Entrance
    grpc_port: int
    tags: Mapping[ServerKind, Tags]


# ---- the run


Outcomes = dict[tuple[ClientKind, ServerKind], dict[str, str]]
"""{cell: {feature that does not work: why}}."""


def run_matrix(
    directory: Path,
    form: Form | ClusterForm = "embedded",
    clients: Sequence[ClientKind] = CLIENTS,
    servers: Sequence[ServerKind] = SERVERS,
) -> Outcomes:
    """Let every client use every feature of every server, several at once; those of gRPC in no cluster.

    directory: an empty one.
    """
    clients = [client for client in clients if form not in CLUSTERS or client.scheme != "grpc"]
    with _site(directory, form, servers) as site:
        return asyncio.run(_all_cells(site, [(client, server) for server in servers for client in clients]))


class _Turns:
    """Lets some cells work at once, and then, once a server's cells have all done that, those one after the other."""

    def __init__(self, cells: Sequence[tuple[ClientKind, ServerKind]]) -> None:
        self._room = asyncio.Semaphore(_CELLS_AT_ONCE)
        self._busy = Counter(server for _, server in cells)
        self._is_quiet = {server: asyncio.Event() for _, server in cells}
        self._is_taken = {server: asyncio.Lock() for _, server in cells}

    @asynccontextmanager
    async def beside_others(self, server: ServerKind) -> AsyncIterator[None]:
        try:
            async with self._room:
                yield
        finally:
            self._busy[server] -= 1
            if not self._busy[server]:
                self._is_quiet[server].set()

    @asynccontextmanager
    async def alone(self, server: ServerKind) -> AsyncIterator[None]:
        await self._is_quiet[server].wait()
        async with self._is_taken[server]:
            yield


async def _all_cells(site: Site, cells: Sequence[tuple[ClientKind, ServerKind]]) -> Outcomes:
    turns = _Turns(cells)
    found = await asyncio.gather(*(_try_cell(site, turns, client, server) for client, server in cells))
    return dict(zip(cells, found, strict=True))


async def _try_cell(site: Site, turns: _Turns, client_kind: ClientKind, server_kind: ServerKind) -> dict[str, str]:
    """One client tries one feature after the other; what does not work, and why."""
    gaps = gaps_of(client_kind, server_kind)
    tag = f"{client_kind.era}_{client_kind.transport.replace(' ', '_')}_{server_kind.backend}"
    untried = [name for name in (*FEATURES, *FEATURES_ALONE) if name not in gaps]
    failures: dict[str, str] = {}

    async def use(features: Mapping[str, Feature], cell: Cell) -> None:
        for name in [name for name in features if name in untried]:
            untried.remove(name)
            try:
                async with asyncio.timeout(_FIRST_TIMEOUT_S if name == _FIRST_FEATURE else _FEATURE_TIMEOUT_S):
                    await features[name](cell)
            except Exception as error:
                failures[name] = f"{type(error).__name__}: {error}"[:500]

    async def converse() -> None:
        async with AsyncExitStack() as connection:
            async with turns.beside_others(server_kind):
                client, heard = await connection.enter_async_context(client_kind.connected(site, server_kind.backend))
                cell = Cell(tag, client_kind.era == "modern", client, heard, site.tags[server_kind])
                await use(FEATURES, cell)
            async with turns.alone(server_kind):
                await use(FEATURES_ALONE, cell)

    try:
        await converse()
    except Exception as error:
        failures |= {name: f"no connection: {error!r}"[:500] for name in untried}
    return failures


@contextmanager
def _site(directory: Path, form: Form | ClusterForm, servers: Sequence[ServerKind]) -> Iterator[Site]:
    backends: list[dict[str, Any]] = []
    tags: dict[ServerKind, Tags] = {}
    with ExitStack() as stack:
        for kind in servers:
            backend, tags[kind] = _started(kind, form, directory, stack)
            backends.append({"name": kind.backend, **backend})
        (directory / "gateway").mkdir()
        # Nodes of a cluster that are all on this machine would have one port between them, and the balancer speaks no gRPC.
        grpc_port = 0 if form in CLUSTERS else free_port()
        gateway = stack.enter_context(start_in(directory / "gateway", form, backends, grpc={"port": grpc_port}))
        yield Site(gateway, grpc_port, tags)


def _started(kind: ServerKind, form: Form | ClusterForm, directory: Path, stack: ExitStack) -> tuple[dict[str, Any], Tags]:
    """(how its backend is configured, what happened inside)"""
    if kind.transport == "grpc":
        server = stack.enter_context(grpc_everything_server())
        return {"replicas": [f"grpc://{server.address}"]}, functools.partial(getattr, server)
    if kind.transport == "stdio":
        place = directory / kind.backend
        place.mkdir()
        command = [sys.executable, str(_EVERYTHING), "--transport", "stdio", "--era", kind.era, "--name", kind.backend]
        command += ["--page-size", str(PAGE_SIZE), "--counters-dir", str(place), "--tasks", "--apps"]
        # What is subscribed to at a process of one node would be changed at that of another: one for all, as on one node.
        once = {"one_per_cluster": True} if form in CLUSTERS and kind.era == "modern" else {}
        return {"command": command, **once}, functools.partial(_written_to, place)
    running = stack.enter_context(
        start_sdk_server(name=kind.backend, era=kind.era, page_size=PAGE_SIZE, transport=kind.transport, tasks=True, apps=True)
    )
    return {"replicas": [running.url]}, functools.partial(_told_by, f"http://127.0.0.1:{running.port}/counters")


def _written_to(place: Path, event: str) -> Sequence[str]:
    return [tag for path in place.glob("*.json") for tag in json.loads(path.read_text())[event]]


def _told_by(counters_url: str, event: str) -> Sequence[str]:
    with urllib.request.urlopen(counters_url, timeout=5) as answer:
        tags: list[str] = json.load(answer)[event]
    return tags


# ---- the gaps that are known


@attrs.frozen
class Gap:
    """What is not tried, as written in the repository. clients, servers: patterns of names. reason: a sentence."""

    clients: str
    servers: str
    features: tuple[str, ...] = attrs.field(converter=tuple)
    reason: str

    def has(self, client: ClientKind, server: ServerKind) -> bool:
        return fnmatchcase(client.name, self.clients) and fnmatchcase(server.name, self.servers)


def known_gaps() -> list[Gap]:
    return [Gap(**gap) for gap in tomllib.loads(_GAPS.read_text()).get("gap", [])]


def gaps_of(client: ClientKind, server: ServerKind) -> set[str]:
    """The features that are not tried in this cell."""
    return {feature for gap in known_gaps() if gap.has(client, server) for feature in gap.features}
