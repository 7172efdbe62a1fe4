"""Event streams of topics: `GET /mcp/sse/events/{topic}`, read from the cell's log at each client's own pace."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.server.accept import EVENTS, names
from mcp_gateway.transports.downstream.server.incoming import Incoming, check_stream_is_taken, method_not_allowed
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.ports.hash_keys import query_value
from mcp_gateway.transports.ports.loop_tasks import retrieve
from mcp_gateway.transports.protocol.framing.sse import HEARTBEAT
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.topics.topic_cursor import Portion, TopicCursor
from mcp_gateway.transports.protocol.topics.topic_events import encode_connected, encode_gap, encode_topic_event, parse_event_id
from mcp_gateway.transports.protocol.topics.topic_log import Event, InvalidTopic, TopicPattern
from mcp_gateway.transports.telemetry import metrics

_TOPICS: Final = "/mcp/sse/events/"
TOPIC_STREAM_PATH: Final = f"{_TOPICS}…"
_TRANSPORT: Final = "http_sse"
_RETRY_MS: Final = 1_000
_ENCODED_EVENTS: Final = 256
_PORTIONS_PER_TURN: Final = 8
"""A client with a long backlog and a fast connection leaves the loop to the others now and then."""
_BEATS_PER_TURN: Final = 100
_FINEST_TICK_S: Final = 0.01


class TopicStreamEndpoint:
    """Opens the streams, and does for all of them together what needs to be done once: encoding, heartbeats, counting."""

    def __init__(self, settings: Settings, server: GatewayServer, port: EdgePort) -> None:
        http_sse = settings.transports.http_sse
        self._server = server
        self._port = port
        self._max_in_flight = http_sse.buffer_size
        self._heartbeat_s = http_sse.heartbeat_interval
        self._streams: OrderedDict[_TopicStream, float] = OrderedDict()  # {stream: when its heartbeat is due}, soonest first
        self._encoded: OrderedDict[int, bytes] = OrderedDict()  # {event id: bytes}
        self._timer: asyncio.TimerHandle | None = None
        self._delivered = metrics.events_delivered_total.labels(_TRANSPORT)
        self._lost = metrics.events_lost_total.labels(_TRANSPORT)
        server.on_drain(self._drain)

    def handle(self, incoming: Incoming) -> None:
        if _TRANSPORT not in self._port.enabled_transports:
            raise Refused("draining", "this transport is not served now")
        if incoming.method != "GET":
            method_not_allowed(incoming, "GET")
            return
        check_stream_is_taken(incoming)
        pattern = _pattern(incoming)
        self._server.check_topic(incoming.principal, pattern)
        pattern = self._port.permitted_topics(incoming.principal, pattern)
        after_id = _last_event_id(incoming)
        if self._port.is_draining:
            self._send_away(incoming)
            return
        self._server.take_connection(_TRANSPORT, incoming.holder)
        topics = self._port.topics
        starts_at = topics.last_id if after_id is None and topics.is_caught_up else None
        cursor = TopicCursor(pattern, after_id=after_id if starts_at is None else starts_at, max_in_flight=self._max_in_flight)
        stream = _TopicStream(self, incoming, cursor, pattern, topics.follow)
        stream.call_off = self._server.on_log_out(incoming.principal, stream.end)
        incoming.on_client_gone(stream.client_gone)
        incoming.begin({})
        incoming.write(encode_connected(pattern.text, starts_at, _RETRY_MS)).add_done_callback(retrieve)
        if self._heartbeat_s > 0:
            self._streams[stream] = time.monotonic() + self._heartbeat_s
            self._schedule_heartbeat()
        else:
            self._streams[stream] = float("inf")
        stream.pump()

    def _send_away(self, incoming: Incoming) -> None:
        """An EventSource would give up for good at any status but 200; a stream that ends makes it come back, elsewhere."""
        if not names(incoming.headers.get("Accept", ""), EVENTS):
            raise Refused("draining", "the gateway is draining")
        incoming.begin({"Connection": "close"})
        incoming.end()

    # ---- for the streams

    def take(self, cursor: TopicCursor) -> Portion:
        return cursor.take(self._port.topics, time.monotonic())

    def encode(self, portion: Portion) -> bytes:
        parts = [self._encode(event) for event in portion.events]
        if portion.gap is not None:
            parts.insert(0, encode_gap(portion.gap))
            self._lost.inc(portion.gap[1] - portion.gap[0] + 1)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _encode(self, event: Event) -> bytes:
        """Once for all who follow the newest events; those far behind must not push them out one by one."""
        encoded = self._encoded.get(event.id)
        if encoded is None:
            encoded = encode_topic_event(event)
            if event.id > self._port.topics.last_id - _ENCODED_EVENTS:
                self._encoded[event.id] = encoded
                while len(self._encoded) > _ENCODED_EVENTS:
                    self._encoded.popitem(last=False)
        return encoded

    def delivered(self, event_count: int) -> None:
        self._delivered.inc(event_count)

    def lag_began(self, pattern: TopicPattern, after_id: int | None) -> None:
        payload = {"transport": _TRANSPORT, "topic": pattern.text, "last_event_id": after_id}
        self._port.topics.publish("mcp.sse.backpressure", payload)

    def closed(self, stream: _TopicStream, incoming: Incoming) -> None:
        del self._streams[stream]
        incoming.when_sent(lambda: self._server.release_connection(_TRANSPORT, incoming.holder))

    # ---- all streams

    def _schedule_heartbeat(self) -> None:
        if self._timer is None and self._streams:
            delay_s = next(iter(self._streams.values())) - time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(delay_s, _FINEST_TICK_S), self._beat)

    def _beat(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for _ in range(min(_BEATS_PER_TURN, len(self._streams))):
            stream, due_s = next(iter(self._streams.items()))
            if due_s > now_s:
                break
            self._streams[stream] = now_s + self._heartbeat_s
            self._streams.move_to_end(stream)
            stream.beat()
        self._schedule_heartbeat()

    def _drain(self) -> None:
        for stream in list(self._streams):
            stream.end()


class _TopicStream:
    """One client's stream."""

    __slots__ = ("_again", "_cursor", "_endpoint", "_incoming", "_is_over", "_pattern", "_stop_following", "call_off")

    def __init__(
        self,
        endpoint: TopicStreamEndpoint,
        incoming: Incoming,
        cursor: TopicCursor,
        pattern: TopicPattern,
        follow: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self._endpoint = endpoint
        self._incoming = incoming
        self._cursor = cursor
        self._pattern = pattern
        self._is_over = False
        self._again: asyncio.TimerHandle | None = None
        self._stop_following = follow(self.pump)
        self.call_off: Callable[[], None]

    def pump(self) -> None:
        """Write what the client may have now."""
        if self._is_over:
            return
        for _ in range(_PORTIONS_PER_TURN):
            portion = self._endpoint.take(self._cursor)
            if portion.events or portion.gap is not None:
                self._write(portion)
            elif not portion.has_more:
                if portion.lag_began:
                    self._endpoint.lag_began(self._pattern, self._cursor.after_id)
                if portion.wait_s and self._again is None:
                    self._again = asyncio.get_running_loop().call_later(portion.wait_s, self._pump_again)
                return
        asyncio.get_running_loop().call_soon(self.pump)

    def _pump_again(self) -> None:
        self._again = None
        self.pump()

    def _write(self, portion: Portion) -> None:
        written = self._incoming.write(self._endpoint.encode(portion))
        if written.done():
            self._count(len(portion.events), written)
        else:
            written.add_done_callback(functools.partial(self._flushed, len(portion.events)))

    def _flushed(self, event_count: int, written: asyncio.Future[None]) -> None:
        self._count(event_count, written)
        self.pump()

    def _count(self, event_count: int, written: asyncio.Future[None]) -> None:
        if not written.cancelled() and written.exception() is None:  # otherwise the client has gone, and its callback tells
            self._cursor.flushed(event_count)
            self._endpoint.delivered(event_count)

    def beat(self) -> None:
        """A client that still has events on their way needs no proof of life, and one that does not read gets no more bytes."""
        if not self._cursor.in_flight:
            self._incoming.write(HEARTBEAT).add_done_callback(retrieve)

    def end(self) -> None:
        """End the stream, and with it the connection: another request on it would find a gateway that drains."""
        self._incoming.end()
        self.client_gone()

    def client_gone(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._stop_following()
            self.call_off()
            if self._again is not None:
                self._again.cancel()
            self._endpoint.closed(self, self._incoming)


def _pattern(incoming: Incoming) -> TopicPattern:
    try:
        return TopicPattern(unquote(incoming.path[len(_TOPICS) :]))
    except InvalidTopic as error:
        raise Refused("invalid_params", str(error)) from None


def _last_event_id(incoming: Incoming) -> int | None:
    """From the header, or else from the query: an EventSource cannot set the header, but does so by itself when it comes back."""
    text = incoming.headers.get("Last-Event-Id")
    if text is None:
        text = query_value(incoming.query, "last_event_id") or query_value(incoming.query, "lastEventId")
    if not text:
        return None
    event_id = parse_event_id(text)
    if event_id is None:
        raise Refused("invalid_params", f"Last-Event-ID is the id of an event, a whole number, not {text[:100]!r}")
    return event_id
