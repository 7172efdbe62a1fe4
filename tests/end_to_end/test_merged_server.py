"""Several backends look like one server: names by prefix, resources by scheme, and each answer finds its way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.python_client import MODES, all_pages, connected, eventually, run, text_of
from tests.end_to_end.raw_http import ask, open_session, request, tool_call
from tests.end_to_end.running_gateway import Form, RunningGateway, closed_port

EXTRA_TOOLS = 8
NAMES = [
    "echo", "add", "whoami", "count", "fail", "big", "crash", "progress", "log", "slow",
    "add_tool", "remove_tool", "touch",
]  # fmt: skip
EXTRAS = [f"extra_{number:04}" for number in range(EXTRA_TOOLS)]
QUESTIONS = ["elicit", "sample", "roots"]
MISSING = "io.mcp-gateway/missingBackends"
LIST_LIMIT_S = 7.0
"""5 s for one backend's part of a merged answer, and what a busy machine adds."""


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[SdkServer, SdkServer]]:
    with start_sdk_server(name="alpha", page_size=3) as alpha:
        with start_sdk_server(name="beta", page_size=2, extra_tools=EXTRA_TOOLS) as beta:
            yield alpha, beta


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(
    request: pytest.FixtureRequest, start_gateway: StartGateway, servers: tuple[SdkServer, SdkServer]
) -> Iterator[RunningGateway]:
    with start_gateway(request.param, backends(*(server.url for server in servers))) as gateway:
        yield gateway
        assert gateway.restart_count() == 0


def backends(a_url: str, b_url: str) -> list[dict[str, Any]]:
    return [{"name": "a", "replicas": [a_url]}, {"name": "b", "replicas": [b_url]}]


@pytest.mark.parametrize("mode", MODES)
def test_each_tool_of_both_servers_is_listed_once_and_in_order(gateway: RunningGateway, mode: str) -> None:
    async def converse() -> list[list[str]]:
        async with connected(gateway.endpoint(), mode) as (client, _):
            return await all_pages(client.list_tools, "tools", "name")

    names = [name for page in run(converse()) for name in page]
    alpha = [f"a__{name}" for name in [*NAMES, *QUESTIONS]]
    beta = [f"b__{name}" for name in [*NAMES, *EXTRAS, *QUESTIONS]]
    assert names == alpha + beta


@pytest.mark.parametrize("mode", MODES)
def test_calls_go_to_the_server_of_their_prefix(gateway: RunningGateway, mode: str) -> None:
    async def converse() -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            calls = [client.call_tool(f"{prefix}__whoami", {}) for _ in range(10) for prefix in "ab"]
            answers = [result.structured_content for result in await asyncio.gather(*calls)]
            assert [answer["name"] for answer in answers if answer is not None] == ["alpha", "beta"] * 10
            with pytest.raises(MCPError) as refused:
                await client.call_tool("whoami", {})
            assert (refused.value.error.code, refused.value.error.data["reason"]) == (-32602, "invalid_params")

    run(converse())


@pytest.mark.parametrize("mode", MODES)
def test_the_resources_of_both_are_read_by_the_uris_that_the_list_gives(gateway: RunningGateway, mode: str) -> None:
    async def converse() -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            uris = (await all_pages(client.list_resources, "resources", "uri"))[0]
            assert uris == ["a+test://static", "a+test://blob", "b+test://static", "b+test://blob"]
            for uri in uris:
                content = (await client.read_resource(uri)).contents[0]
                assert str(content.uri) == uri
            templates = (await all_pages(client.list_resource_templates, "resource_templates", "uri_template"))[0]
            assert templates == ["a+test://item/{item_id}", "b+test://item/{item_id}"]
            for template in templates:
                filled = (await client.read_resource(template.replace("{item_id}", "7"))).contents[0]
                assert filled.text == '{"item": "7", "checksum": "37"}'  # type: ignore[union-attr]

    run(converse())


@pytest.mark.parametrize("mode", MODES)
def test_prompts_and_completions_of_both_are_reached_by_prefix(gateway: RunningGateway, mode: str) -> None:
    async def converse() -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            assert await all_pages(client.list_prompts, "prompts", "name") == [["a__greet", "b__greet"]]
            for name in ("a__greet", "b__greet"):
                prompt = await client.get_prompt(name, {"name": "Bo"})
                assert prompt.messages[0].content.text == "Say hello to Bo."  # type: ignore[union-attr]
                reference: Any = {"type": "ref/prompt", "name": name}
                completed = await client.complete(reference, {"name": "name", "value": "A"})
                assert completed.completion.values == ["Ada", "Alan"]

    run(converse())


@pytest.mark.parametrize("mode", MODES)
def test_the_merged_server_introduces_itself_and_all_behind_it(gateway: RunningGateway, mode: str) -> None:
    async def converse() -> None:
        async with connected(gateway.endpoint(), "auto" if mode != "legacy" else mode) as (client, _):
            assert client.server_info is not None
            assert client.server_info.name == "mcp-gateway"
            assert client.instructions == "a: I am alpha.\n\nb: I am beta."
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else mode)
            assert client.server_capabilities.prompts is not None

    run(converse())


