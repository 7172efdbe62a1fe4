"""Tasks for servers of the official SDK, which has none: those of revision 2025-11-25, and the extension of 2026-07-28.

Source: MCP 2025-11-25, basic/utilities/tasks; extension `io.modelcontextprotocol/tasks` (SEP-2663), specification/draft/tasks.
"""

import asyncio
import datetime
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
TERMINAL = frozenset({"completed", "failed", "cancelled"})
TTL_MS, POLL_MS = 60_000, 50

Json = dict[str, Any]
Ask = Callable[[str, Json], Awaitable[Json]]
"""Puts a question to the client, (method, params), and waits for its answer."""
Job = Callable[[Json, Ask], Awaitable[str]]
"""The work of a tool: (arguments, ask) -> its text. A ToolFailed becomes a result with `isError`, an MCPError an error."""


class ToolFailed(Exception):
    """The tool has run and failed."""


class TaskTool:
    """A tool that may run as a task. is_required: or must.

    first: what a client is asked before there is a task: its answer becomes the argument of this name.
    """

    def __init__(self, name: str, job: Job, properties: Json, *, is_required: bool = False, first: str = "") -> None:
        self.name = name
        self.job = job
        self.first = first
        self.support = "required" if is_required else "optional"
        schema = {"type": "object", "properties": properties}
        self.listed = {"name": name, "description": "Can be a task.", "inputSchema": schema}


