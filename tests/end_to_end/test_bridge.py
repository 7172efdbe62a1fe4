"""What a bridge must never do: run a tool twice. And what mixed servers, replicas, deaths and restarts make of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from mcp_gateway.actors.runtime.system_key import load_or_create_key
from mcp_gateway.transports.protocol.sealed.call_state import read_state
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.python_client import MODES, all_pages, connected, eventually, run, text_of
from tests.end_to_end.raw_http import BOTH_ANSWERS, Answer, ask, ask_modern, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import Form, RunningGateway, wait_until

CAN_BE_ASKED = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}}
FORMS: tuple[Form, ...] = ("embedded", "two cells")


@pytest.fixture(scope="module")
def server() -> Iterator[SdkServer]:
    """A legacy server with a tool that counts its run and then asks."""
    with start_sdk_server(name="legacy", era="legacy", midway=True) as running:
        yield running


def backend(*servers: SdkServer, **settings: Any) -> dict[str, Any]:
    return {"name": "all", "prefix": "", "replicas": [each.url for each in servers], **settings}


def midway(gateway: RunningGateway, tag: str, retry: dict[str, Any] | None = None, *, user: str = "", **arguments: Any) -> Answer:
    """Call the tool as a modern client, or go on with it."""
    params = {"name": "midway", "arguments": {"tag": tag, **arguments}, **CAN_BE_ASKED, **(retry or {})}
    query = f"?user_id={user}" if user else ""
    return ask_modern(gateway.endpoint() + query, request("tools/call", params))


def answered(asked: Answer, name: str = "Ada") -> dict[str, Any]:
    """The members of the retry that answers every question."""
    result = asked.message["result"]
    answer = {"action": "accept", "content": {"name": name}}
    return {"requestState": result["requestState"], "inputResponses": dict.fromkeys(result["inputRequests"], answer)}


def runs(server: SdkServer, tag: str) -> int:
    return server.counters()["started"].count(tag)


@pytest.mark.parametrize("form", FORMS)
def test_a_tool_that_asks_several_times_runs_once_whichever_cell_its_client_reaches(
    form: Form, start_gateway: StartGateway, server: SdkServer
) -> None:
    with start_gateway(form, [backend(server)]) as gateway:
        for number in range(4):  # a connection each: the cells take turns
            tag = f"several {form} {number}"
            asked = midway(gateway, tag, questions=3)
            for name in ("Ada", "Bo"):
                asked = midway(gateway, tag, answered(asked, name), questions=3)
            assert midway(gateway, tag, answered(asked, "Cy"), questions=3).text == "Ada, Bo, Cy"
            assert runs(server, tag) == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_stale_foreign_or_altered_state_runs_nothing(form: Form, start_gateway: StartGateway, server: SdkServer) -> None:
    tag = f"stale {form}"
    with start_gateway(form, [backend(server)]) as gateway:
        asked = midway(gateway, tag)
        retry = answered(asked)
        state = retry["requestState"]
        altered = {**retry, "requestState": state[:20] + ("A" if state[20] != "A" else "B") + state[21:]}
        other_request = ask_modern(
            gateway.endpoint(), request("tools/call", {"name": "echo", "arguments": {"message": "x"}, **CAN_BE_ASKED, **retry})
        )
        assert [each.reason for each in (midway(gateway, tag, altered), other_request)] == ["invalid_params"] * 2
        assert midway(gateway, tag, retry).text == "Ada"
        used = midway(gateway, tag, retry)
        assert (used.status, used.reason) == (400, "invalid_params")
        assert runs(server, tag) == 1


def test_a_parked_call_outlives_another_cell_and_dies_with_its_own_without_running_again(
    start_gateway: StartGateway, server: SdkServer
) -> None:
    with start_gateway("two cells", [backend(server)], expects_errors=True) as gateway:
        seal = Seal(load_or_create_key(gateway.state_dir))

        def owner(asked: Answer) -> str:
            state = read_state(seal, asked.message["result"]["requestState"])
            assert state is not None
            return state.cell

        def kill(cell: str) -> None:
            pids = {row["name"]: row["pid"] for row in rows(gateway.status()["tree"])}
            os.kill(pids[cell], signal.SIGKILL)
            wait_until(lambda: is_back(gateway, cell, pids[cell]), 10, f"{cell} is back")

        kept, lost = midway(gateway, "kept"), midway(gateway, "lost")
        while owner(lost) == owner(kept):
            lost = midway(gateway, "lost")
        kill(owner(lost))
        assert midway(gateway, "kept", answered(kept)).text == "Ada"
        refused = midway(gateway, "lost", answered(lost))
        assert (refused.status, refused.reason) == (502, "upstream_failed")
        assert "NOT run again" in refused.message["error"]["message"]
        assert runs(server, "kept") == 1


def rows(tree: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in tree:
        yield row
        yield from rows(row["children"])


def is_back(gateway: RunningGateway, cell: str, old_pid: int) -> bool:
    exit_code, output = gateway.admin("status", "--json")
    found = {row["name"]: row for row in rows(json.loads(output)["tree"])} if exit_code == 0 else {}
    return cell in found and found[cell]["pid"] not in (None, old_pid) and bool(found[cell]["children"])


def test_a_client_that_leaves_while_its_call_runs_ends_it_on_the_server(start_gateway: StartGateway, server: SdkServer) -> None:
    with start_gateway("embedded", [backend(server)]) as gateway:
        asked = midway(gateway, "left", questions=2)
        body, headers = modern(tool_call("slow", {"seconds": 60, "tag": "left slow"}))
        connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=15)
        connection.request(
            "POST", "/mcp", json.dumps(body), {"Content-Type": "application/json", "Accept": BOTH_ANSWERS, **headers}
        )
        server.wait_for(lambda counters: "left slow" in counters["started"])
        connection.close()
        server.wait_for(lambda counters: "left slow" in counters["cancelled"])
        assert midway(gateway, "left", answered(asked), questions=2).message["result"]["resultType"] == "input_required"
        assert runs(server, "left") == 1


def test_the_retry_goes_to_the_replica_that_holds_the_call(start_gateway: StartGateway, server: SdkServer) -> None:
    with start_sdk_server(name="legacy", era="legacy", midway=True) as other:
        with start_gateway("embedded", [backend(server, other)]) as gateway:
            for number in range(24):
                tag = f"replica {number}"
                asked = midway(gateway, tag, user=f"user-{number}")
                assert midway(gateway, tag, answered(asked), user=f"user-{number}").text == "Ada"
                assert runs(server, tag) + runs(other, tag) == 1
            assert other.counters()["calls"]["midway"] not in (0, 24)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", MODES)
def test_servers_of_both_eras_are_one_server_to_clients_of_either(
    form: Form, mode: str, start_gateway: StartGateway, legacy_server: SdkServer, modern_server: SdkServer
) -> None:
    backends = [{"name": "old", "replicas": [legacy_server.url]}, {"name": "new", "replicas": [modern_server.url]}]
    tool = f"mixed_{form.replace(' ', '_')}_{mode[:4]}"

    async def converse() -> None:
        async with connected(gateway.endpoint(), mode, name="Grace") as (client, record):
            names = [name for page in await all_pages(client.list_tools, "tools", "name") for name in page]
            assert {"old__echo", "new__echo", "old__elicit", "new__elicit"} <= set(names)
            uris = [uri for page in await all_pages(client.list_resources, "resources", "uri") for uri in page]
            for name in ("old", "new"):
                assert text_of(await client.call_tool(f"{name}__echo", {"message": name})) == name
                assert text_of(await client.call_tool(f"{name}__elicit", {})) == "accept: Hello, Grace!"
                assert text_of(await client.call_tool(f"{name}__sample", {"prompt": name})) == f"model of Grace: about {name}"
                uri = next(uri for uri in uris if uri.startswith(name) and uri.endswith("static"))
                assert (await client.read_resource(uri)).contents[0].text == "static text"  # type: ignore[union-attr]
                with pytest.raises(MCPError) as missing:
                    await client.read_resource(uri.replace("static", "nothing"))
                # This legacy server gives the code of the modern era itself; a modern one's is translated.
                assert missing.value.error.code == (-32002 if (mode, name) == ("legacy", "new") else -32602)
            assert record.questions == ["elicitation", "sampling: old", "elicitation", "sampling: new"]
            if mode == "legacy":
                await client.set_logging_level("error")
                for name in ("old", "new"):
                    await client.call_tool(f"{name}__log", {"message": name, "level": "info"})
                    await client.call_tool(f"{name}__log", {"message": name, "level": "error"})
                await record.wait_for(lambda record: len(record.logs) >= 2)
                assert [log["message"] for log in record.logs] == ["old", "new"]
                return
            async with client.listen(tools_list_changed=True) as subscription:
                events: list[Any] = []

                async def read() -> None:
                    async for event in subscription:
                        events.append(event)  # noqa: PERF401 - read while it grows

                reading = asyncio.ensure_future(read())
                for number, name in enumerate(("old", "new"), start=1):
                    await client.call_tool(f"{name}__add_tool", {"name": tool})
                    await eventually(lambda count=number: len(events) >= count, 5, "a change of each")  # type: ignore[misc]
                    await client.call_tool(f"{name}__remove_tool", {"name": tool})
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    with start_gateway(form, backends) as gateway:
        run(converse())
        assert gateway.metric_sum("mcp_gateway_bridge_total", method="tools/call") >= 5


def test_a_restarted_server_knows_again_what_the_client_had_asked_for(start_gateway: StartGateway) -> None:
    with start_sdk_server(name="legacy", era="legacy") as server, start_gateway("embedded", [backend(server)]) as gateway:
        session = open_session(gateway.endpoint())
        for method, params in (("logging/setLevel", {"level": "error"}), ("resources/subscribe", {"uri": "test://static"})):
            assert ask(gateway.endpoint(), request(method, params), session).status == 200
        server.restart()
        echo = request("tools/call", {"name": "echo", "arguments": {"message": "hi"}})
        assert ask(gateway.endpoint(), echo, session).text == "hi"
        counters = server.counters()
        assert list(counters["levels"].values()) == ["error"]
        assert list(counters["watched"].values()) == [["test://static"]]
        assert counters["calls"] == {"echo": 1}


def test_a_tool_that_dies_with_its_server_is_said_to_have_perhaps_run(start_gateway: StartGateway) -> None:
    with start_sdk_server(name="legacy", era="legacy") as server:
        with start_gateway("embedded", [backend(server)]) as gateway:
            crash = request("tools/call", {"name": "crash", "arguments": {}})
            refused = ask(gateway.endpoint(), crash, open_session(gateway.endpoint()))
            assert (refused.status, refused.reason) == (502, "upstream_failed")
            assert refused.message["error"]["message"].endswith("may have run and was NOT run again")