@pytest.mark.parametrize("mode", MODES)
def test_questions_of_either_server_are_answered_to_the_one_that_asked(gateway: RunningGateway, mode: str) -> None:
    """The servers number their requests alike; only the gateway keeps them apart."""

    async def converse() -> None:
        async with connected(gateway.endpoint(), mode, name="Grace") as (client, record):
            calls = [client.call_tool(f"{prefix}__sample", {"prompt": f"{prefix}{n}"}) for n in range(5) for prefix in "ab"]
            answers = [text_of(result) for result in await asyncio.gather(*calls)]
            assert answers == [f"model of Grace: about {prefix}{n}" for n in range(5) for prefix in "ab"]
            assert sorted(record.questions) == sorted(f"sampling: {prefix}{n}" for n in range(5) for prefix in "ab")
            for prefix in "ab":
                assert text_of(await client.call_tool(f"{prefix}__elicit", {})) == "accept: Hello, Grace!"
                assert text_of(await client.call_tool(f"{prefix}__roots", {})) == "file:///Grace"

    run(converse())


@pytest.mark.parametrize("mode", MODES)
def test_progress_logs_and_cancellation_work_for_both(
    gateway: RunningGateway, mode: str, servers: tuple[SdkServer, SdkServer]
) -> None:
    async def converse() -> None:
        options = {} if mode == "legacy" else {"log_level": "info"}
        async with connected(gateway.endpoint(), mode, **options) as (client, record):
            if mode == "legacy":
                await client.set_logging_level("warning")
            for prefix, server in zip("ab", servers, strict=True):
                reports: list[float] = []

                async def report(progress: float, total: float | None, message: str | None, to: list[float] = reports) -> None:
                    to.append(progress)

                await client.call_tool(f"{prefix}__progress", {"steps": 3}, progress_callback=report)
                assert reports == [1, 2, 3]
                await client.call_tool(f"{prefix}__log", {"message": prefix, "level": "error"})
                await record.wait_for(lambda record, prefix=prefix: {"message": prefix, "number": 0} in record.logs)  # type: ignore[misc]
                if mode == "legacy":
                    await client.call_tool(f"{prefix}__log", {"message": "too fine", "level": "info"})
                tag = f"merged {gateway.form} {mode}"
                call = asyncio.ensure_future(client.call_tool(f"{prefix}__slow", {"seconds": 30, "tag": tag}))
                await asyncio.to_thread(server.wait_for, lambda counters, tag=tag: tag in counters["started"])
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await asyncio.to_thread(server.wait_for, lambda counters, tag=tag: tag in counters["cancelled"])
            assert [log["message"] for log in record.logs] == ["a", "b"]

    run(converse())


@pytest.mark.parametrize("mode", MODES)
def test_changes_of_both_servers_arrive_under_their_outer_names(gateway: RunningGateway, mode: str) -> None:
    uris = ["a+test://static", "b+test://static"]

    async def legacy() -> None:
        async with connected(gateway.endpoint(), mode) as (client, record):
            for prefix, uri in zip("ab", uris, strict=True):
                await client.subscribe_resource(uri)
                async with asyncio.timeout(10):
                    while uri not in record.updated_uris:
                        await client.call_tool(f"{prefix}__touch", {})
                        await asyncio.sleep(0.05)
                await client.unsubscribe_resource(uri)
            assert set(record.updated_uris) == set(uris)

    async def modern() -> None:
        events: list[str] = []

        async def read(subscription: Any) -> None:
            async for event in subscription:
                events.append(f"{type(event).__name__} {getattr(event, 'uri', '')}".strip())  # noqa: PERF401 - read while it grows

        async with connected(gateway.endpoint(), mode) as (client, _):
            async with client.listen(tools_list_changed=True, resource_subscriptions=uris) as subscription:
                assert sorted(str(uri) for uri in subscription.honored.resource_subscriptions or ()) == uris
                reading = asyncio.ensure_future(read(subscription))
                for prefix in "ab":
                    await client.call_tool(f"{prefix}__touch", {})
                await client.call_tool("a__add_tool", {"name": "later"})
                await client.call_tool("a__remove_tool", {"name": "later"})
                wanted = {*(f"ResourceUpdated {uri}" for uri in uris), "ToolsListChanged"}
                await eventually(lambda: wanted <= set(events), 10, "an event of each")
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    run(legacy() if mode == "legacy" else modern())


