"""What MCP has, feature by feature, as a client of the matrix must be able to use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference

from tests.doubles import sdk_apps
from tests.end_to_end.python_client import Record, all_pages, eventually, text_of

PAGE_SIZE = 5
"""Of the servers' lists of tools."""

Tags = Callable[[str], Sequence[str]]
"""Tags of `slow` calls that were "started" or "cancelled", in whichever process of a server."""


@attrs.frozen
class Cell:
    """One client that talks to one server.

    tag:         of nobody else.
    server_tags: of the calls of its server, its own among them.
    """

    tag: str
    is_modern: bool
    client: Any
    heard: Record
    server_tags: Tags


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
    assert {len(page) for page in pages[:3]} == {PAGE_SIZE}


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
        while cell.tag not in await asyncio.to_thread(cell.server_tags, event):
            await asyncio.sleep(0.05)
