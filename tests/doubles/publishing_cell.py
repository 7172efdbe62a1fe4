"""The real cell with one more endpoint: `GET /publish?topic=client.x&n=1` publishes, and answers once the event is stored.

`count` publishes as many, numbered from `n`; `size` is the length of a text in each.
"""

from __future__ import annotations

import asyncio
import json
import os
from urllib.parse import parse_qs

from mcp_gateway.actors.cell.cell import Cell
from mcp_gateway.actors.messages.node_link import CellContent, NodeLink
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.ports.edge_port import TopicFeed
from mcp_gateway.transports.protocol.topics.topic_log import TopicPattern


class _Publisher:
    """Knows its events by a key in the payload when they come back from the log."""

    def __init__(self, topics: TopicFeed) -> None:
        self._topics = topics
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._read_up_to = topics.last_id
        self._tasks: set[asyncio.Task[None]] = set()
        topics.follow(self._read)

    def handle(self, incoming: Incoming) -> None:
        task = asyncio.get_running_loop().create_task(self._publish(incoming))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, incoming: Incoming) -> None:
        query = {name: values[0] for name, values in parse_qs(incoming.query).items()}
        first = int(query.get("n", 0))
        for number in range(first, first + int(query.get("count", 1))):
            key = os.urandom(8).hex()
            stored = self._waiting[key] = asyncio.get_running_loop().create_future()
            self._topics.publish(query["topic"], {"n": number, "key": key, "text": "x" * int(query.get("size", 0))})
        event_id = await stored
        incoming.respond(200, json.dumps({"id": event_id, "pid": os.getpid()}).encode(), {"Connection": "close"})

    def _read(self) -> None:
        page = self._topics.read(self._read_up_to, TopicPattern("all"), 100_000)
        self._read_up_to = page.next_id
        for event in page.events:
            waiting = self._waiting.pop(event.payload.get("key", ""), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(event.id)


class PublishingCell(Cell):
    async def start(self) -> None:
        await super().start()
        self._server.add_endpoint("/publish", _Publisher(self._port.topics))


def make_cell(settings: Settings, cell_index: int, cell_name: str, link: NodeLink) -> CellContent:
    return PublishingCell(settings, cell_index, cell_name, link)