@pytest.mark.parametrize("mode", MODES)
def test_one_backend_alone_keeps_its_own_names_and_pages(gateway: RunningGateway, mode: str) -> None:
    async def converse() -> None:
        async with connected(gateway.endpoint("a"), mode) as (client, _):
            pages = await all_pages(client.list_tools, "tools", "name")
            assert [name for page in pages for name in page] == [*NAMES, *QUESTIONS]
            assert {len(page) for page in pages[:-1]} == {3}
            who = (await client.call_tool("whoami", {})).structured_content
            assert who is not None
            assert who["name"] == "alpha"
            assert (await client.read_resource("test://static")).contents[0].text == "static text"  # type: ignore[union-attr]
            if mode == "legacy":
                assert client.server_info is not None
                assert client.server_info.name == "alpha"

    run(converse())


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_a_backend_that_is_down_is_named_and_spoils_nothing(
    form: Form, start_gateway: StartGateway, servers: tuple[SdkServer, SdkServer]
) -> None:
    async def converse(gateway: RunningGateway, mode: str) -> None:
        started_s = time.monotonic()
        async with connected(gateway.endpoint(), mode) as (client, _):
            listed = await client.list_tools()
            assert [tool.name for tool in listed.tools] == [f"a__{name}" for name in [*NAMES, *QUESTIONS]]
            assert listed.meta is not None
            assert set(listed.meta[MISSING]) == {"b"}
            assert text_of(await client.call_tool("a__echo", {"message": "hi"})) == "hi"
            assert (await client.read_resource("a+test://static")).contents
            with pytest.raises(MCPError) as refused:
                await client.call_tool("b__echo", {"message": "hi"})
            assert refused.value.error.data["reason"] in ("upstream_failed", "no_backend")
            assert refused.value.error.data["backend"] == "b"
        assert time.monotonic() - started_s < LIST_LIMIT_S

    with closed_port() as port:
        dead = backends(servers[0].url, f"http://127.0.0.1:{port}/mcp")
        with start_gateway(form, dead, gateway={"health_check_interval": 60.0}) as gateway:
            for mode in MODES:
                run(converse(gateway, mode))
        with start_gateway(form, dead, gateway={"health_check_interval": 1.0}) as gateway:
            while gateway.health()["components"].get(f"b/http://127.0.0.1:{port}/mcp", {}).get("status") != "unhealthy":
                time.sleep(0.02)
            assert gateway.health()["status"] == "degraded"
            for mode in MODES:
                run(converse(gateway, mode))


@pytest.mark.parametrize("mode", MODES)
def test_a_backend_that_hangs_is_left_out_in_time_by_old_and_new_clients(mode: str, start_gateway: StartGateway) -> None:
    async def first_letters(client: Any) -> tuple[set[str], set[str]]:
        """(of the tools listed, of the backends missing)."""
        listed = await client.list_tools()
        return {tool.name[0] for tool in listed.tools}, set((listed.meta or {}).get(MISSING, {}))

    async def newcomer_sees(gateway: RunningGateway) -> tuple[set[str], set[str]]:
        async with connected(gateway.endpoint(), mode) as (newcomer, _):
            return await first_letters(newcomer)

    async def converse(gateway: RunningGateway) -> None:
        async with connected(gateway.endpoint(), mode) as (client, _):
            assert await first_letters(client) == ({"a", "b"}, set())
            beta.pause()
            started_s = time.monotonic()
            seen = await asyncio.gather(first_letters(client), newcomer_sees(gateway))
            # Its last known list stands in, and it is named all the same; a modern list of these servers is for one client only.
            assert seen == [({"a", "b"} if mode == "legacy" else {"a"}, {"b"})] * 2
            # The newcomer waits twice: for its session at the one that hangs, and with its list for that to be opened after all.
            assert time.monotonic() - started_s < 5.0 + LIST_LIMIT_S
            beta.resume()
            await asyncio.to_thread(beta.counters)  # it runs again
            async with asyncio.timeout(10):  # a list waits for one that was late for half a second only
                while await first_letters(client) != ({"a", "b"}, set()):
                    await asyncio.sleep(0.05)

    with start_sdk_server(name="alpha") as alpha, start_sdk_server(name="beta") as beta:
        with start_gateway("embedded", backends(alpha.url, beta.url), gateway={"health_check_interval": 60.0}) as gateway:
            run(converse(gateway))


def test_a_session_is_whole_again_once_a_backend_is_back(start_gateway: StartGateway) -> None:
    """A backend restarts under one session and forgets it, and is down when another one begins: a list brings it back to both."""

    def listed(session: dict[str, str]) -> tuple[set[str], set[str]]:
        """(first letters of the tools, backends that are missing)."""
        result = ask(gateway.endpoint(), request("tools/list"), session).message["result"]
        return {tool["name"][0] for tool in result["tools"]}, set(result.get("_meta", {}).get(MISSING, {}))

    with start_sdk_server(page_size=3) as alpha, start_sdk_server(page_size=3) as beta:
        with start_gateway("embedded", backends(alpha.url, beta.url), gateway={"health_check_interval": 60.0}) as gateway:
            early = open_session(gateway.endpoint())
            assert listed(early) == ({"a", "b"}, set())
            beta.kill()
            late = open_session(gateway.endpoint())
            assert listed(late) == ({"a", "b"}, {"b"})
            beta.restart()
            for session in (early, late):
                assert listed(session) == ({"a", "b"}, set())
                assert ask(gateway.endpoint(), tool_call("b__echo", {"message": "hi"}), session).text == "hi"
