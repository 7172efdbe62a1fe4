"""Events of topics for Phoenix channels, read from the cell's log at each client's own pace."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.websocket.websocket_upgrades import TRANSPORT
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.protocol.topics.topic_cursor import Portion, TopicCursor
from mcp_gateway.transports.protocol.topics.topic_log import Event, TopicPattern
from mcp_gateway.transports.telemetry import metrics

from .channel_messages import event_payload, gap_payload

_ENCODED_EVENTS: Final = 256
_PORTIONS_PER_TURN: Final = 8
"""A client with a long backlog and a fast connection leaves the loop to the others now and then."""


class TopicOutlet(Protocol):
    """Where events go. is_congested: much waits for the client to read; `Following.pump` is called when it has."""

    @property
    def is_congested(self) -> bool: ...

    def push(self, event: str, payload: bytes) -> asyncio.Future[None] | None:
        """Push to the channel; as `WebSocket.send`."""


class TopicPushes:
    """What is done once for all channels of the cell: encoding, counting."""

    def __init__(self, settings: Settings, port: EdgePort) -> None:
        self._port = port
        self.max_in_flight = settings.transports.http_sse.buffer_size
        self._encoded: OrderedDict[int, bytes] = OrderedDict()  # {event id: payload}
        self._delivered = metrics.events_delivered_total.labels(TRANSPORT)
        self._lost = metrics.events_lost_total.labels(TRANSPORT)

    def follow(self, pattern: TopicPattern, after_id: int | None, outlet: TopicOutlet) -> Following:
        """Push what comes from now on, or after the event that the client has seen last."""
        topics = self._port.topics
        starts_at = topics.last_id if after_id is None and topics.is_caught_up else after_id
        cursor = TopicCursor(pattern, after_id=starts_at, max_in_flight=self.max_in_flight)
        following = Following(self, cursor, pattern, outlet, topics.follow, has_backlog=after_id is not None)
        asyncio.get_running_loop().call_soon(following.pump)
        return following

    # ---- for those who follow

    def take(self, cursor: TopicCursor) -> Portion:
        return cursor.take(self._port.topics, time.monotonic())

    def encode(self, event: Event) -> bytes:
        """Once for all who follow the newest events; those far behind must not push them out one by one."""
        encoded = self._encoded.get(event.id)
        if encoded is None:
            encoded = event_payload(event)
            if event.id > self._port.topics.last_id - _ENCODED_EVENTS:
                self._encoded[event.id] = encoded
                while len(self._encoded) > _ENCODED_EVENTS:
                    self._encoded.popitem(last=False)
        return encoded

    def lost(self, event_count: int) -> None:
        self._lost.inc(event_count)

    def delivered(self) -> None:
        self._delivered.inc()

    def waits_for(self, pattern: TopicPattern, after_id: int) -> bool:
        """Whether there is an event that a channel has not been sent yet."""
        return bool(self._port.topics.read(after_id, pattern, 1).events)

    def lag_began(self, pattern: TopicPattern, after_id: int | None) -> None:
        payload = {"transport": TRANSPORT, "topic": pattern.text, "last_event_id": after_id}
        self._port.topics.publish("mcp.sse.backpressure", payload)


class Following:
    """One channel's place in the log."""

    __slots__ = ("_again", "_cursor", "_is_lagging", "_is_over", "_outlet", "_pattern", "_stop_following", "_topics")

    def __init__(
        self,
        topics: TopicPushes,
        cursor: TopicCursor,
        pattern: TopicPattern,
        outlet: TopicOutlet,
        follow: Callable[[Callable[[], None]], Callable[[], None]],
        *,
        has_backlog: bool,
    ) -> None:
        self._topics = topics
        self._cursor = cursor
        self._pattern = pattern
        self._outlet = outlet
        self._is_lagging = has_backlog  # from before it came, which is not its slowness
        self._is_over = False
        self._again: asyncio.TimerHandle | None = None
        self._stop_following = follow(self.pump)

    def pump(self) -> None:
        """Push what the client may have now."""
        for _ in range(_PORTIONS_PER_TURN):
            if self._is_over:
                return
            if self._outlet.is_congested:
                self._hold_back()
                return
            portion = self._topics.take(self._cursor)
            if portion.gap is not None:
                first_id, last_id = portion.gap
                self._topics.lost(last_id - first_id + 1)
                self._outlet.push("gap", gap_payload(first_id, last_id))
            for event in portion.events:
                self._push(event)
            if portion.lag_began:
                self._begin_lag()
            elif not portion.has_more and self._cursor.in_flight < self._topics.max_in_flight:
                self._is_lagging = False
            if portion.wait_s and self._again is None:
                self._again = asyncio.get_running_loop().call_later(portion.wait_s, self._pump_again)
            if not (portion.events or portion.gap or portion.has_more):
                return
        asyncio.get_running_loop().call_soon(self.pump)

    def _pump_again(self) -> None:
        self._again = None
        self.pump()

    def _hold_back(self) -> None:
        """The socket has enough to send: find out whether that keeps anything from the channel."""
        after_id = self._cursor.after_id
        if not self._is_lagging and after_id is not None and self._topics.waits_for(self._pattern, after_id):
            self._begin_lag()

    def _begin_lag(self) -> None:
        """Tell of it once, until the channel has caught up."""
        if not self._is_lagging:
            self._is_lagging = True
            self._topics.lag_began(self._pattern, self._cursor.after_id)

    def _push(self, event: Event) -> None:
        written = self._outlet.push("event", self._topics.encode(event))
        if written is None:
            self._cursor.flushed(1)
        elif written.done():
            self._count(written)
        else:
            written.add_done_callback(self._flushed)

    def _flushed(self, written: asyncio.Future[None]) -> None:
        self._count(written)
        if not self._cursor.in_flight:
            self.pump()

    def _count(self, written: asyncio.Future[None]) -> None:
        if not written.cancelled() and written.exception() is None:  # otherwise the client has gone, and its socket tells
            self._cursor.flushed(1)
            self._topics.delivered()

    def end(self) -> None:
        self._is_over = True
        self._stop_following()
        if self._again is not None:
            self._again.cancel()
