"""One joined Phoenix channel: MCP requests in, their answers and the events of a topic out.

What the client pushes:
* `request {method, params, id}`: any MCP method; `echo` and `time` are answered here. The reply is `ok` or `error` once there is
  an answer, which is pushed as well, as `response {type: "response", id, result | error}`. A method `notifications/...` has none:
  its reply is `ok {}` at once. In `notifications/cancelled`, `requestId` is the id of a `request`.
* `event {event, data}`: published as `client.<event>`; reply `ok {}`.
* `response {id, result | error}`: the answer to what a server asked; reply `ok {}`.
* `ping`: reply `ok {type: "pong", timestamp}`.

What is pushed to it:
* `event {event, data, timestamp, event_id}`: an event of the topic. A client that joins again with `{last_event_id}` misses none;
  `gap {first_id, last_id, count}` tells of those that are no longer kept.
* `event {event, data, timestamp, id}`: what a server says while it serves the request with this id (`notifications/progress`,
  `notifications/message`); without `id` what it says outside of any.
* `event {event, data, timestamp, id, request_id}`: what a server asks (`elicitation/create`), to be answered by a `response` with
  this `request_id` as its `id`.

A client that has sent `initialize` has a session, as long as the channel. Without one each request is served statelessly, with
what the join said of the client (see `channel_messages.JoinParams`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

import attrs
import msgspec

from mcp_gateway.transports.downstream.exchanges.client_channel import MOST_OPEN_REQUESTS, ClientChannel, Outlet, logged_out
from mcp_gateway.transports.downstream.exchanges.request_metrics import count_request
from mcp_gateway.transports.downstream.websocket.websocket_upgrades import TRANSPORT
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import NULL, Notification, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.topics.client_events import check_client_event

from .channel_messages import (
    CANCELLED,
    ChannelRequest,
    JoinParams,
    in_session,
    message_payload,
    read_event,
    read_request,
    read_response,
    refusal_payload,
    response_payload,
    stateless,
)
from .phoenix_serializer import PhoenixMessage

_EMPTY: Final = b"{}"


class ChannelSocket(Protocol):
    """What a channel asks of its socket. is_logged_out: what its client has shown has ended; nothing more is begun for it."""

    is_logged_out: bool

    def push(self, topic: str, event: str, payload: bytes) -> asyncio.Future[None] | None:
        """Push to the topic's channel; as `WebSocket.send`."""

    def reply(self, to: PhoenixMessage, status: str, response: bytes) -> None: ...

    def open_client(self, outlet: Outlet) -> ClientChannel: ...

    def running_count(self) -> int:
        """Requests of all its channels that run now."""

    def admit(self, client: ClientChannel | None) -> None:
        """Count what the client does, other than the requests that its ClientChannel counts.

        Raises: Refused with rate_limited.
        """

    def admit_event(self, topic: str) -> None:
        """Count one event that the client publishes.

        Raises: Refused with rate_limited, or with why it may not.
        """


@attrs.frozen
class _Running:
    """A request without its answer yet. id: the client's, as JSON; pushed: what to reply to, without its payload."""

    pushed: PhoenixMessage
    id: bytes
    method: str


