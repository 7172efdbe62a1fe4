"""A real MCP server that uses every feature, built with the official Python SDK and run as a process of its own.

Prints one JSON line `{"port": N, "pid": N}` once it listens on loopback, and ends when its standard input closes, so that
it never outlives the test that started it. `GET /counters` tells what happened inside, see `Counters`.
"""

import argparse
import asyncio
import base64
import functools
import json
import os
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import anyio
import mcp.server.runner as runner_module
import mcp.server.streamable_http_manager as manager_module
import mcp_types as types
import uvicorn
from mcp.server import NotificationOptions
from mcp.server._streamable_http_modern import handle_modern_request
from mcp.server.mcpserver import Context, Elicit, ElicitationResult, ListRoots, MCPServer, Resolve, Sample
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.message import SessionMessage
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

if __name__ == "__main__":  # started by its path, behind stdio
    sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.doubles.sdk_apps import add_apps
from tests.doubles.sdk_tasks import add_tasks

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


class Person(BaseModel):
    name: str


class Counters:
    """calls: {tool: times its body ran}; started, cancelled, finished: tags of `slow`; levels and watched: per session id."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.finished: list[str] = []
        self.levels: dict[str, str] = {}
        self.watched: dict[str, list[str]] = {}

    def shown(self) -> dict[str, Any]:
        return {**vars(self), "calls": dict(self.calls), "pid": os.getpid()}


def write_counters(counters: Counters, directory: str) -> None:
    """Keep a file with what happened in this process: behind stdio there is no other way to ask it."""
    path = Path(directory) / f"{os.getpid()}.json"
    shown = ""
    while True:
        now = json.dumps(counters.shown())
        if now != shown:
            path.with_suffix(".new").write_text(now)
            path.with_suffix(".new").rename(path)
            shown = now
        time.sleep(0.02)


def session_id(request: Any) -> str:
    return (request.headers.get("mcp-session-id") if request is not None else None) or ""


def build(options: argparse.Namespace) -> MCPServer[Any]:
    """The server with all its tools, resources and prompts."""
    server: MCPServer[Any] = MCPServer(
        options.name,
        title="Everything",
        version="9.8.7",
        instructions=f"I am {options.name}.",
        log_level="CRITICAL",
        warn_on_duplicate_tools=False,
    )
    counters = Counters()
    add_tools(server, counters, options)
    add_interactive_tools(server, counters)
    if options.midway:
        add_midway_tool(server, counters)
    if options.tasks:
        add_tasks(server)
    if options.apps:
        add_apps(server)
    add_resources_and_prompts(server)
    add_session_methods(server, counters, options)
    if options.counters_dir:
        threading.Thread(target=write_counters, args=(counters, options.counters_dir), daemon=True).start()

    @server.custom_route("/counters", methods=["GET"])
    async def show_counters(request: Request) -> Response:
        open_sessions = len(server.session_manager._server_instances) if options.transport == "streamable-http" else 0
        return JSONResponse({**counters.shown(), "sessions": open_sessions})

    return server


def add_tools(server: MCPServer[Any], counters: Counters, options: argparse.Namespace) -> None:
    @server.tool(description="Returns its message.", annotations=types.ToolAnnotations(read_only_hint=True))
    def echo(message: str) -> str:
        counters.calls["echo"] += 1
        return message

    @server.tool(description="Adds two integers.", annotations=types.ToolAnnotations(idempotent_hint=True))
    def add(a: int, b: int) -> int:
        counters.calls["add"] += 1
        return a + b

    @server.tool(description="Who answers, and what reached it.")
    def whoami(ctx: Context[Any, Any]) -> dict[str, Any]:
        counters.calls["whoami"] += 1
        client = ctx.session.client_params
        return {
            "name": options.name,
            "pid": os.getpid(),
            "protocol_version": ctx.protocol_version,
            "session_id": session_id(ctx.request_context.request),
            "client": client.client_info.name if client else None,
            "headers": dict(ctx.headers or {}),
        }

    @server.tool(description="Counts the calls of this process.")
    def count() -> int:
        counters.calls["count"] += 1
        return counters.calls["count"]

    @server.tool(description="Fails with a tool error.")
    def fail(message: str = "failed as asked") -> str:
        counters.calls["fail"] += 1
        raise ToolError(message)

    @server.tool(description="Returns a text of this many bytes.")
    def big(size_bytes: int) -> str:
        counters.calls["big"] += 1
        return "x" * size_bytes

    @server.tool(description="Ends the process at once.")
    def crash() -> str:
        os._exit(70)

    @server.tool(description="Reports progress in steps, and ends when there is a file of this name, if one is given.")
    async def progress(ctx: Context[Any, Any], steps: int = 3, until: str = "") -> str:
        counters.calls["progress"] += 1
        for step in range(1, steps + 1):
            await ctx.report_progress(step, steps, f"step {step}")
        async with asyncio.timeout(15):
            while until and not await asyncio.to_thread(os.path.exists, until):
                await asyncio.sleep(0.01)
        return f"{steps} steps"

    @server.tool(description="Sends log messages to its caller.")
    async def log(ctx: Context[Any, Any], message: str, level: str = "info", count: int = 1) -> str:
        counters.calls["log"] += 1
        lowest = counters.levels.get(session_id(ctx.request_context.request), "debug")
        if LEVELS.index(level) >= LEVELS.index(lowest):
            for number in range(count):
                await ctx.log(level, {"message": message, "number": number}, logger_name="everything")  # type: ignore[arg-type]
        return "logged"

    @server.tool(description="Takes its time, can be cancelled, and remembers that it was.")
    async def slow(seconds: float, tag: str = "slow") -> str:
        counters.calls["slow"] += 1
        counters.started.append(tag)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            counters.cancelled.append(tag)
            raise
        counters.finished.append(tag)
        return f"slept {seconds:g} s"

    @server.tool(description="Adds a tool of this name and tells everybody.")
    async def add_tool(ctx: Context[Any, Any], name: str) -> str:
        server.add_tool(lambda: f"I am {name}", name=name, description="Added later.")
        await ctx.session.send_tool_list_changed()
        await ctx.notify_tools_changed()
        return f"added {name}"

    @server.tool(description="Removes a tool of this name and tells everybody.")
    async def remove_tool(ctx: Context[Any, Any], name: str) -> str:
        server.remove_tool(name)
        await ctx.session.send_tool_list_changed()
        await ctx.notify_tools_changed()
        return f"removed {name}"

    @server.tool(description="Says that a resource has changed.")
    async def touch(ctx: Context[Any, Any], uri: str = "test://static") -> str:
        if uri in counters.watched.get(session_id(ctx.request_context.request), []):
            await ctx.session.send_resource_updated(uri)
        await ctx.notify_resource_updated(uri)
        return f"touched {uri}"

    for number in range(options.extra_tools):
        server.add_tool(lambda: "extra", name=f"extra_{number:04}", description="One of many.")


def add_interactive_tools(server: MCPServer[Any], counters: Counters) -> None:
    """Tools that need the client: requests to it in a legacy session, `input_required` results in a modern exchange.

    `counters.calls` counts a body only once all its questions are answered.
    """

    def ask_name() -> Elicit[Person]:
        return Elicit("What is your name?", Person)

    def ask_model(prompt: str) -> Sample:
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text=prompt))
        return Sample([message], max_tokens=50)

    def ask_roots() -> ListRoots:
        return ListRoots()

    @server.tool(description="Asks the user for a name and greets.")
    async def elicit(person: Annotated[ElicitationResult[Person], Resolve(ask_name)]) -> str:
        counters.calls["elicit"] += 1
        return f"accept: Hello, {person.data.name}!" if person.action == "accept" else person.action

    @server.tool(description="Asks the client's model.")
    async def sample(prompt: str, answer: Annotated[types.CreateMessageResult, Resolve(ask_model)]) -> str:
        counters.calls["sample"] += 1
        return f"{answer.model}: {getattr(answer.content, 'text', answer.content)}"

    @server.tool(description="Lists the client's roots.")
    async def roots(found: Annotated[types.ListRootsResult, Resolve(ask_roots)]) -> str:
        counters.calls["roots"] += 1
        return ", ".join(str(root.uri) for root in found.roots)


def add_midway_tool(server: MCPServer[Any], counters: Counters) -> None:
    @server.tool(description="Counts its run, then asks in the middle of it; only a legacy session has a way to ask.")
    async def midway(ctx: Context[Any, Any], tag: str = "midway", questions: int = 1) -> str:
        counters.calls["midway"] += 1
        counters.started.append(tag)
        names = []
        try:
            for number in range(questions):
                answered = await ctx.elicit(f"Name {number}?", Person)
                names.append(answered.data.name if answered.action == "accept" else answered.action)
        except asyncio.CancelledError:
            counters.cancelled.append(tag)
            raise
        counters.finished.append(tag)
        return ", ".join(names)


def add_resources_and_prompts(server: MCPServer[Any]) -> None:
    @server.resource("test://static", name="static", mime_type="text/plain")
    def static() -> str:
        return "static text"

    @server.resource("test://blob", name="blob", mime_type="application/octet-stream")
    def blob() -> bytes:
        return bytes(range(256))

    @server.resource("test://item/{item_id}", name="item", mime_type="application/json")
    def item(item_id: str) -> str:
        return json.dumps({"item": item_id, "checksum": base64.b16encode(item_id.encode()).decode()})

    @server.prompt(title="Greet", description="Greets somebody.")
    def greet(name: str) -> str:
        return f"Say hello to {name}."

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> types.Completion:
        values = [name for name in ("Ada", "Alan", "Barbara", "Edsger") if name.startswith(argument.value)]
        return types.Completion(values=values, total=len(values), has_more=False)


def add_session_methods(server: MCPServer[Any], counters: Counters, options: argparse.Namespace) -> None:
    """What the high-level server leaves out: log levels, subscriptions of legacy sessions, and pages."""
    low_level = server._lowlevel_server

    async def set_level(ctx: Any, params: types.SetLevelRequestParams) -> types.EmptyResult:
        counters.levels[session_id(ctx.request)] = params.level
        return types.EmptyResult()

    async def subscribe(ctx: Any, params: types.SubscribeRequestParams) -> types.EmptyResult:
        counters.watched.setdefault(session_id(ctx.request), []).append(str(params.uri))
        return types.EmptyResult()

    async def unsubscribe(ctx: Any, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        counters.watched.get(session_id(ctx.request), []).remove(str(params.uri))
        return types.EmptyResult()

    async def list_tools(ctx: Any, params: types.PaginatedRequestParams) -> types.ListToolsResult:
        tools = await server.list_tools()
        if not options.page_size:
            return types.ListToolsResult(tools=tools)
        start = int(params.cursor) if params.cursor else 0
        end = start + options.page_size
        return types.ListToolsResult(tools=tools[start:end], next_cursor=str(end) if end < len(tools) else None)

    low_level.add_request_handler("logging/setLevel", types.SetLevelRequestParams, set_level)
    low_level.add_request_handler("resources/subscribe", types.SubscribeRequestParams, subscribe)
    low_level.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, unsubscribe)
    low_level.add_request_handler("tools/list", types.PaginatedRequestParams, list_tools)
    # The HTTP session manager gives no way to announce listChanged, although the server sends the notifications.
    changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    low_level.create_initialization_options = functools.partial(  # type: ignore[method-assign]
        low_level.create_initialization_options, changes
    )


def websocket_app(server: MCPServer[Any]) -> Starlette:
    """The server's sessions behind WebSockets at /ws, and its own routes. The SDK brings no such transport any more."""

    async def serve(socket: WebSocket) -> None:
        await socket.accept(subprotocol="mcp")
        heard, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, said = anyio.create_memory_object_stream[SessionMessage](0)

        async def hear() -> None:
            async with heard:
                async for text in socket.iter_text():
                    await heard.send(SessionMessage(types.jsonrpc_message_adapter.validate_json(text, by_name=False)))

        async def say() -> None:
            async for message in said:
                await socket.send_text(message.message.model_dump_json(by_alias=True, exclude_unset=True))

        low_level = server._lowlevel_server
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            tasks.start_soon(say)
            await low_level.run(incoming, outgoing, low_level.create_initialization_options())
            tasks.cancel_scope.cancel()

    return Starlette(routes=[WebSocketRoute("/ws", serve), *server._custom_starlette_routes])


