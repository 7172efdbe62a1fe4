"""One client of each transport that says what it likes: any bytes for a message, any id, answers to what nobody asked."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import aiohttp

from tests.attacks.arena import Arena
from tests.attacks.attack import PHOENIX, SESSION, SSE, STATELESS, WEBSOCKET
from tests.end_to_end.raw_http import BOTH_ANSWERS, LEGACY, messages_in, modern

_PATIENCE_S = 12.0
JSON_HEADERS = {"Content-Type": "application/json", "Accept": BOTH_ANSWERS}
ECHO = {"name": "demo__echo", "arguments": {"message": "hi"}}


def initialize(**changes: Any) -> dict[str, Any]:
    """Its parameters."""
    return {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "attacker", "version": "1"}, **changes}


def read(message: Any) -> str:
    """What a client reads of the answer to a request: "answered", the reason of the refusal, or the code of an error."""
    if "error" not in message:
        return "answered"
    error = message["error"]
    reason = error["data"].get("reason") if isinstance(error.get("data"), dict) else None
    return str(reason or f"error {error['code']}")


class Speaker:
    """A client with its session, if its transport has one.

    heard: every message that came, in order, answers of `ask` left out.
    end:   why the connection ended: "closed", or the code of a WebSocket's close; "" while it lasts.
    """

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.end = ""
        self._ids = itertools.count(1)
        self._arrived = asyncio.Condition()

    async def say(self, raw: bytes) -> None:
        """Send this as a message, whatever it is."""
        raise NotImplementedError

    async def tell(self, message: Any) -> None:
        await self.say(json.dumps(message).encode())

    async def ask(self, method: str, params: Any = None, *, request_id: Any = None) -> Any:
        """Send a request and wait for its answer."""
        request_id = next(self._ids) if request_id is None else request_id
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, **({} if params is None else {"params": params})}
        await self.tell(message)
        return await self.find(request_id)

    async def ask_raw(self, raw: bytes) -> Any:
        """Send bytes as a message, and wait for an answer to them: {"end": …} where the connection ended for it."""
        before = len(self.heard)
        await self.say(raw)
        async with asyncio.timeout(_PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: self.end or any(map(_is_answer, self.heard[before:])))
        found = [each for each in self.heard[before:] if _is_answer(each)]
        return found[0] if found else {"end": self.end}

    async def find(self, request_id: Any) -> Any:
        """The answer to a request."""

        def found() -> list[Any]:
            return [each for each in self.heard if _is_answer(each) and each.get("id") == request_id]

        async with asyncio.timeout(_PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: found() or self.end)
        assert found(), f"no answer to {request_id!r}: {self.end}"
        answer = found()[0]
        self.heard.remove(answer)
        return answer

    async def take(self, message: Any) -> None:
        async with self._arrived:
            self.heard.append(message)
            self._arrived.notify_all()

    async def ended(self, why: str) -> None:
        async with self._arrived:
            self.end = why
            self._arrived.notify_all()


def _is_answer(message: Any) -> bool:
    return isinstance(message, dict) and ("result" in message or "error" in message)


class HttpSpeaker(Speaker):
    """Streamable HTTP; headers: of every request, the session's included."""

    def __init__(self, arena: Arena, headers: dict[str, str], path: str = "/mcp") -> None:
        super().__init__()
        self.headers = headers
        self.statuses: list[int] = []
        self._arena = arena
        self._url = arena.gateway.url + path

    async def say(self, raw: bytes) -> None:
        await self._post(raw, self.headers)

    async def tell(self, message: Any) -> None:
        if self.headers or message.get("method") == "initialize":
            await self.say(json.dumps(message).encode())
        else:
            body, headers = modern(message)
            await self._post(json.dumps(body).encode(), headers)

    async def _post(self, raw: bytes, headers: dict[str, str]) -> None:
        async with self._arena.http.post(self._url, data=raw, headers={**JSON_HEADERS, **headers}) as answer:
            content = await answer.read()
            self.statuses.append(answer.status)
            self.last_headers = answer.headers
        is_stream = answer.headers.get("Content-Type", "").startswith("text/event-stream")
        for message in messages_in(content) if is_stream else [json.loads(content)] if content else []:
            await self.take(message)


