"""Followers of a topic, over SSE and on a Phoenix channel: they come back with the last id that they have seen."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
from typing import Any

import aiohttp

from .clients import CUTS, RETRY_S, Refused, sse_events
from .history import Following, Missed, Seen
from .recorder import Recorder
from .socket_clients import TOPIC, PhoenixSocket


class Follower(abc.ABC):
    """Follows until it is cancelled."""

    def __init__(self, url: str, name: str, recorder: Recorder) -> None:
        self.url = url
        self.name = name
        self._recorder = recorder
        self._last_id: int | None = None

    @abc.abstractmethod
    async def follow(self, after_id: int | None) -> None:
        """One stream, to its end; calls `seen` and `missed`.

        Raises: one of CUTS, Refused
        """

    async def keep_following(self) -> None:
        while True:
            with contextlib.suppress(*CUTS, Refused, ValueError):
                await self.follow(self._last_id)
            await asyncio.sleep(RETRY_S)

    def seen(self, event_id: int, payload: dict[str, Any]) -> None:
        if self._last_id is None:
            self._recorder.add(Following(follower=self.name, at_s=self._recorder.now_s()))
        self._last_id = event_id
        self._recorder.add(Seen(follower=self.name, event_id=event_id, number=payload["n"], at_s=self._recorder.now_s()))

    def missed(self, first_id: int, last_id: int) -> None:
        self._recorder.add(Missed(follower=self.name, first_id=first_id, last_id=last_id, at_s=self._recorder.now_s()))


class EventSourceFollower(Follower):
    async def follow(self, after_id: int | None) -> None:
        headers = {"Accept": "text/event-stream"} | ({} if after_id is None else {"Last-Event-ID": str(after_id)})
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"{self.url}/mcp/sse/events/{TOPIC}", headers=headers) as response,
        ):
            response.raise_for_status()
            async for fields in sse_events(response):
                data = json.loads(fields["data"])
                if fields.get("event") == "vsm_event":
                    self.seen(int(fields["id"]), data["payload"])
                elif fields.get("event") == "gap":
                    self.missed(data["first_id"], data["last_id"])


class ChannelFollower(Follower):
    async def follow(self, after_id: int | None) -> None:
        payload = {} if after_id is None else {"last_event_id": after_id}
        async with asyncio.timeout(10):
            socket = await PhoenixSocket.join(self.url, self.name, f"mcp:{TOPIC}", payload)
        try:
            while True:
                event, payload = await socket.read()
                if event == "event":
                    self.seen(payload["event_id"], payload["data"])
                elif event == "gap":
                    self.missed(payload["first_id"], payload["last_id"])
        finally:
            await socket.close()
