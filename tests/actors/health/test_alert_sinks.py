"""Alerts on their way to a real local server: signed, tried again, and none lost because of another one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from mcp_gateway.actors.edge.topic_feed import CellTopicFeed
from mcp_gateway.actors.health.alert_sinks import AlertDispatcher
from mcp_gateway.config.settings import AlertsSettings
from mcp_gateway.transports.protocol.topics.topic_log import TopicLog
from tests.doubles.patience import until
from tests.doubles.ports import free_port

SECRET = "whsec_" + base64.b64encode(b"a key of the test").decode()


class Receiver:
    """A webhook that answers as it is told. taken: bodies with a valid signature, answered with 200."""

    def __init__(self) -> None:
        self.port = free_port()
        self.statuses: list[int] = []
        self.taken: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.hangs = False
        self.hung_count = 0

    async def _handle(self, request: web.Request) -> web.Response:
        if self.hangs:
            self.hung_count += 1
            await asyncio.sleep(60)
        body = await request.read()
        content = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.new(b"a key of the test", content, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{signature}"
        assert abs(time.time() - int(request.headers["webhook-timestamp"])) < 60
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.taken.append(json.loads(body))
            self.ids.append(request.headers["webhook-id"])
        return web.Response(status=status)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_post("/hook", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    def numbers(self) -> list[int]:
        return [each["data"]["number"] for each in self.taken]


class Events:
    """A feed that the test fills."""

    def __init__(self) -> None:
        self.feed = CellTopicFeed(10_000, lambda: None)
        self._log = TopicLog(10_000)
        self._count = 0

    def publish(self, topic: str = "vsm.algedonic.pain", *, age_s: float = 0.0) -> None:
        payload = {"number": self._count, "source": "x", "reason": "r", "intensity": 0.5}
        event = self._log.append(topic, payload, int((time.time() - age_s) * 1000))
        self._count += 1
        self.feed.take([event], True)


def on_loop(body: Callable[[Receiver, Events], Awaitable[None]]) -> None:
    async def run() -> None:
        await body(Receiver(), Events())

    asyncio.run(run())


@asynccontextmanager
async def dispatching(receiver: Receiver, events: Events, **settings: Any) -> AsyncIterator[None]:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    options = {"webhook_url": url, "webhook_secret": SECRET, "webhook_timeout": 10.0, "log": False, **settings}
    dispatcher = AlertDispatcher(AlertsSettings(**options), events.feed)
    try:
        yield
    finally:
        await dispatcher.close()


def test_an_alert_arrives_with_a_valid_signature() -> None:
    async def body(receiver: Receiver, events: Events) -> None:
        async with receiver.listening(), dispatching(receiver, events):
            events.publish()
            events.publish("mcp.transport.started")  # nobody's alert
            events.publish("mcp.health.failed")
            await until(lambda: len(receiver.taken) == 2)
        assert [each["type"] for each in receiver.taken] == ["vsm.algedonic.pain", "mcp.health.failed"]

    on_loop(body)


def test_a_dead_sink_loses_no_later_alert() -> None:
    async def body(receiver: Receiver, events: Events) -> None:
        async with dispatching(receiver, events):
            for _ in range(3):
                events.publish()
            await asyncio.sleep(0)
            async with receiver.listening():
                events.publish()
                await until(lambda: len(receiver.taken) == 4)
        assert receiver.numbers() == [0, 1, 2, 3]

    on_loop(body)


def test_a_sink_that_hangs_or_fails_is_tried_again_and_one_that_refuses_is_not() -> None:
    async def body(receiver: Receiver, events: Events) -> None:
        receiver.statuses = [503, 429, 200, 400, 200]
        receiver.hangs = True
        async with receiver.listening(), dispatching(receiver, events, webhook_timeout=1.0):
            events.publish()
            await until(lambda: receiver.hung_count == 2)  # past the sink's time-out
            receiver.hangs = False
            await until(lambda: len(receiver.taken) == 1)
            events.publish()  # 400: it will never be taken
            events.publish()
            await until(lambda: len(receiver.taken) == 2)
        assert receiver.numbers() == [0, 2]
        assert len(set(receiver.ids)) == 2

    on_loop(body)


def test_a_full_queue_gives_up_the_oldest_and_an_emergency_is_first() -> None:
    async def body(receiver: Receiver, events: Events) -> None:
        async with dispatching(receiver, events, queue_size=5):
            events.publish()
            await asyncio.sleep(0.1)  # the first one is being tried in vain
            for _ in range(9):
                events.publish()
            events.publish("vsm.algedonic.emergency")
            await asyncio.sleep(0)
            async with receiver.listening():
                await until(lambda: len(receiver.taken) == 5)
        assert receiver.numbers() == [10, 6, 7, 8, 9]

    on_loop(body)


def test_a_dispatcher_that_starts_tells_of_what_has_just_happened_and_not_of_yesterday() -> None:
    """The one before it may have died with it untold; the receiver knows a repetition by its id."""

    async def body(receiver: Receiver, events: Events) -> None:
        events.publish(age_s=86_400.0)
        events.publish(age_s=2.0)
        async with receiver.listening():
            for _ in range(2):
                async with dispatching(receiver, events):
                    seen = len(receiver.taken)
                    await until(lambda seen=seen: len(receiver.taken) > seen)  # type: ignore[misc]
        assert receiver.numbers() == [1, 1]
        assert len(set(receiver.ids)) == 1

    on_loop(body)