class PhoenixChannel:
    """Serves what is pushed to one channel. Implements `client_channel.Outlet`."""

    def __init__(self, port: EdgePort, socket: ChannelSocket, topic: str, join: JoinParams) -> None:
        self._port = port
        self._socket = socket
        self._topic = topic
        self._join = join
        self._client: ClientChannel | None = None  # made for the first request: most channels only listen
        self._ids = itertools.count(1)
        self._running: dict[bytes, _Running] = {}  # {our id of a request, as JSON: the request}

    # ---- the client's pushes

    def take(self, message: PhoenixMessage) -> None:
        try:
            if self._socket.is_logged_out and message.event != "response":
                raise logged_out()
            if message.event == "request":
                self._request(message)
            elif message.event == "event":
                self._event(message)
            elif message.event == "response":
                self._response(message)
            elif message.event == "ping":
                self._socket.reply(message, "ok", b'{"type":"pong","timestamp":%d}' % _now_ms())
            else:
                raise Refused("invalid_request", "this channel takes request, response, event and ping")
        except Refused as refused:
            self._socket.reply(message, "error", refusal_payload(refused))

    def _event(self, message: PhoenixMessage) -> None:
        topic, payload = check_client_event(*read_event(message.payload))
        self._socket.admit(self._client)
        self._socket.admit_event(topic)
        self._port.topics.publish(topic, payload)
        self._socket.reply(message, "ok", _EMPTY)

    def _response(self, message: PhoenixMessage) -> None:
        response = read_response(message.payload)
        if self._client is None:
            raise Refused("invalid_request", "the response answers no request of this channel")
        self._client.receive_message(response)
        self._socket.reply(message, "ok", _EMPTY)

    def _request(self, message: PhoenixMessage) -> None:
        request_id = NULL
        try:
            request = read_request(message.payload)
            request_id = request.id
            if request.method.startswith("notifications/"):
                self._notify(request)
                self._socket.reply(message, "ok", _EMPTY)
            elif request.method in ("echo", "time"):
                self._answer_here(message, request)
            else:
                self._ask(message, request)
        except Refused as refused:
            shown = refused.request_id if request_id == NULL and refused.request_id is not None else request_id
            self._answer(message, shown, _response_in(refused.body()))

    def _answer_here(self, message: PhoenixMessage, request: ChannelRequest) -> None:
        self._socket.admit(self._client)
        count_request(TRANSPORT, request.method, "", "ok", 0.0, 0.0)
        result = request.params
        if request.method == "time":
            now = datetime.now(UTC)
            result = msgspec.json.encode({"time": now.isoformat(), "timestamp": int(now.timestamp() * 1000)})
        self._answer(message, request.id, Response(NULL, result, b""))

    def _ask(self, message: PhoenixMessage, request: ChannelRequest) -> None:
        client = self._client
        if client is None:
            client = self._client = self._socket.open_client(self)
        if self._socket.running_count() >= MOST_OPEN_REQUESTS:
            raise Refused("too_many_connections", f"{MOST_OPEN_REQUESTS} requests run on this socket at once")
        request_id = b"%d" % next(self._ids)
        is_in_session = client.session is not None or request.method in ("initialize", "ping")
        asked = in_session(request, request_id) if is_in_session else stateless(request, request_id, self._join)
        pushed = msgspec.structs.replace(message, payload=b"")
        self._running[request_id] = _Running(pushed, request.id, request.method)
        try:
            client.receive_message(asked)
        except Refused:
            self._running.pop(request_id, None)
            raise

    def _notify(self, request: ChannelRequest) -> None:
        if self._client is None:
            return  # nothing runs for it, and nobody has a session that it could tell of
        if request.method != "notifications/cancelled":
            self._client.receive_message(Notification(request.method, request.params))
            return
        try:
            params = jsonrpc.members(request.params)
            cancelled = msgspec.json.encode(jsonrpc.id_value(params["requestId"]))
        except (KeyError, msgspec.DecodeError, ValueError):
            return  # Source: MCP 2026-07-28, basic/patterns/cancellation: what makes no sense is ignored
        for request_id, running in [each for each in self._running.items() if each[1].id == cancelled]:
            shown = msgspec.json.encode({**params, "requestId": msgspec.Raw(request_id)})
            self._client.receive_message(Notification(request.method, shown))
            if not self._client.is_running(request_id):
                del self._running[request_id]
                self._answer(running.pushed, running.id, Response(NULL, b"", CANCELLED))

    # ---- what servers say

    def send(self, data: bytes, about: bytes | None) -> asyncio.Future[None] | None:
        message = jsonrpc.decode(data)
        if isinstance(message, Response):
            running = self._running.pop(about, None) if about is not None else None
            return None if running is None else self._answer(running.pushed, running.id, message)
        running = self._running.get(about) if about is not None else None
        payload = message_payload(message, _now_ms(), about, None if running is None else running.id)
        return self._socket.push(self._topic, "event", payload)

    def _answer(self, pushed: PhoenixMessage, request_id: bytes, answer: Response) -> asyncio.Future[None] | None:
        payload = response_payload(request_id, answer)
        self._socket.reply(pushed, "error" if answer.error else "ok", payload)
        return self._socket.push(self._topic, "response", payload)

    # ---- the end

    def running_count(self) -> int:
        if self._client is not None and len(self._running) >= MOST_OPEN_REQUESTS // 2:
            # Some may have ended without an answer, as a subscription does that its server ends.
            self._running = {each: running for each, running in self._running.items() if self._client.is_running(each)}
        return len(self._running)

    def when_idle(self, on_idle: Callable[[], None]) -> None:
        if self._client is None:
            on_idle()
        else:
            self._client.when_idle(on_idle)

    def log_out(self) -> None:
        """What its client has shown has ended."""
        if self._client is not None:
            self._client.log_out(_nothing)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _nothing() -> None:
    """The socket waits for all its channels by itself."""


def _response_in(body: bytes) -> Response:
    message = jsonrpc.decode(body)
    assert isinstance(message, Response)
    return message


def _now_ms() -> int:
    return int(time.time() * 1000)