class SseSpeaker(Speaker):
    """HTTP+SSE: a stream, and the address that it has told."""

    def __init__(self, arena: Arena, query: str) -> None:
        super().__init__()
        self._arena = arena
        self.url = f"{arena.gateway.url}/mcp/sse/connect{query}"
        self.address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def say(self, raw: bytes) -> None:
        async with self._arena.http.post(await self.address, data=raw, headers=JSON_HEADERS) as answer:
            content = await answer.read()
        if content and answer.status != 202:
            await self.take(json.loads(content))

    async def listen(self, stream: aiohttp.ClientResponse) -> None:
        left = b""
        async for part in stream.content.iter_any():  # a line may be longer than what the client's own reader takes
            *events, left = (left + part).replace(b"\r\n", b"\n").split(b"\n\n")
            for lines in events:
                fields = dict(line.split(b": ", 1) for line in lines.split(b"\n") if b": " in line)
                if fields.get(b"event") == b"endpoint":
                    self.address.set_result(urljoin(self.url, fields[b"data"].decode()))
                elif fields.get(b"event") == b"message":
                    await self.take(json.loads(fields[b"data"]))
        await self.ended("closed")


class SocketSpeaker(Speaker):
    """MCP over WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.socket = socket

    async def say(self, raw: bytes) -> None:
        await self.socket.send_bytes(raw)

    async def listen(self) -> None:
        async for received in self.socket:
            if isinstance(received.data, str):
                await self.hear(json.loads(received.data))
        await self.ended(f"close {self.socket.close_code}")

    async def hear(self, told: Any) -> None:
        await self.take(told)


class ChannelSpeaker(SocketSpeaker):
    """A Phoenix channel on `mcp:events`. replies: of pushes that are no requests, as they came."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__(socket)
        self.replies: list[Any] = []
        self._refs = itertools.count(1)

    async def push(self, event: str, payload: bytes, topic: str = "mcp:events") -> str:
        ref = f"r{next(self._refs)}"
        await self.socket.send_str(f'["j1","{ref}",{json.dumps(topic)},{json.dumps(event)},{payload.decode("latin-1")}]')
        return ref

    async def say(self, raw: bytes) -> None:
        await self.push("request", raw)

    async def hear(self, told: Any) -> None:
        _, _, _, event, payload = told
        if event == "phx_reply":
            self.replies.append(told)
            refused = payload["response"]
            if payload["status"] == "error" and isinstance(refused, dict) and "id" not in refused:
                await self.take(refused)
            else:
                await self.take(None)  # wakes who waits for a reply
        elif event == "response":
            await self.take(payload)
        else:
            await self.take({"event": event, "payload": payload})

    async def reply(self, ref: str) -> Any:
        """The payload of the reply to a push."""

        def found() -> list[Any]:
            return [told[4] for told in self.replies if told[1] == ref]

        async with asyncio.timeout(_PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: found() or self.end)
        assert found(), f"no reply to {ref}: {self.end}"
        return found()[0]


@asynccontextmanager
async def speaker(arena: Arena, transport: str, backend: str = "", **changes: Any) -> AsyncIterator[Any]:
    """A client of this transport that has done its handshake. backend: "" for all of them as one; changes: of `initialize`."""
    path = f"/mcp/servers/{backend}" if backend else "/mcp"
    query = f"?backend={backend}" if backend else ""
    if transport == STATELESS:
        yield HttpSpeaker(arena, {}, path)
        return
    if transport == SESSION:
        opened = HttpSpeaker(arena, {}, path)
        await opened.ask("initialize", initialize(**changes))
        opened.headers = {"Mcp-Session-Id": opened.last_headers["Mcp-Session-Id"], "MCP-Protocol-Version": LEGACY}
        await opened.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield opened
        async with arena.http.delete(arena.gateway.url + path, headers=opened.headers):
            return
    if transport == SSE:
        found: Speaker = SseSpeaker(arena, query)
        stream = await arena.http.get(found.url, timeout=aiohttp.ClientTimeout(total=None))  # type: ignore[attr-defined]
        stream.raise_for_status()
        listening = asyncio.create_task(found.listen(stream))  # type: ignore[attr-defined]
        end = stream.close
    else:
        address = (
            f"{arena.gateway.url}/mcp/ws{query}" if transport == WEBSOCKET else f"{arena.gateway.url}/mcp/websocket?vsn=2.0.0"
        )
        assert transport in (WEBSOCKET, PHOENIX), transport
        socket = await arena.http.ws_connect(address, max_msg_size=0, autoping=True)
        found = SocketSpeaker(socket) if transport == WEBSOCKET else ChannelSpeaker(socket)
        listening = asyncio.create_task(found.listen())  # type: ignore[attr-defined]
        end = socket.close  # type: ignore[assignment]
    try:
        if isinstance(found, ChannelSpeaker):
            assert (await found.reply(await found.push("phx_join", b"{}")))["status"] == "ok"
        else:
            opened = read(await found.ask("initialize", initialize(**changes)))
            assert opened == "answered", opened
            await found.tell({"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield found
    finally:
        if (ending := end()) is not None:
            await ending
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