class EveryVersion:
    """A set that contains every version: the session manager then takes no request for a modern one."""

    def __contains__(self, version: object) -> bool:
        return True


def restrict_to(era: str) -> None:
    """Make this process a server of one era; the code that answers stays the SDK's own."""
    if era == "legacy":
        manager_module.HANDSHAKE_PROTOCOL_VERSIONS = EveryVersion()  # type: ignore[misc,assignment]
        runner_module._has_modern_envelope = lambda params: False  # type: ignore[assignment]
    elif era == "modern":

        async def modern_only(self: Any, scope: Any, receive: Any, send: Any) -> None:
            await handle_modern_request(
                self.app, self.security_settings, self.json_response, self._lifespan_state, scope, receive, send
            )

        manager_module.StreamableHTTPSessionManager._handle_request = modern_only  # type: ignore[method-assign]

        async def modern_stream_only(
            server: Any, streams: Any, replies: Any, *, lifespan_state: Any, raise_exceptions: bool, **_: Any
        ) -> None:
            await runner_module._serve_modern_stream(
                server, streams, replies, lifespan_state=lifespan_state, raise_exceptions=raise_exceptions
            )

        runner_module._serve_legacy_stream = modern_stream_only  # type: ignore[assignment]


def end_with_parent() -> None:
    """Leave as soon as nobody holds our standard input any more."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def listen_and_serve(app: Any, port: int) -> None:
    """Serve on loopback until the parent ends; say where, in one line of standard output. port: 0 takes a free one."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    threading.Thread(target=end_with_parent, daemon=True).start()
    print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
    # With its other parser, which it takes where the gateway's httptools is installed, it refuses less than the suite asks for.
    config = uvicorn.Config(app, http="h11", log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="everything")
    parser.add_argument("--era", choices=("both", "legacy", "modern"), default="both")
    parser.add_argument("--stateless", action="store_true")
    parser.add_argument("--json-response", action="store_true")
    parser.add_argument("--page-size", type=int, default=0, help="tools in one page; 0: all in one")
    parser.add_argument("--extra-tools", type=int, default=0)
    parser.add_argument("--tasks", action="store_true", help="with tasks, and tools that can be called as one")
    parser.add_argument("--apps", action="store_true", help="with a tool that has an interface")
    parser.add_argument("--midway", action="store_true", help="with a tool that asks in the middle of its run")
    parser.add_argument("--counters-dir", default="", help="where each process writes what happened inside, as PID.json")
    transports = ("streamable-http", "sse", "websocket", "stdio")
    parser.add_argument("--transport", choices=transports, default="streamable-http")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    server = build(options)
    restrict_to(options.era)
    if options.transport == "stdio":
        server.run("stdio")
        return
    if options.transport == "sse":
        app = server.sse_app()
    elif options.transport == "websocket":
        app = websocket_app(server)
    else:
        app = server.streamable_http_app(stateless_http=options.stateless, json_response=options.json_response)
    listen_and_serve(app, options.port)


if __name__ == "__main__":
    main()
