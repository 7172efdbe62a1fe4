"""MCP over WebSocket on a whole cell: framing, what is no message, what the end of a connection ends, a drain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.doubles.patience import patience, until
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

INFO = {"name": "n", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}
OTHER_META = META | {"io.modelcontextprotocol/protocolVersion": "1"}


class Client:
    """JSON-RPC messages over one WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    async def hear(self) -> Any:
        async with asyncio.timeout(10):
            return json.loads(await self.connection.recv())

    async def ask(self, method: str, params: Any = None, *, id: Any = 1) -> Any:
        await self.say({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})
        while (heard := await self.hear()).get("id") != id or "method" in heard:
            pass
        return heard

    async def initialize(self, revision: str = "2025-11-25") -> None:
        opened = await self.ask("initialize", {"protocolVersion": revision, "capabilities": {}, "clientInfo": INFO}, id="open")
        assert opened["result"]["protocolVersion"] == revision
        await self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})


def with_client(body: Callable[[Client, RunningCell], Awaitable[None]], query: str = "", **tables: Any) -> None:
    async def run() -> None:
        async with running_cell(cell_settings(**tables)) as cell, patience():
            url = f"ws{cell.url[4:]}/mcp/ws{query}"
            async with connect(url, subprotocols=[Subprotocol("mcp")], max_size=None) as connection:
                await body(Client(connection), cell)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("said", "reason", "id"),
    [
        ("hello", "parse_error", None),
        ("", "parse_error", None),
        (b"\xff\xfe", "parse_error", None),
        ('{"jsonrpc":' * 10_000, "invalid_request", None),
        ([], "invalid_request", None),
        ("null", "invalid_request", None),
        ({"jsonrpc": "1.0", "id": 7, "method": "ping"}, "invalid_request", 7),
        ({"jsonrpc": "2.0", "id": 7}, "invalid_request", 7),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, "invalid_request", None),
        ({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}, "invalid_request", 7),
        ({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": OTHER_META}}, "unsupported_version", 7),
        ({"jsonrpc": "2.0", "id": "x", "result": {}}, "invalid_request", None),
    ],
)  # fmt: skip
def test_what_is_no_message_is_answered_by_an_error_and_the_connection_stays(said: Any, reason: str, id: Any) -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        await client.say(said)
        heard = await client.hear()
        assert (heard["error"]["data"]["reason"], heard["id"]) == (reason, id)
        assert (await client.ask("ping"))["result"] == {}

    with_client(body)


def test_a_binary_frame_carries_the_same_message_and_the_answer_is_text() -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        await client.say(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode())
        assert isinstance(await client.connection.recv(), str)

    with_client(body)


def test_a_session_and_stateless_requests_share_a_connection() -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        assert "resultType" in (await client.ask("tools/list", {"_meta": META}))["result"]
        await client.initialize()
        assert "resultType" not in (await client.ask("tools/list"))["result"]
        assert "resultType" in (await client.ask("tools/list", {"_meta": META}))["result"]

    with_client(body)


def test_a_batch_is_served_in_the_one_revision_that_has_them() -> None:
    """Source: MCP 2025-03-26, basic/index, "Batching"."""

    async def body(client: Client, cell: RunningCell) -> None:
        await client.initialize("2025-03-26")
        ping = {"jsonrpc": "2.0", "id": "p", "method": "ping"}
        await client.say(
            [ping, call("echo", {"message": "hi"}, id="e"), {"jsonrpc": "2.0", "method": "notifications/x"}, {"id": "b"}]
        )
        heard = [await client.hear() for _ in range(3)]
        assert {each["id"]: "error" in each for each in heard} == {"p": False, "e": False, "b": True}
        await client.say([])
        assert (await client.hear())["error"]["data"]["reason"] == "invalid_request"

    async def other(client: Client, cell: RunningCell) -> None:
        await client.initialize("2025-06-18")
        await client.say([{"jsonrpc": "2.0", "id": "p", "method": "ping"}])
        assert (await client.hear())["error"]["data"]["reason"] == "invalid_request"

    with_client(body)
    with_client(other)


