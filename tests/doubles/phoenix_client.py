"""A Phoenix client of raw messages, whose `join_ref` never equals a `ref`: it sees what the npm client would smooth over."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
from websockets.asyncio.client import ClientConnection, connect

_TIMEOUT_S = 10.0


@attrs.frozen
class Told:
    """One message of the server."""

    join_ref: Any
    ref: Any
    topic: str
    event: str
    payload: Any

    @property
    def status(self) -> str:
        assert self.event == "phx_reply", self
        return str(self.payload["status"])

    @property
    def response(self) -> Any:
        assert self.event == "phx_reply", self
        return self.payload["response"]


class PhoenixClient:
    """Speaks serializer 2.0.0. Messages that nobody has waited for stay in `told`, in their order."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.told: list[Told] = []
        self._refs = itertools.count(1)

    async def send(self, join_ref: Any, ref: Any, topic: str, event: str, payload: Any) -> None:
        await self.connection.send(json.dumps([join_ref, ref, topic, event, payload]))

    async def push(self, join_ref: Any, topic: str, event: str, payload: Any) -> str:
        """Push, without waiting for the reply; its ref."""
        ref = f"r{next(self._refs)}"
        await self.send(join_ref, ref, topic, event, payload)
        return ref

    async def ask(self, join_ref: Any, topic: str, event: str, payload: Any) -> Told:
        """Push, and wait for the reply."""
        ref = await self.push(join_ref, topic, event, payload)
        return await self.find(event="phx_reply", ref=ref)

    async def join(self, topic: str = "mcp:events", payload: Any = None, *, join_ref: str = "j1") -> Told:
        reply = await self.ask(join_ref, topic, "phx_join", {} if payload is None else payload)
        assert (reply.status, reply.join_ref) == ("ok", join_ref), reply
        return reply

    async def request(self, method: str, params: Any = None, *, id: Any = "q1", topic: str = "mcp:events") -> Any:
        """Push a request; the `response` that is pushed, which must be what the reply says."""
        reply = await self.ask("j1", topic, "request", {"method": method, "params": params or {}, "id": id})
        pushed = await self.find(event="response", topic=topic)
        assert pushed.payload == reply.response
        assert reply.status == ("error" if "error" in pushed.payload else "ok")
        assert (pushed.payload["type"], pushed.payload["id"]) == ("response", id)
        return pushed.payload

    async def event(self, name: str, topic: str = "mcp:events") -> Told:
        """The next `event` with this name inside."""
        return await self.find(event="event", topic=topic, name=name)

    async def find(self, *, name: str | None = None, **wanted: Any) -> Told:
        """The first message, of those to come as well, with these members. name: the `event` in its payload."""
        checked = 0
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                for told in self.told[checked:]:
                    is_wanted = wanted.items() <= attrs.asdict(told, recurse=False).items()
                    if is_wanted and (name is None or told.payload.get("event") == name):
                        self.told.remove(told)
                        return told
                checked = len(self.told)
                self.told.append(await self.receive())

    async def receive(self) -> Told:
        async with asyncio.timeout(_TIMEOUT_S):
            return Told(*json.loads(await self.connection.recv()))


@asynccontextmanager
async def phoenix_client(
    url: str, query: str = "vsn=2.0.0", headers: Mapping[str, str] | None = None
) -> AsyncIterator[PhoenixClient]:
    """url: of the gateway, without a path. headers: of the handshake."""
    async with connect(f"ws{url[4:]}/mcp/websocket?{query}", max_size=None, additional_headers=headers) as connection:
        yield PhoenixClient(connection)