class Task:
    """One task. owner: the session that it belongs to, if any. questions: {key: (method, params, its answer to come)}."""

    def __init__(self, owner: str | None, ttl_ms: int) -> None:
        self.id = secrets.token_urlsafe(12)
        self.owner = owner
        self.ttl_ms = ttl_ms
        self.status = "working"
        self.created = self.updated = _now()
        self.questions: dict[str, tuple[str, Json, asyncio.Future[Json]]] = {}
        self.result: Json | None = None
        self.error: types.ErrorData | None = None
        self.changed = asyncio.Event()
        self.work: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    def become(self, status: str) -> None:
        if self.is_over or status == self.status:
            return
        self.status, self.updated = status, _now()
        self.touch()

    def touch(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def legacy(self) -> Json:
        shown = {"taskId": self.id, "status": self.status, "createdAt": self.created, "lastUpdatedAt": self.updated}
        return {**shown, "ttl": self.ttl_ms, "pollInterval": POLL_MS}

    def modern(self) -> Json:
        shown = self.legacy()
        shown.update(ttlMs=shown.pop("ttl"), pollIntervalMs=shown.pop("pollInterval"))
        return shown

    def detailed(self) -> Json:
        shown = self.modern()
        if self.status == "input_required":
            shown["inputRequests"] = {
                key: {"method": method, "params": params} for key, (method, params, _) in self.questions.items()
            }
        elif self.status == "completed":
            shown["result"] = self.result
        elif self.error is not None:
            shown["error"] = self.error.model_dump(mode="json", exclude_none=True)
        return shown


class Tasks:
    """A middleware of the SDK's server: it answers what tasks need, and lets all else pass."""

    def __init__(self, tools: list[TaskTool]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._tasks: dict[str, Task] = {}
        self._serving = {
            "tools/call": self._call,
            "tasks/get": self._get,
            "tasks/result": self._result,
            "tasks/list": self._list,
            "tasks/update": self._update,
            "tasks/cancel": self._cancel,
        }

    async def __call__(self, ctx: Any, call_next: Any) -> Any:
        params: Json = dict(ctx.params or {})
        if ctx.method == "subscriptions/listen" and (params.get("notifications") or {}).get("taskIds"):
            self._check_declared(ctx)
            return await self._listen(ctx, params["notifications"])
        serve = self._serving.get(ctx.method)
        if serve is not None and (ctx.method != "tools/call" or params.get("name") in self._tools):
            return await serve(ctx, params)
        result = await call_next(ctx)
        return self._announced(ctx, result) if isinstance(result, dict) else result

    def _announced(self, ctx: Any, result: Json) -> Json:
        if ctx.method == "initialize" and result["protocolVersion"] == "2025-11-25":
            tasks = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
            return {**result, "capabilities": {**result["capabilities"], "tasks": tasks}}
        if ctx.method == "server/discover":
            announced = {**(result["capabilities"].get("extensions") or {}), EXTENSION: {}}
            return {**result, "capabilities": {**result["capabilities"], "extensions": announced}}
        if ctx.method == "tools/list" and not result.get("nextCursor"):
            has_execution = not _is_modern(ctx)
            listed = [
                {**tool.listed, "execution": {"taskSupport": tool.support}} if has_execution else tool.listed
                for tool in self._tools.values()
            ]
            return {**result, "tools": [*result["tools"], *listed]}
        return result

    # ---- requests

    async def _call(self, ctx: Any, params: Json) -> Json:
        tool, arguments = self._tools[params["name"]], dict(params.get("arguments") or {})
        is_declared = _is_declared(ctx) if _is_modern(ctx) else "task" in params
        if tool.support == "required" and not is_declared:
            if _is_modern(ctx):
                self._check_declared(ctx)
            raise MCPError(types.METHOD_NOT_FOUND, f"{tool.name} must be called as a task")
        if tool.first:
            asked = ("elicitation/create", _form(tool.first))
            if _is_modern(ctx):
                answer = (params.get("inputResponses") or {}).get("first")
                if answer is None:
                    return {"resultType": "input_required", "inputRequests": {"first": {"method": asked[0], "params": asked[1]}}}
            else:
                answer = await _asked_now(ctx, *asked)
            arguments[tool.first] = (answer.get("content") or {}).get("name")
        if not is_declared:

            async def ask(method: str, question: Json) -> Json:
                return await _asked_now(ctx, method, question)

            return {**(await _outcome(tool.job, arguments, ask)), **({"resultType": "complete"} if _is_modern(ctx) else {})}
        ttl_ms = (params.get("task") or {}).get("ttl", TTL_MS)
        task = Task(None if _is_modern(ctx) else _session_of(ctx), ttl_ms)
        self._tasks[task.id] = task
        connection = ctx.session._connection
        task.work = asyncio.create_task(self._work(task, tool, arguments, connection))
        return {"resultType": "task", **task.modern()} if _is_modern(ctx) else {"task": task.legacy()}

    async def _work(self, task: Task, tool: TaskTool, arguments: Json, connection: Any) -> None:
        async def ask(method: str, params: Json) -> Json:
            answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
            task.questions[secrets.token_urlsafe(6)] = (method, params, answer)
            await tell("input_required")
            task.touch()
            found = await answer
            if not task.questions:
                await tell("working")
            return found

        async def tell(status: str) -> None:
            before = task.status
            task.become(status)
            if task.status != before and connection.protocol_version not in MODERN_PROTOCOL_VERSIONS:
                await connection.notify("notifications/tasks/status", task.legacy())

        try:
            task.result = await _outcome(tool.job, arguments, ask)
            has_failed = task.result["isError"] and connection.protocol_version not in MODERN_PROTOCOL_VERSIONS
            await tell("failed" if has_failed else "completed")
        except MCPError as error:
            task.error = error.error
            await tell("failed")
        except asyncio.CancelledError:
            task.error = types.ErrorData(code=types.INTERNAL_ERROR, message="The task was cancelled.")
            await tell("cancelled")

    async def _get(self, ctx: Any, params: Json) -> Json:
        task = self._found(ctx, params)
        return {"resultType": "complete", **task.detailed()} if _is_modern(ctx) else task.legacy()

    async def _result(self, ctx: Any, params: Json) -> Json:
        """Wait for the end, and ask on the stream of this very request what the task needs."""
        _check_era(ctx, is_modern=False)
        task = self._found(ctx, params)
        asked: dict[str, asyncio.Task[None]] = {}
        try:
            while not task.is_over:
                changed = task.changed
                for key in task.questions.keys() - asked.keys():
                    asked[key] = asyncio.create_task(self._ask_now(ctx, task, key))
                await changed.wait()
        finally:
            for asking in asked.values():
                asking.cancel()
        if task.error is not None:
            raise MCPError.from_error_data(task.error)
        assert task.result is not None
        return {**task.result, "_meta": {RELATED: {"taskId": task.id}}}

    async def _ask_now(self, ctx: Any, task: Task, key: str) -> None:
        method, params, _ = task.questions[key]
        answer = await _asked_now(ctx, method, {**params, "_meta": {RELATED: {"taskId": task.id}}})
        self._answer(task, key, answer)

    async def _list(self, ctx: Any, params: Json) -> Json:
        _check_era(ctx, is_modern=False)
        owner = _session_of(ctx)
        listed = [task.legacy() for task in self._tasks.values() if task.owner == owner]
        start = int(params.get("cursor") or 0)
        more = {"nextCursor": str(start + 2)} if len(listed) > start + 2 else {}
        return {"tasks": listed[start : start + 2], **more}

    async def _update(self, ctx: Any, params: Json) -> Json:
        _check_era(ctx, is_modern=True)
        task = self._found(ctx, params)
        for key, answer in params["inputResponses"].items():
            self._answer(task, key, answer)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: Any, params: Json) -> Json:
        task = self._found(ctx, params)
        if task.is_over and not _is_modern(ctx):
            raise MCPError(types.INVALID_PARAMS, f"Cannot cancel task: already in terminal status {task.status!r}")
        if task.work is not None and not task.is_over:
            task.work.cancel()
            await asyncio.wait({task.work})
        return {"resultType": "complete"} if _is_modern(ctx) else task.legacy()

    async def _listen(self, ctx: Any, wanted: Json) -> Json:
        """A subscription to tasks alone: what each is now, and whenever it changes."""
        tasks = [task for task_id in wanted["taskIds"] if (task := self._tasks.get(task_id)) is not None]
        meta = {"io.modelcontextprotocol/subscriptionId": ctx.request_id}
        channel = ctx.session._request_outbound
        honoured = {"taskIds": [task.id for task in tasks]}
        await channel.notify("notifications/subscriptions/acknowledged", {"_meta": meta, "notifications": honoured})

        async def follow(task: Task) -> None:
            while True:
                changed = task.changed
                await channel.notify("notifications/tasks", {"_meta": meta, **task.detailed()})
                await changed.wait()

        await asyncio.gather(*map(follow, tasks), asyncio.Event().wait())
        return {}

    # ---- parts

    @staticmethod
    def _answer(task: Task, key: str, answer: Json) -> None:
        found = task.questions.pop(key, None)
        if found is not None and not found[2].done():
            found[2].set_result(answer)

    def _found(self, ctx: Any, params: Json) -> Task:
        if _is_modern(ctx):
            self._check_declared(ctx)
            shown = ctx.request.headers.get("mcp-name") if ctx.request is not None else params.get("taskId")
            if shown != params.get("taskId"):
                raise MCPError(types.HEADER_MISMATCH, f"Mcp-Name is {shown!r}, params.taskId {params.get('taskId')!r}")
        task = self._tasks.get(params.get("taskId", ""))
        if task is None or (not _is_modern(ctx) and task.owner != _session_of(ctx)):
            raise MCPError(types.INVALID_PARAMS, "Failed to retrieve task: Task not found")
        return task

    @staticmethod
    def _check_declared(ctx: Any) -> None:
        if not _is_declared(ctx):
            data = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", data)


async def _outcome(job: Job, arguments: Json, ask: Ask) -> Json:
    try:
        text, is_error = await job(arguments, ask), False
    except ToolFailed as error:
        text, is_error = str(error), True
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


async def _asked_now(ctx: Any, method: str, params: Json) -> Json:
    """Ask on the stream of the request that is being served; only a legacy session has a way to."""
    answer: Json = await ctx.session._request_outbound.send_raw_request(method, params)
    return answer


def _is_modern(ctx: Any) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def _is_declared(ctx: Any) -> bool:
    capabilities = ctx.session.client_capabilities
    return EXTENSION in ((capabilities.extensions if capabilities else None) or {})


def _check_era(ctx: Any, *, is_modern: bool) -> None:
    if _is_modern(ctx) != is_modern:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found", ctx.method)


def _session_of(ctx: Any) -> str | None:
    session_id: str | None = ctx.session._connection.session_id
    return session_id


def _form(name: str) -> Json:
    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    return {"mode": "form", "message": f"What is {name}?", "requestedSchema": schema}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- the tools that the conformance suite knows, and tests use


async def _slow_compute(arguments: Json, ask: Ask) -> str:
    await asyncio.sleep(float(arguments.get("seconds", 0)))
    return f"computed {arguments.get('label', '')} in {arguments.get('seconds', 0)} s"


async def _failing_job(arguments: Json, ask: Ask) -> str:
    await asyncio.sleep(0.2)
    raise ToolFailed("failed as asked")


async def _protocol_error_job(arguments: Json, ask: Ask) -> str:
    await asyncio.sleep(0.2)
    raise MCPError(types.INTERNAL_ERROR, "broken as asked")


async def _confirm_delete(arguments: Json, ask: Ask) -> str:
    answer = await ask("elicitation/create", _form("confirm"))
    return f"{answer['action']}: {arguments.get('filename', '')}"


async def _multi_input(arguments: Json, ask: Ask) -> str:
    answers = await asyncio.gather(*(ask("elicitation/create", _form(name)) for name in ("one", "two")))
    return ", ".join(str((answer.get("content") or {}).get("name")) for answer in answers)


async def _greet_in_task(arguments: Json, ask: Ask) -> str:
    return f"Hello, {arguments['user_name']}!"


TOOLS: Mapping[str, TaskTool] = {
    tool.name: tool
    for tool in (
        TaskTool("slow_compute", _slow_compute, {"seconds": {"type": "number"}, "label": {"type": "string"}}),
        TaskTool("failing_job", _failing_job, {}, is_required=True),
        TaskTool("protocol_error_job", _protocol_error_job, {}),
        TaskTool("confirm_delete", _confirm_delete, {"filename": {"type": "string"}}),
        TaskTool("multi_input", _multi_input, {}),
        TaskTool("test_tool_with_task", _greet_in_task, {}, is_required=True, first="user_name"),
    )
}


def add_tasks(server: MCPServer[Any], names: list[str] | None = None) -> None:
    """Give the server tasks, and these tools that can run as one. names: all of TOOLS where None."""
    server._lowlevel_server.middleware.append(Tasks([TOOLS[name] for name in names or TOOLS]))
