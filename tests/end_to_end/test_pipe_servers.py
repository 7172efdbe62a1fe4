"""The official Python client uses every feature of servers behind stdio, HTTP+SSE and WebSocket, through the gateway."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from mcp.shared.exceptions import MCPError

from tests.conftest import StartGateway
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.python_client import all_pages, connected, run, text_of
from tests.end_to_end.running_gateway import RunningGateway

EVERYTHING = Path(__file__).parents[1] / "doubles" / "everything_server.py"
# (transport of the server, its era, that of the client, form of the gateway): each transport in both eras, and each form.
SETTINGS = [
    ("stdio", "legacy", "legacy", "embedded"),
    ("stdio", "modern", "modern", "embedded"),
    ("stdio", "legacy", "legacy", "two cells"),
    ("stdio", "modern", "modern", "node"),
    ("stdio", "legacy", "modern", "embedded"),
    ("stdio", "modern", "legacy", "two cells"),
    ("sse", "legacy", "legacy", "node"),
    ("sse", "legacy", "modern", "embedded"),
    ("sse", "modern", "modern", "embedded"),
    ("websocket", "legacy", "legacy", "embedded"),
    ("websocket", "modern", "modern", "two cells"),
    ("websocket", "legacy", "modern", "two cells"),
    ("websocket", "modern", "legacy", "embedded"),
]


@attrs.frozen
class Setting:
    """era: the client's."""

    gateway: RunningGateway
    era: str
    transport: str
    server_url: str
    counters_dir: Path

    @property
    def mode(self) -> str:
        return "legacy" if self.era == "legacy" else "2026-07-28"

    def connected(self, **options: Any) -> Any:
        return connected(self.gateway.endpoint(), self.mode, **options)

    def counters(self) -> dict[str, list[str]]:
        """Tags of `slow` calls that were "started" and "cancelled", in whichever process of the server."""
        if self.transport == "stdio":
            found = [json.loads(path.read_text()) for path in self.counters_dir.glob("*.json")]
        else:
            base = self.server_url.removeprefix("sse+").replace("ws:", "http:").rpartition("/")[0]
            with urllib.request.urlopen(f"{base}/counters", timeout=5) as answer:
                found = [json.load(answer)]
        return {key: [tag for each in found for tag in each[key]] for key in ("started", "cancelled")}

    async def wait_for(self, event: str, tag: str) -> None:
        async with asyncio.timeout(5):
            while tag not in (await asyncio.to_thread(self.counters))[event]:
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module", params=SETTINGS, ids=" ".join)
def setting(
    request: pytest.FixtureRequest, start_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    transport, era, client_era, form = request.param
    counters_dir = tmp_path_factory.mktemp("counters")
    with ExitStack() as stack:
        if transport == "stdio":
            command = [sys.executable, str(EVERYTHING), "--transport", "stdio", "--era", era, "--page-size", "5", "--name", "all"]
            command += ["--counters-dir", str(counters_dir)]
            backend: dict[str, Any] = {"name": "all", "prefix": "", "command": command}
            url = ""
        else:
            server = stack.enter_context(start_sdk_server(name="all", era=era, page_size=5, transport=transport))
            url = server.url
            backend = {"name": "all", "prefix": "", "replicas": [url]}
        gateway = stack.enter_context(start_gateway(form, [backend]))
        yield Setting(gateway, client_era, transport, url, counters_dir)
        assert gateway.restart_count() == 0


def test_it_reads_who_serves_and_lists_everything(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected() as (client, _):
            pages = await all_pages(client.list_tools, "tools", "name")
            assert len(pages) >= 4
            assert {"echo", "elicit", "progress"} <= {name for page in pages for name in page}
            resources = await client.list_resources()
            assert {str(resource.uri) for resource in resources.resources} >= {"test://static", "test://blob"}
            assert (await client.read_resource("test://static")).contents[0].text == "static text"  # type: ignore[union-attr]
            prompt = await client.get_prompt("greet", {"name": "Ada"})
            assert prompt.messages[0].content.text == "Say hello to Ada."  # type: ignore[union-attr]

    run(converse())


def test_calls_at_once_get_their_own_answers_and_progress(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected() as (client, _), setting.connected() as (other, _):
            seen: dict[int, list[float]] = {1: [], 2: []}

            def watcher(number: int) -> Any:
                async def note(progress: float, total: float | None, message: str | None) -> None:
                    seen[number].append(progress)

                return note

            arguments = {"steps": 5, "delay_s": 0.01}
            results = await asyncio.gather(
                client.call_tool("progress", arguments, progress_callback=watcher(1)),
                other.call_tool("progress", arguments, progress_callback=watcher(2)),
                *(each.call_tool("echo", {"message": f"{number}"}) for number in range(20) for each in (client, other)),
            )
            assert seen == {1: [1, 2, 3, 4, 5], 2: [1, 2, 3, 4, 5]}
            assert [text_of(result) for result in results[2:]] == [f"{number}" for number in range(20) for _ in range(2)]

    run(converse())


def test_a_call_that_its_client_gives_up_is_cancelled_at_the_server(setting: Setting) -> None:
    tag = f"cancel {setting.gateway.form}"

    async def converse() -> None:
        async with setting.connected() as (client, _):
            call = asyncio.create_task(client.call_tool("slow", {"seconds": 30, "tag": tag}))
            await setting.wait_for("started", tag)
            call.cancel()
            await setting.wait_for("cancelled", tag)
            assert text_of(await client.call_tool("echo", {"message": "alive"})) == "alive"

    run(converse())


def test_the_server_asks_the_client_whose_call_is_open_and_no_other(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected(name="Ada") as (ada, heard_ada), setting.connected(name="Alan") as (alan, heard_alan):
            results = await asyncio.gather(
                ada.call_tool("elicit", {}),
                alan.call_tool("sample", {"prompt": "life"}),
                ada.call_tool("roots", {}),
                alan.call_tool("elicit", {}),
            )
            assert [text_of(result) for result in results] == [
                "accept: Hello, Ada!",
                "model of Alan: about life",
                "file:///Ada",
                "accept: Hello, Alan!",
            ]
            assert sorted(heard_ada.questions) == ["elicitation", "roots"]
            assert sorted(heard_alan.questions) == ["elicitation", "sampling: life"]

    run(converse())


def test_log_messages_reach_their_caller_and_no_other_client(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected() as (client, heard), setting.connected() as (_, other):
            if setting.era == "legacy":
                await client.set_logging_level("info")
                await client.call_tool("log", {"message": "mine", "count": 3})
            else:
                meta: Any = {"io.modelcontextprotocol/logLevel": "info"}
                await client.call_tool("log", {"message": "mine", "count": 3}, meta=meta)
            await heard.wait_for(lambda record: len(record.logs) == 3)
            assert [log["number"] for log in heard.logs] == [0, 1, 2]
            assert other.logs == []

    run(converse())


def test_changes_are_told_to_who_listens(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected() as (client, heard):
            if setting.era == "legacy":
                await client.call_tool("add_tool", {"name": "added"})
                await heard.wait_for(lambda record: "notifications/tools/list_changed" in record.notifications)
                await client.subscribe_resource("test://static")
                await client.call_tool("touch", {})
                await heard.wait_for(lambda record: record.updated_uris == ["test://static"])
            else:
                async with client.listen(tools_list_changed=True, resource_subscriptions=["test://static"]) as subscription:
                    await client.call_tool("add_tool", {"name": "added"})
                    assert type(await anext(subscription)).__name__ == "ToolsListChanged"
                    await client.call_tool("touch", {})
                    assert type(await anext(subscription)).__name__ == "ResourceUpdated"
            await client.call_tool("remove_tool", {"name": "added"})

    run(converse())


def test_errors_of_the_server_reach_the_client_as_they_are(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected() as (client, _):
            assert (await client.call_tool("fail", {"message": "as asked"})).is_error
            with pytest.raises(MCPError):
                await client.read_resource("test://nothing")

    run(converse())
