"""Subscriptions that are open when the policies change, over each transport: those end whose right is gone, others stay."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from websockets.asyncio.client import connect

from tests.conftest import StartGateway
from tests.doubles.phoenix_client import phoenix_client
from tests.end_to_end.every_transport import bearer, sse_data
from tests.end_to_end.raw_http import modern, request
from tests.end_to_end.running_gateway import RunningGateway

Next = Callable[[], Any]
KEYS = ("dev", "ops")
BACKENDS = [{"name": "one", "builtin": "demo"}, {"name": "two", "builtin": "demo"}]
RULE = 'resources = ["one+demo:*"]'


@asynccontextmanager
async def over_streamable_http(url: str, message: dict[str, Any], key: str) -> AsyncIterator[Next]:
    headers = {**modern(message)[1], **bearer(key), "Accept": "application/json, text/event-stream"}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/mcp", json=message, headers=headers) as stream:

        async def following() -> Any:
            async for line in stream.content:
                if line.startswith(b"data: {"):
                    return json.loads(line[6:])
            raise AssertionError("the stream has ended without a word")

        yield following


@asynccontextmanager
async def over_sse(url: str, message: dict[str, Any], key: str) -> AsyncIterator[Next]:
    connect_url = f"{url}/mcp/sse/connect"
    async with aiohttp.ClientSession(headers=bearer(key)) as http, http.get(connect_url) as stream:
        async with http.post(urljoin(connect_url, await sse_data(stream, "endpoint")), json=message) as posted:
            assert posted.status == 202

        async def following() -> Any:
            return json.loads(await sse_data(stream, "message"))

        yield following


@asynccontextmanager
async def over_websocket(url: str, message: dict[str, Any], key: str) -> AsyncIterator[Next]:
    async with connect(f"ws{url[4:]}/mcp/ws", additional_headers=bearer(key)) as connection:
        await connection.send(json.dumps(message))

        async def following() -> Any:
            return json.loads(await connection.recv())

        yield following


@asynccontextmanager
async def over_phoenix(url: str, message: dict[str, Any], key: str) -> AsyncIterator[Next]:
    async with phoenix_client(url, "vsn=2.0.0", bearer(key)) as client:
        await client.ask("j", "mcp:client.*", "phx_join", {})
        await client.push("j", "mcp:client.*", "request", {name: message[name] for name in ("id", "method", "params")})
        seen = 0

        async def following() -> Any:
            nonlocal seen
            seen += 1
            if seen == 1:
                return (await client.find(event="event")).payload["data"]
            return (await client.find(event="response")).payload

        yield following


WAYS: dict[str, Callable[[str, dict[str, Any], str], AbstractAsyncContextManager[Next]]] = {
    "streamable HTTP": over_streamable_http,
    "HTTP+SSE": over_sse,
    "WebSocket": over_websocket,
    "Phoenix": over_phoenix,
}


def reload(gateway: RunningGateway) -> None:
    if gateway.form == "embedded":
        os.kill(gateway.pid, signal.SIGHUP)
    else:
        assert gateway.admin("reload")[0] == 0


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_subscription_ends_when_its_right_does_and_others_stay(start_gateway: StartGateway, form: Any) -> None:
    keys = [{"name": key, "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"} for key in KEYS]
    policies = [
        {"effect": "allow", "subjects": ["ops"]},
        {"effect": "allow", "subjects": ["dev"], "resources": ["one+demo:*"], "topics": ["client.*"]},
    ]
    wanted = {"notifications": {"resourceSubscriptions": ["one+demo://readme"]}}
    message = modern(request("subscriptions/listen", wanted))[0]

    with start_gateway(form, BACKENDS, auth={"mode": "required", "api_keys": keys}, policies=policies) as gateway:

        async def body() -> None:
            contexts = {(way, key): WAYS[way](gateway.url, message, key) for way in WAYS for key in KEYS}
            following = {name: await context.__aenter__() for name, context in contexts.items()}
            async with asyncio.timeout(20):
                for name, next_message in following.items():
                    said = await next_message()
                    assert "subscriptionId" in json.dumps(said), (name, said)
                before = gateway.config_path.read_text()
                assert RULE in before
                gateway.config_path.write_text(before.replace(RULE, 'resources = ["one+demo://other"]'))
                await asyncio.to_thread(reload, gateway)
                for way in WAYS:
                    assert (await following[way, "dev"]())["result"]["resultType"] == "complete", way
                for way in WAYS:
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(following[way, "ops"](), 0.1)
            for context in contexts.values():
                await context.__aexit__(None, None, None)

        asyncio.run(body())