def test_requests_run_at_once_and_answers_come_as_they_are_ready() -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        await client.initialize()
        await client.say(call("slow", {"seconds": 2, "steps": 1}, id="slow"))
        for number in range(20):
            await client.say(call("echo", {"message": str(number)}, id=number))
        heard = [(await client.hear()).get("id") for _ in range(21)]
        assert sorted(heard[:20]) == list(range(20))
        while heard[-1] != "slow":
            heard.append((await client.hear()).get("id"))

    with_client(body)


def test_the_end_of_a_connection_ends_what_runs_for_it_and_its_session() -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        await client.initialize()
        await client.say(call("slow", {"seconds": 60}, id=1))
        await until(lambda: len(cell.cell._port.waiting) >= 2)
        client.connection.transport.abort()
        await until(lambda: not cell.cell._port.waiting)
        assert (await cell.cell.status())["connections"].get("websocket") == 0

    with_client(body)


def test_a_drain_answers_what_runs_and_then_closes_with_the_reason() -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        await client.initialize()
        await client.say(call("slow", {"seconds": 2, "steps": 1}, id="slow"))
        await until(lambda: len(cell.cell._port.waiting) >= 2)
        draining = asyncio.create_task(cell.cell.drain(10))
        await asyncio.sleep(0)
        assert (await client.ask("tools/list", id="late"))["error"]["data"]["reason"] == "draining"
        heard = []
        with pytest.raises(ConnectionClosed):
            while True:
                heard.append(await client.hear())
        assert heard[-1]["id"] == "slow"
        assert (client.connection.close_code, client.connection.close_reason) == (1001, "the gateway is draining")
        await draining

    with_client(body)


def test_one_backend_can_be_chosen_for_a_connection() -> None:
    backends = [{"name": name, "builtin": "demo"} for name in ("one", "two")]

    async def alone(client: Client, cell: RunningCell) -> None:
        await client.initialize()
        assert next(tool["name"] for tool in (await client.ask("tools/list"))["result"]["tools"]) == "echo"

    async def merged(client: Client, cell: RunningCell) -> None:
        await client.initialize()
        names = [tool["name"] for tool in (await client.ask("tools/list"))["result"]["tools"]]
        assert {"one__echo", "two__echo"} <= set(names)

    with_client(alone, "?backend=two", backends=backends)
    with_client(merged, backends=backends)


def test_requests_are_counted_under_the_transports_name_and_limited() -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        for _ in range(2):
            assert "result" in await client.ask("ping")
        refused = (await client.ask("ping", id="x"))["error"]
        assert (refused["code"], refused["data"]["reason"]) == (4290, "rate_limited")

    with_client(body, limits={"requests_per_second": 0.01, "burst": 2})


def test_a_message_as_large_as_all_may_be_together_is_served_and_those_beside_it_are_refused() -> None:
    """Bytes count from the first frame to the answer, and once."""

    async def body(client: Client, cell: RunningCell) -> None:
        await client.initialize()
        slow = {"name": "slow", "arguments": {"seconds": 0.5}, "_meta": {"x": "x" * (2**20 - 9_000)}}
        await client.say({"jsonrpc": "2.0", "id": "slow", "method": "tools/call", "params": slow})
        echo = {"name": "echo", "arguments": {"message": "x" * 9_000}}
        assert (await client.ask("tools/call", echo))["error"]["data"]["reason"] == "too_many_connections"
        while (await client.hear()).get("id") != "slow":
            pass
        assert "result" in await client.ask("tools/call", echo)

    with_client(body, gateway={"max_message_bytes": 2**20, "max_buffered_bytes": 2**20})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0")},
    optional={
        "id": st.integers() | st.text(max_size=5) | json_values,
        "method": st.sampled_from(["initialize", "tools/list", "tools/call", "ping", "notifications/cancelled"])
        | st.text(max_size=9),
        "params": st.fixed_dictionaries({}, optional={"_meta": st.just(META) | json_values, "name": json_values}) | json_values,
        "result": json_values,
        "error": json_values,
    },
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages | json_values | st.binary(max_size=50), min_size=20, max_size=100))
def test_whatever_is_said_the_connection_goes_on(said: list[Any]) -> None:
    async def body(client: Client, cell: RunningCell) -> None:
        for message in said:
            await client.say(message)
        assert (await client.ask("ping", id="the end"))["result"] == {}

    with_client(body)


def call(name: str, arguments: dict[str, Any], *, id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
