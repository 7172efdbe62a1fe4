"""The official Python client uses every feature of a server of either era through the gateway, as if it spoke its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.python_client import MODES, all_pages, connected, eventually, run, text_of
from tests.end_to_end.running_cluster import CLUSTERS, ClusterForm, RunningCluster, start_in
from tests.end_to_end.running_gateway import FORMS, Form, RunningGateway, Transport

TOOLS = [
    "echo", "add", "whoami", "count", "fail", "big", "crash", "progress", "log", "slow",
    "add_tool", "remove_tool", "touch", "elicit", "sample", "roots",
]  # fmt: skip


# (form, how the client connects, era of the server, transport). A node of one cell differs from one of two by nothing that these
# tests could see: one pair of eras is enough for it.
SETTINGS: list[tuple[Form | ClusterForm, str, str, Transport]] = [
    *(
        (form, mode, era, "streamable_http")
        for form in FORMS
        for mode in MODES
        for era in ("legacy", "modern")
        if form != "node" or (mode, era) == ("legacy", "legacy")
    ),
    *((form, "legacy", "legacy", "http_sse") for form in FORMS if form != "node"),
    *((form, "legacy", "legacy", "websocket") for form in FORMS if form != "node"),
    *((form, "2026-07-28", "modern", "websocket") for form in FORMS if form != "node"),
]
BALANCED = [
    pytest.param((form, mode, era, "streamable_http"), marks=pytest.mark.slow)
    for form in CLUSTERS
    for mode in MODES
    for era in ("legacy", "modern")
]


@pytest.fixture(scope="module", params=[*SETTINGS, *BALANCED], ids=lambda each: f"{each[0]}, {each[1]} client, {each[2]} server")
def setting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, legacy_server: SdkServer, modern_server: SdkServer
) -> Iterator[tuple[RunningGateway | RunningCluster, SdkServer, str]]:
    """(gateway, the one server behind it, how the client shall connect)."""
    form, mode, era, transport = request.param
    server = legacy_server if era == "legacy" else modern_server
    backends = [{"name": "all", "prefix": "", "replicas": [server.url]}]
    with start_in(tmp_path_factory.mktemp("gateway"), form, backends) as gateway:
        gateway.transport = transport
        yield gateway, server, mode
        assert gateway.restart_count() == 0


Setting = tuple[RunningGateway | RunningCluster, SdkServer, str]


@pytest.mark.parametrize("opening", ["legacy", "auto"])
def test_it_speaks_the_newest_revision_of_its_era_and_reads_who_serves(setting: Setting, opening: str) -> None:
    """A client that knows both eras finds the newer one, whatever the server speaks."""
    gateway, server, _ = setting
    name = server.name  # the servers of these tests are named after their eras

    async def converse() -> None:
        async with connected(gateway.endpoint(), opening) as (client, _):
            assert client.protocol_version == ("2025-11-25" if opening == "legacy" else "2026-07-28")
            assert client.server_capabilities.tools is not None
            assert client.server_info is not None
            assert (client.server_info.name, client.instructions) == (name, f"I am {name}.")

    run(converse())


def test_it_lists_every_tool_over_the_servers_own_pages(setting: Setting) -> None:
    gateway, _, mode = setting

    async def converse() -> list[list[str]]:
        async with connected(gateway.endpoint(), mode) as (client, _):
            return await all_pages(client.list_tools, "tools", "name")

    pages = run(converse())
    assert [name for page in pages for name in page] == TOOLS
    assert [len(page) for page in pages] == [5, 5, 5, 1]


def test_it_calls_tools_and_reads_structured_content_and_errors(setting: Setting) -> None:
    gateway, server, mode = setting

    async def converse() -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            assert text_of(await client.call_tool("echo", {"message": "grüße \U0001f310"})) == "grüße \U0001f310"
            assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
            failed = await client.call_tool("fail", {"message": "on purpose"})
            assert failed.is_error
            assert "on purpose" in text_of(failed)
            assert len(text_of(await client.call_tool("big", {"size_bytes": 500_000}))) == 500_000
            who = (await client.call_tool("whoami", {})).structured_content
            assert who is not None
            assert who["protocol_version"] == ("2025-11-25" if server.name == "legacy" else "2026-07-28")
            assert who["client"] == client.session._client_info.name
            many = await asyncio.gather(*(client.call_tool("echo", {"message": str(number)}) for number in range(50)))
            assert [text_of(result) for result in many] == [str(number) for number in range(50)]

    run(converse())


def test_an_unknown_tool_is_answered_as_the_server_answers_it(setting: Setting) -> None:
    gateway, server, mode = setting

    async def converse(url: str, mode: str) -> object:
        async with connected(url, mode) as (client, _):
            try:
                result = await client.call_tool("no_such_tool", {})
            except MCPError as error:
                return error.error.code
            return result.is_error, text_of(result)

    assert run(converse(gateway.endpoint(), mode)) == run(converse(server.url, MODES[server.name == "modern"]))


def test_it_reads_resources_templates_prompts_and_completions(setting: Setting) -> None:
    gateway, _, mode = setting

    async def converse() -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            assert await all_pages(client.list_resources, "resources", "uri") == [["test://static", "test://blob"]]
            templates = await all_pages(client.list_resource_templates, "resource_templates", "uri_template")
            assert templates == [["test://item/{item_id}"]]
            assert (await client.read_resource("test://static")).contents[0].text == "static text"  # type: ignore[union-attr]
            assert (await client.read_resource("test://item/7")).contents[0].text == '{"item": "7", "checksum": "37"}'  # type: ignore[union-attr]
            assert (await client.read_resource("test://blob")).contents[0].blob.startswith("AAECAw")  # type: ignore[union-attr]
            with pytest.raises(MCPError):
                await client.read_resource("test://nothing")
            assert await all_pages(client.list_prompts, "prompts", "name") == [["greet"]]
            prompt = await client.get_prompt("greet", {"name": "Bo"})
            assert prompt.messages[0].content.text == "Say hello to Bo."  # type: ignore[union-attr]
            reference: Any = {"type": "ref/prompt", "name": "greet"}
            completed = await client.complete(reference, {"name": "name", "value": "A"})
            assert completed.completion.values == ["Ada", "Alan"]

    run(converse())


def test_progress_arrives_in_order_and_while_the_tool_runs(setting: Setting, tmp_path: Path) -> None:
    """The tool does not end before its client has all of it."""
    gateway, _, mode = setting
    has_arrived = tmp_path / "arrived"

    async def converse() -> None:
        reports: list[tuple[float, float | None, str | None]] = []

        async def report(progress: float, total: float | None, message: str | None) -> None:
            reports.append((progress, total, message))
            if progress == total:
                has_arrived.touch()

        async with connected(gateway.endpoint(), mode) as (client, _):
            answered = await client.call_tool("progress", {"steps": 5, "until": str(has_arrived)}, progress_callback=report)
        assert text_of(answered) == "5 steps"
        assert reports == [(step, 5, f"step {step}") for step in range(1, 6)]

    run(converse())


def test_log_messages_arrive_at_the_level_that_the_client_asked_for(setting: Setting) -> None:
    gateway, _, mode = setting

    async def converse() -> None:
        options = {} if mode == "legacy" else {"log_level": "warning"}
        async with connected(gateway.endpoint(), mode, **options) as (client, record):
            if mode == "legacy":
                await client.set_logging_level("warning")
            await client.call_tool("log", {"message": "too fine", "level": "info"})
            await client.call_tool("log", {"message": "seen", "level": "error", "count": 3})
            await record.wait_for(lambda record: len(record.logs) >= 3)
            assert record.logs == [{"message": "seen", "number": number} for number in range(3)]

    run(converse())


def test_it_answers_elicitation_sampling_and_roots(setting: Setting) -> None:
    gateway, _, mode = setting

    async def converse() -> None:
        async with connected(gateway.endpoint(), mode, name="Grace") as (client, record):
            assert text_of(await client.call_tool("elicit", {})) == "accept: Hello, Grace!"
            assert text_of(await client.call_tool("sample", {"prompt": "tea"})) == "model of Grace: about tea"
            assert text_of(await client.call_tool("roots", {})) == "file:///Grace"
            assert record.questions == ["elicitation", "sampling: tea", "roots"]

    run(converse())


def test_two_clients_at_once_each_get_their_own_questions(setting: Setting) -> None:
    gateway, _, mode = setting

    async def converse() -> None:
        async with connected(gateway.endpoint(), mode, name="One") as (one, one_record):
            async with connected(gateway.endpoint(), mode, name="Two") as (two, two_record):
                calls = [client.call_tool("sample", {"prompt": str(number)}) for number in range(10) for client in (one, two)]
                answers = [text_of(result) for result in await asyncio.gather(*calls)]
        assert answers == [f"model of {name}: about {number}" for number in range(10) for name in ("One", "Two")]
        assert len(one_record.questions) == len(two_record.questions) == 10

    run(converse())


def test_a_cancelled_call_is_cancelled_on_the_server_at_once(setting: Setting) -> None:
    gateway, server, mode = setting
    tag = f"{gateway.form} {mode} {gateway.transport}"

    async def converse() -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            call = asyncio.ensure_future(client.call_tool("slow", {"seconds": 30, "tag": tag}))
            await eventually_on(server, "started", tag)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await eventually_on(server, "cancelled", tag)
            assert text_of(await client.call_tool("echo", {"message": "still here"})) == "still here"

    run(converse())
    assert tag not in server.counters()["finished"]


async def eventually_on(server: SdkServer, member: str, tag: str) -> None:
    await asyncio.to_thread(server.wait_for, lambda counters: tag in counters[member])


def test_changes_reach_the_client_that_asked_for_them(setting: Setting) -> None:
    """Legacy: `resources/subscribe` and the GET stream. Modern: `subscriptions/listen`."""
    gateway, _, mode = setting
    tool = f"later_{re.sub('[ ,]+', '_', gateway.form)}_{mode[:4]}_{gateway.transport}"

    async def legacy() -> None:
        async with connected(gateway.endpoint(), mode) as (client, record):
            await client.subscribe_resource("test://static")
            # The client opens its GET stream at a time of its own; what is sent before that is missed, so ask until it is heard.
            async with asyncio.timeout(10):
                while not record.updated_uris:
                    await client.call_tool("touch", {})
                    await asyncio.sleep(0.05)
            await client.call_tool("add_tool", {"name": tool})
            await record.wait_for(lambda record: "notifications/tools/list_changed" in record.notifications)
            names = [name for page in await all_pages(client.list_tools, "tools", "name") for name in page]
            assert tool in names
            await client.call_tool("remove_tool", {"name": tool})
            assert set(record.updated_uris) == {"test://static"}
            await client.unsubscribe_resource("test://static")

    async def modern() -> None:
        events: list[str] = []

        async def read(subscription: Any) -> None:
            async for event in subscription:
                events.append(f"{type(event).__name__} {getattr(event, 'uri', '')}".strip())  # noqa: PERF401 - read while it grows

        async with connected(gateway.endpoint(), mode) as (client, _):
            async with client.listen(tools_list_changed=True, resource_subscriptions=["test://static"]) as subscription:
                assert subscription.honored.tools_list_changed
                assert [str(uri) for uri in subscription.honored.resource_subscriptions or ()] == ["test://static"]
                reading = asyncio.ensure_future(read(subscription))
                # One after the other: changes that come at once are told once.
                await client.call_tool("add_tool", {"name": tool})
                await eventually(lambda: len(events) == 1, 10, "it is told of the new tool")
                await client.call_tool("touch", {})
                await eventually(lambda: len(events) == 2, 10, "it is told of the resource")
                await client.call_tool("touch", {"uri": "test://blob"})
                await client.call_tool("remove_tool", {"name": tool})
                await eventually(lambda: len(events) >= 3, 10, "it is told that the tool has gone")
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        assert events == ["ToolsListChanged", "ResourceUpdated test://static", "ToolsListChanged"]

    run(legacy() if mode == "legacy" else modern())


@pytest.mark.parametrize("form", FORMS)
def test_the_built_in_demo_server_speaks_both_eras(form: Form, start_gateway: StartGateway) -> None:
    async def converse(mode: str) -> None:
        reports: list[float] = []

        async def report(progress: float, total: float | None, message: str | None) -> None:
            reports.append(progress)

        async with connected(gateway.endpoint(), mode) as (client, _):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["echo", "time", "slow", "fail"]
            assert text_of(await client.call_tool("echo", {"message": "hi"})) == "hi"
            assert (await client.call_tool("fail", {})).is_error
            await client.call_tool("slow", {"seconds": 0.1, "steps": 4}, progress_callback=report)
            assert reports == [1, 2, 3, 4]

    with start_gateway(form, [{"name": "demo", "prefix": "", "builtin": "demo"}]) as gateway:
        for mode in (*MODES, "auto"):
            run(converse(mode))
