"""Where alerts go: to the log, and to a webhook. Each sink has a queue and a task of its own: one that is dead delays nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mcp_gateway.config.settings import AlertsSettings
from mcp_gateway.transports.ports.edge_port import TopicFeed
from mcp_gateway.transports.protocol.topics.node_events import is_of_node
from mcp_gateway.transports.protocol.topics.topic_log import Event, TopicPattern
from mcp_gateway.transports.telemetry import metrics

from .alerts import Alert, AlertQueue, Severity, alert_of, signed_headers

if TYPE_CHECKING:
    import aiohttp

_logger = logging.getLogger(__name__)

_LOOK_BACK_MS = 30_000
"""A dispatcher that starts tells of what happened so shortly before: the one before it may have died with it untold."""

_PAGE = 100
_LEVELS = {Severity.CRITICAL: logging.ERROR, Severity.WARNING: logging.WARNING, Severity.RESOLVED: logging.INFO}


class SinkFailed(Exception):
    """An alert was not passed on, and trying again may help."""


class Sink(Protocol):
    """Takes alerts one at a time."""

    name: str

    async def send(self, alert: Alert) -> bool:
        """Pass it on. False: it will never be taken, so that trying again is of no use.

        Raises: SinkFailed.
        """

    async def close(self) -> None: ...


class LogSink:
    """Writes each alert as a line of the log."""

    name = "log"

    async def send(self, alert: Alert) -> bool:
        # A warning at most: lines of level error are defects of the gateway itself.
        level = min(_LEVELS[alert.severity], logging.WARNING)
        fields = {"alert_id": alert.alert_id, **alert.payload}
        _logger.log(level, alert.text, extra={"actor": "alerts", "fields": fields})
        return True

    async def close(self) -> None:
        """Nothing is held."""


class WebhookSink:
    """Posts each alert, signed. Loads what it posts with when there is one to post: most gateways have no webhook."""

    name = "webhook"

    def __init__(self, settings: AlertsSettings) -> None:
        self._settings = settings
        self._http: aiohttp.ClientSession | None = None

    async def send(self, alert: Alert) -> bool:
        import aiohttp

        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.webhook_timeout)
            self._http = aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "mcp-gateway"})
        body = alert.body()
        headers = signed_headers(alert, body, self._settings.webhook_secret, int(time.time()))
        url = self._settings.webhook_url
        try:
            async with self._http.post(url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise SinkFailed(f"{type(error).__name__}: {error}") from error
        if 200 <= status < 300:
            return True
        if 400 <= status < 500 and status not in (408, 425, 429):
            return False
        raise SinkFailed(f"the webhook answered with status {status}")

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


class _Delivery:
    """One sink, its queue, and the task that brings what waits in the one to the other."""

    def __init__(self, sink: Sink, most: int) -> None:
        self._sink = sink
        self._queue = AlertQueue(most)
        self._has_news = asyncio.Event()
        self._is_failing = False
        self._task = asyncio.get_running_loop().create_task(self._run())

    def add(self, alert: Alert) -> None:
        if self._queue.add(alert) is not None:
            self._count("given_up")
        self._has_news.set()

    async def _run(self) -> None:
        while True:
            alert = self._queue.next
            if alert is None:
                self._has_news.clear()
                await self._has_news.wait()
                continue
            if (wait_s := self._queue.wait_s(time.monotonic())) > 0:
                await asyncio.sleep(wait_s)
                continue
            await self._try(alert)

    async def _try(self, alert: Alert) -> None:
        try:
            is_taken = await self._sink.send(alert)
        except SinkFailed as error:
            pause_s = self._queue.failed(time.monotonic())
            self._count("failed")
            if not self._is_failing:  # once, not for every try: a sink may be dead for days
                self._is_failing = True
                text = f"alerts to the {self._sink.name} fail, {len(self._queue)} wait: {error}"
                _logger.warning(text, extra={"actor": "alerts", "fields": {"retry_in_s": pause_s}})
            return
        self._is_failing = False
        self._queue.sent(alert)
        self._count("delivered" if is_taken else "refused")
        if not is_taken:
            fields = {"alert_id": alert.alert_id}
            _logger.warning(f"the {self._sink.name} refuses an alert", extra={"actor": "alerts", "fields": fields})

    def _count(self, outcome: str) -> None:
        metrics.alerts_total.labels(self._sink.name, outcome).inc()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._sink.close()


class AlertDispatcher:
    """Follows the topics that are alerts and gives each event to every sink. One cell of a node runs it, for what the node says.

    node: its name in the cluster, "" where there is none.
    """

    def __init__(self, settings: AlertsSettings, feed: TopicFeed, node: str = "") -> None:
        self._node = node
        self._feed = feed
        self._patterns = tuple(TopicPattern(topic) for topic in settings.topics)
        sinks: list[Sink] = [LogSink()] if settings.log else []
        if settings.webhook_url:
            sinks.append(WebhookSink(settings))
        self._deliveries = [_Delivery(sink, settings.queue_size) for sink in sinks]
        self._earliest_ms = int(time.time() * 1000) - _LOOK_BACK_MS
        self._read_to = 0
        self._stop_following: Callable[[], None] = feed.follow(self._on_news)
        self._on_news()

    def _on_news(self) -> None:
        has_more = True
        while has_more:
            page = self._feed.read(self._read_to, _EVERYTHING, _PAGE)
            has_more, self._read_to = page.has_more and page.next_id > self._read_to, page.next_id
            for event in page.events:
                self._take(event)

    def _take(self, event: Event) -> None:
        if event.timestamp_ms < self._earliest_ms or not any(pattern.matches(event.topic) for pattern in self._patterns):
            return
        if not is_of_node(event, self._node):
            return
        alert = alert_of(event.id, event.topic, event.payload if isinstance(event.payload, dict) else {}, event.timestamp_ms)
        for delivery in self._deliveries:
            delivery.add(alert)

    async def close(self) -> None:
        self._stop_following()
        for delivery in self._deliveries:
            await delivery.close()


_EVERYTHING = TopicPattern("all")
