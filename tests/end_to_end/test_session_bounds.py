"""What a client may say when it opens a session, over every transport: most of it is not kept, and what is has a bound."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urljoin

import aiohttp
import psutil
import pytest
from websockets.asyncio.client import connect

from mcp_gateway.transports.protocol.sealed.session import MAX_ID_CHARACTERS
from tests.conftest import StartGateway
from tests.doubles.phoenix_client import phoenix_client
from tests.end_to_end.python_client import run
from tests.end_to_end.raw_http import LEGACY, Answer, ask, request
from tests.end_to_end.running_gateway import RunningGateway

DEMO = [{"name": "demo", "prefix": "", "builtin": "demo"}]
INFO = {"name": "client", "version": "1"}
PAD = "A" * 4_000_000


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway(request.param, DEMO) as gateway:
        yield gateway
        assert gateway.restart_count() == 0


def initialize(**capabilities: Any) -> dict[str, Any]:
    return request("initialize", {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": INFO}, request_id=1)


async def over_streamable_http(url: str, message: dict[str, Any]) -> Any:
    return (await asyncio.to_thread(ask, f"{url}/mcp", message)).message


async def over_sse(url: str, message: dict[str, Any]) -> Any:
    """The answer: of the POST where that is refused, else the message that follows on the stream."""
    async with aiohttp.ClientSession() as http, http.get(f"{url}/mcp/sse/connect") as stream:
        async with http.post(urljoin(f"{url}/mcp/sse/connect", await sse_data(stream, "endpoint")), json=message) as posted:
            if posted.status != 202:
                return await posted.json()
        return json.loads(await sse_data(stream, "message"))


async def sse_data(stream: aiohttp.ClientResponse, name: str) -> str:
    event = ""
    async for line in stream.content:
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            event = value
        elif field == "data" and event == name:
            return value
    raise AssertionError(f"the stream ended without {name}")


async def over_websocket(url: str, message: dict[str, Any]) -> Any:
    async with connect(f"ws{url[4:]}/mcp/ws", max_size=None) as connection:
        await connection.send(json.dumps(message))
        return json.loads(await connection.recv())


async def over_phoenix(url: str, message: dict[str, Any]) -> Any:
    async with phoenix_client(url, "vsn=2.0.0") as client:
        await client.ask("j", "mcp:events", "phx_join", {})
        await client.push("j", "mcp:events", "request", {key: message[key] for key in ("id", "method", "params")})
        return (await client.find(event="response")).payload


WAYS: dict[str, Callable[[str, dict[str, Any]], Awaitable[Any]]] = {
    "streamable HTTP": over_streamable_http,
    "HTTP+SSE": over_sse,
    "WebSocket": over_websocket,
    "Phoenix": over_phoenix,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_nobody_acts_on_may_be_long(way: str, gateway: RunningGateway) -> None:
    """1 MB where the client's own library bounds a message."""
    answer = run(WAYS[way](gateway.url, initialize(sampling={}, experimental={"x": {"y": PAD[:1_000_000]}})))
    assert "result" in answer, answer


@pytest.mark.parametrize("way", WAYS)
def test_what_a_session_must_keep_is_refused_where_it_has_no_room(way: str, gateway: RunningGateway) -> None:
    for size, is_taken in ((1_000, True), (2_000, False)):
        answer = run(WAYS[way](gateway.url, initialize(sampling={"x": PAD[:size]})))
        assert ("result" in answer) == is_taken, answer
    assert (answer["error"]["code"], answer["error"]["data"]["reason"], answer["id"]) == (4130, "too_large", 1)


def test_a_refusal_over_http_has_its_status(gateway: RunningGateway) -> None:
    assert opened(gateway, sampling={"x": PAD}).status == 413


def opened(gateway: RunningGateway, **capabilities: Any) -> Answer:
    return ask(f"{gateway.url}/mcp", initialize(**capabilities))


def test_many_sessions_of_long_handshakes_cost_little_memory_and_disk(gateway: RunningGateway) -> None:
    """4 MB each. What one cell or the other needs to read such a message once is not what it keeps."""
    opened(gateway, experimental={"x": PAD})
    before_mb = memory_mb(gateway)
    count = 20
    for _ in range(count):
        answer = opened(gateway, experimental={"x": PAD})
        assert len(answer.headers["mcp-session-id"]) <= MAX_ID_CHARACTERS
    journal = [path.stat().st_size for path in gateway.state_dir.glob("sessions.sqlite3*")]
    assert sum(journal) < 5_000_000
    assert memory_mb(gateway) - before_mb < count * 4 / 2


def memory_mb(gateway: RunningGateway) -> float:
    processes = [psutil.Process(gateway.pid), *psutil.Process(gateway.pid).children(recursive=True)]
    found = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found / 1e6
