"""Every client over every transport to every server over every transport, through one gateway: what works of all that MCP has.

The client is the official SDK's in all rows; a WebSocket and a Phoenix channel are transports of ours for it. The servers are the
official SDK's as well.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference

from tests.doubles import sdk_apps
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.python_client import Record, all_pages, connected, eventually, text_of
from tests.end_to_end.running_cluster import CLUSTERS, ClusterForm, start_in
from tests.end_to_end.running_gateway import Entrance, Form

Era = Literal["legacy", "modern"]
REVISION: dict[Era, str] = {"legacy": "2025-11-25", "modern": "2026-07-28"}

_EVERYTHING = Path(__file__).parents[1] / "doubles" / "everything_server.py"
_GAPS = Path(__file__).with_name("matrix_gaps.toml")
_PAGE_SIZE = 5
_FEATURE_TIMEOUT_S = 15.0
_FIRST_TIMEOUT_S = 60.0  # with the first feature processes start, in a cluster one at each node
# Each client waits for its server most of the time; more at once would only make everything later.
_CELLS_AT_ONCE = 6


@attrs.frozen
class ClientKind:
    """A row. path: of the endpoint, with `{backend}` in it."""

    era: Era
    transport: str
    scheme: str
    path: str

    @property
    def name(self) -> str:
        return f"{REVISION[self.era]}, {self.transport}"

    def url(self, gateway: Entrance, backend: str) -> str:
        return f"{self.scheme}://{gateway.host}:{gateway.port}{self.path.format(backend=backend)}"


@attrs.frozen
class ServerKind:
    """A column. transport: as `everything_server.py` calls it."""

    era: Era
    transport: Literal["streamable-http", "sse", "websocket", "stdio"]

    @property
    def name(self) -> str:
        shown = {"streamable-http": "Streamable HTTP", "sse": "HTTP+SSE", "websocket": "WebSocket", "stdio": "stdio"}
        return f"{REVISION[self.era]}, {shown[self.transport]}"

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
]
SERVERS = [
    ServerKind("legacy", "streamable-http"),
    ServerKind("legacy", "sse"),
    ServerKind("legacy", "websocket"),
    ServerKind("legacy", "stdio"),
    ServerKind("modern", "streamable-http"),
    ServerKind("modern", "websocket"),
    ServerKind("modern", "stdio"),
]


@attrs.frozen
class Site:
    """The gateway, and where to ask each server what happened inside: an address, or the directory of its processes."""

    gateway: Entrance
    counters: dict[ServerKind, str | Path]

    def tags(self, server: ServerKind, event: str) -> list[str]:
        """Tags of `slow` calls that were "started" or "cancelled", in whichever process of the server."""
        place = self.counters[server]
        if isinstance(place, Path):
            return [tag for path in place.glob("*.json") for tag in json.loads(path.read_text())[event]]
        with urllib.request.urlopen(place, timeout=5) as answer:
            tags: list[str] = json.load(answer)[event]
        return tags


@attrs.frozen
class Cell:
    """One client that talks to one server. tag: of nobody else."""

    site: Site
    client_kind: ClientKind
    server_kind: ServerKind
    client: Any
    heard: Record

    @property
    def tag(self) -> str:
        return f"{self.client_kind.era}_{self.client_kind.transport.replace(' ', '_')}_{self.server_kind.backend}"

    @property
    def is_modern(self) -> bool:
        return self.client_kind.era == "modern"


# ---- what each cell must do


async def lists(cell: Cell) -> None:
    tools = [name for page in await all_pages(cell.client.list_tools, "tools", "name") for name in page]
    assert {"echo", "elicit", "roots"} <= set(tools)
    assert [resource.name for resource in (await cell.client.list_resources()).resources] == ["static", "blob"]
    assert [template.name for template in (await cell.client.list_resource_templates()).resource_templates] == ["item"]
    assert [prompt.name for prompt in (await cell.client.list_prompts()).prompts] == ["greet"]


async def calls(cell: Cell) -> None:
    answers = await asyncio.gather(*(cell.client.call_tool("echo", {"message": f"{number}"}) for number in range(5)))
    assert [text_of(answer) for answer in answers] == ["0", "1", "2", "3", "4"]
    assert (await cell.client.call_tool("add", {"a": 40, "b": 2})).structured_content == {"result": 42}
    failed = await cell.client.call_tool("fail", {"message": "as asked"})
    assert failed.is_error
    assert "as asked" in text_of(failed)
    assert (await cell.client.read_resource("test://item/7")).contents[0].text.startswith('{"item": "7"')
    prompt = await cell.client.get_prompt("greet", {"name": "Ada"})
    assert prompt.messages[0].content.text == "Say hello to Ada."
    try:
        await cell.client.read_resource("test://nothing")
    except MCPError:
        return
    raise AssertionError("there is no such resource")


async def progress(cell: Cell) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    await cell.client.call_tool("progress", {"steps": 5, "delay_s": 0.01}, progress_callback=note)
    await eventually(lambda: len(seen) == 5, 5.0, f"progress of a call: {seen}")
    assert seen == [1, 2, 3, 4, 5]


async def cancel(cell: Cell) -> None:
    call = asyncio.create_task(cell.client.call_tool("slow", {"seconds": 60, "tag": cell.tag}))
    try:
        await _until_told(cell, "started")
    finally:
        call.cancel()
        await asyncio.wait((call,))
    await _until_told(cell, "cancelled")
    assert text_of(await cell.client.call_tool("echo", {"message": "alive"})) == "alive"


async def elicitation(cell: Cell) -> None:
    assert text_of(await cell.client.call_tool("elicit", {})) == "accept: Hello, Ada!"


async def sampling(cell: Cell) -> None:
    assert text_of(await cell.client.call_tool("sample", {"prompt": "life"})) == "model of Ada: about life"


async def roots(cell: Cell) -> None:
    assert text_of(await cell.client.call_tool("roots", {})) == "file:///Ada"


async def list_changed(cell: Cell) -> None:
    name = f"added_by_{cell.tag}"
    if cell.is_modern:
        async with cell.client.listen(tools_list_changed=True) as subscription:
            await cell.client.call_tool("add_tool", {"name": name})
            assert type(await anext(subscription)).__name__ == "ToolsListChanged"
    else:
        cell.heard.notifications.clear()
        await cell.client.call_tool("add_tool", {"name": name})
        await cell.heard.wait_for(lambda record: "notifications/tools/list_changed" in record.notifications)
    await cell.client.call_tool("remove_tool", {"name": name})


async def resource_update(cell: Cell) -> None:
    uri = f"test://item/{cell.tag}"
    if cell.is_modern:
        async with cell.client.listen(resource_subscriptions=[uri]) as subscription:
            await cell.client.call_tool("touch", {"uri": uri})
            assert str((await anext(subscription)).uri) == uri
    else:
        await cell.client.subscribe_resource(uri)
        await cell.client.call_tool("touch", {"uri": uri})
        await cell.heard.wait_for(lambda record: record.updated_uris == [uri])
        await cell.client.unsubscribe_resource(uri)


async def completion(cell: Cell) -> None:
    found = await cell.client.complete(PromptReference(name="greet"), {"name": "name", "value": "A"})
    assert found.completion.values == ["Ada", "Alan"]


async def logging(cell: Cell) -> None:
    if cell.is_modern:
        await cell.client.call_tool("log", {"message": "not asked for"})
        meta = {"io.modelcontextprotocol/logLevel": "info"}
        await cell.client.call_tool("log", {"message": "mine", "count": 3}, meta=meta)
    else:
        await cell.client.set_logging_level("info")
        await cell.client.call_tool("log", {"message": "mine", "count": 3})
    await cell.heard.wait_for(lambda record: len(record.logs) >= 3)
    assert cell.heard.logs == [{"message": "mine", "number": number} for number in range(3)]


async def paging(cell: Cell) -> None:
    pages = await all_pages(cell.client.list_tools, "tools", "name")
    assert len(pages) >= 4
    assert {len(page) for page in pages[:3]} == {_PAGE_SIZE}


async def tasks(cell: Cell) -> None:
    """A tool that its server can make a task of: it goes on by itself, asks, and is over."""
    result = await _run_as_task(cell, "confirm_delete", {"filename": cell.tag})
    assert result["content"][0]["text"] == f"accept: {cell.tag}"


async def gateway_tasks(cell: Cell) -> None:
    """A tool that its server only answers when it is done: the gateway makes the task."""
    result = await _run_as_task(cell, "slow", {"seconds": 1.5})
    assert result["content"][0]["text"] == "slept 1.5 s"


async def _run_as_task(cell: Cell, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The questions of a legacy server come on the stream of a `tasks/result`, those of a modern one with a `tasks/get`."""
    call = {"name": tool, "arguments": arguments}
    if not cell.is_modern:
        task = (await _raw(cell, "tools/call", {**call, "task": {"ttl": 60_000}}))["task"]
        return await _raw(cell, "tasks/result", {"taskId": task["taskId"]})
    task = await _raw(cell, "tools/call", call)
    about = {"taskId": task["taskId"]}
    async with asyncio.timeout(10):
        while (task := await _raw(cell, "tasks/get", about))["status"] != "completed":
            accepted = {key: {"action": "accept", "content": {"name": "Ada"}} for key in task.get("inputRequests", ())}
            if accepted:
                await _raw(cell, "tasks/update", {**about, "inputResponses": accepted})
            await asyncio.sleep(0.05)
    result: dict[str, Any] = task["result"]
    return result


async def apps(cell: Cell) -> None:
    """An interface is announced, named by its tool and read; and the tool knows that its client can show it."""
    if cell.is_modern:  # the SDK asks no server of a revision that it is told to speak
        announced = (await _raw(cell, "server/discover", {}))["capabilities"].get("extensions")
    else:
        announced = cell.client.server_capabilities.extensions
    assert sdk_apps.EXTENSION in (announced or {}), announced
    named = [meta for page in await all_pages(cell.client.list_tools, "tools", "meta") for meta in page]
    assert str({"ui": {"resourceUri": sdk_apps.VIEW}}) in named, named
    (view,) = (await cell.client.read_resource(sdk_apps.VIEW)).contents
    assert (str(view.uri), view.mime_type, view.text) == (sdk_apps.VIEW, sdk_apps.MIME_TYPE, sdk_apps.PAGE)
    assert text_of(await cell.client.call_tool("board", {})) == "shown"


async def _raw(cell: Cell, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A request of a client that knows tasks, over the connection of one that does not: the SDK's own."""
    session = cell.client.session
    data: dict[str, Any] = {"method": method, "params": dict(params)}
    options: Any = {}
    session._stamp(data, options)
    if cell.is_modern:
        meta, declared = data["params"]["_meta"], "io.modelcontextprotocol/clientCapabilities"
        data["params"]["_meta"] = {**meta, declared: {**meta[declared], "extensions": {"io.modelcontextprotocol/tasks": {}}}}
        if (item := params.get("taskId", params.get("name"))) is not None:
            options.setdefault("headers", {}).setdefault("mcp-name", item)
    answer: dict[str, Any] = await session._dispatcher.send_raw_request(method, data["params"], options)
    return answer


Feature = Callable[[Cell], Awaitable[None]]
FEATURES: dict[str, Feature] = {
    "list": lists,
    "call": calls,
    "progress": progress,
    "cancel": cancel,
    "elicitation": elicitation,
    "sampling": sampling,
    "roots": roots,
    "list_changed": list_changed,
    "resource update": resource_update,
    "completion": completion,
    "paging": paging,
    "tasks": tasks,
    "tasks of the gateway": gateway_tasks,
    "apps": apps,
}
# On a pipe a log message names no request. Where two clients' calls are open at once, nobody reads it: each tries it alone.
FEATURES_ALONE: dict[str, Feature] = {"logging": logging}


async def _until_told(cell: Cell, event: str) -> None:
    async with asyncio.timeout(10):
        while cell.tag not in await asyncio.to_thread(cell.site.tags, cell.server_kind, event):
            await asyncio.sleep(0.05)


# ---- the run


Outcomes = dict[tuple[ClientKind, ServerKind], dict[str, str]]
"""{cell: {feature that does not work: why}}."""


def run_matrix(
    directory: Path,
    form: Form | ClusterForm = "embedded",
    clients: Sequence[ClientKind] = CLIENTS,
    servers: Sequence[ServerKind] = SERVERS,
) -> Outcomes:
    """Let every client use every feature of every server, several at once. directory: an empty one."""
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
    gaps = {feature for client, server, feature in known_gaps() if (client, server) == (client_kind.name, server_kind.name)}
    untried = [name for name in (*FEATURES, *FEATURES_ALONE) if name not in gaps]
    failures: dict[str, str] = {}

    async def use(features: Mapping[str, Feature], cell: Cell) -> None:
        for name in [name for name in features if name in untried]:
            untried.remove(name)
            try:
                async with asyncio.timeout(_FIRST_TIMEOUT_S if features[name] is lists else _FEATURE_TIMEOUT_S):
                    await features[name](cell)
            except Exception as error:
                failures[name] = f"{type(error).__name__}: {error}"[:500]

    async def converse() -> None:
        mode = "legacy" if client_kind.era == "legacy" else REVISION["modern"]
        async with AsyncExitStack() as connection:
            async with turns.beside_others(server_kind):
                url = client_kind.url(site.gateway, server_kind.backend)
                entering = connected(url, mode, extensions=[sdk_apps.ShowsInterfaces()])
                client, heard = await connection.enter_async_context(entering)
                cell = Cell(site, client_kind, server_kind, client, heard)
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
    counters: dict[ServerKind, str | Path] = {}
    with ExitStack() as stack:
        for kind in servers:
            if kind.transport == "stdio":
                place = directory / kind.backend
                place.mkdir()
                command = [sys.executable, str(_EVERYTHING), "--transport", "stdio", "--era", kind.era, "--name", kind.backend]
                command += ["--page-size", str(_PAGE_SIZE), "--counters-dir", str(place), "--tasks", "--apps"]
                # What is subscribed to at a process of one node would be changed at that of another: one for all, as on one node.
                once = {"one_per_cluster": True} if form in CLUSTERS and kind.era == "modern" else {}
                backends.append({"name": kind.backend, "command": command, **once})
                counters[kind] = place
            else:
                server = start_sdk_server(
                    name=kind.backend, era=kind.era, page_size=_PAGE_SIZE, transport=kind.transport, tasks=True, apps=True
                )
                running = stack.enter_context(server)
                backends.append({"name": kind.backend, "replicas": [running.url]})
                counters[kind] = f"http://127.0.0.1:{running.port}/counters"
        (directory / "gateway").mkdir()
        yield Site(stack.enter_context(start_in(directory / "gateway", form, backends)), counters)


# ---- the gaps that are known


def known_gaps() -> dict[tuple[str, str, str], str]:
    """{(name of the client, name of the server, feature): reason}, as written in the repository. They are not tried."""
    listed = tomllib.loads(_GAPS.read_text()).get("gap", [])
    return {
        (client, server, feature): gap["reason"]
        for gap in listed
        for client in gap["clients"]
        for server in gap["servers"]
        for feature in gap["features"]
    }
