"""Phoenix sockets for clients: `new Socket("/mcp")` of the npm package connects to `/mcp/websocket` and joins channels `mcp:*`.

Source: Phoenix 1.8, `Phoenix.Socket` and "Writing a Channels Client"; what the channels serve is the gateway's contract.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from websockets.frames import CloseCode

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.exchanges.client_channel import (
    ClientChannel,
    ConnectedClient,
    Outlet,
    connected_client,
    logged_out,
)
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.downstream.websocket.websocket_connection import MOST_UNSENT_BYTES, WebSocket
from mcp_gateway.transports.downstream.websocket.websocket_upgrades import TRANSPORT, WebSockets
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.ports.hash_keys import holder_of, query_value
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.session import SessionState
from mcp_gateway.transports.protocol.topics.topic_log import InvalidTopic, TopicPattern

from .channel_messages import JoinParams, refusal_payload
from .joined_channels import Deliver, End, Instruction, Join, JoinedChannels, Push, Reply
from .phoenix_channel import PhoenixChannel
from .phoenix_serializer import Malformed, PhoenixMessage, Serializer, serializer_for
from .topic_pushes import Following, TopicPushes

PHOENIX_PATH: Final = "/mcp/websocket"
_SUBPROTOCOL: Final = "phoenix"
_PREFIX: Final = "mcp:"
_EVERYTHING: Final = "events"
"""The channel of every topic, as the seed's example joins it."""

_logger = logging.getLogger(__name__)


class PhoenixEndpoint:
    """Serves `GET /mcp/websocket`; the query names the serializer (`vsn`), the user (`user_id`) and perhaps one `backend`."""

    def __init__(self, settings: Settings, server: GatewayServer, port: EdgePort, sockets: WebSockets) -> None:
        self._server = server
        self._port = port
        self._sockets = sockets
        self.topics = TopicPushes(settings, port)

    def handle(self, incoming: Incoming) -> None:
        serializer = serializer_for(query_value(incoming.query, "vsn"))
        client = connected_client(incoming, TRANSPORT, self._port.terms.hash_keys)
        self._sockets.upgrade(incoming, _SUBPROTOCOL, lambda connection: PhoenixSocket(self, connection, serializer, client))

    # ---- for the sockets

    @property
    def port(self) -> EdgePort:
        return self._port

    def open_channel(self, outlet: Outlet, client: ConnectedClient) -> ClientChannel:
        return ClientChannel(self._port, self._server.limiter, self._server.buffered, outlet, client)

    def admit(self, client: ConnectedClient, session: SessionState | None) -> None:
        limiter = self._server.limiter
        if limiter.is_on:
            limiter.admit(self._port.terms.hash_keys.of_message(client.keys, session, "", None))

    def check_topic(self, client: ConnectedClient, pattern: TopicPattern) -> None:
        """Raises: Refused, where only operators may follow these topics."""
        self._server.check_topic(client.principal, pattern)

    def admit_event(self, client: ConnectedClient) -> None:
        self._server.limiter.admit_event(holder_of(client.keys))


class PhoenixSocket:
    """One client's socket: carries out what `JoinedChannels` decides. Implements `SocketUser` and `ChannelSocket`."""

    __slots__ = (
        "_channels",
        "_client",
        "_congested_until",
        "_connection",
        "_decisions",
        "_endpoint",
        "_serializer",
        "is_logged_out",
    )

    def __init__(self, endpoint: PhoenixEndpoint, connection: WebSocket, serializer: Serializer, client: ConnectedClient) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._serializer = serializer
        self._client = client
        self._decisions = JoinedChannels(_PREFIX)
        self._channels: dict[str, tuple[PhoenixChannel, Following]] = {}  # {topic: what serves it}
        self._congested_until: asyncio.Future[None] | None = None
        self.is_logged_out = False

    # ---- the WebSocket

    def take(self, data: bytes, is_text: bool) -> None:
        """A frame that is no Phoenix message ends the socket: there is no ref to which an error could be a reply."""
        try:
            message = self._serializer.decode(data, is_text)
        except Malformed as malformed:
            code = CloseCode.UNSUPPORTED_DATA if malformed.is_unsupported else CloseCode.INVALID_DATA
            self._connection.close(code, f"not a Phoenix message: {malformed}")
            return
        self._carry_out(self._decisions.receive(message))

    def closed(self) -> None:
        for topic in list(self._channels):
            self._end(topic)

    def when_idle(self, on_idle: Callable[[], None]) -> None:
        left = len(self._channels) + 1

        def one_is_idle() -> None:
            nonlocal left
            left -= 1
            if not left:
                on_idle()

        for channel, _ in list(self._channels.values()):
            channel.when_idle(one_is_idle)
        one_is_idle()

    def log_out(self, on_idle: Callable[[], None]) -> None:
        self.is_logged_out = True
        for channel, following in list(self._channels.values()):
            following.end()
            channel.log_out()
        self.when_idle(on_idle)

    # ---- what was decided

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Deliver):
                self._deliver(instruction.message)
            elif isinstance(instruction, Reply):
                reply = instruction
                self._send(self._serializer.encode_reply(reply.to, reply.status, reply.response, join_ref=reply.join_ref))
            elif isinstance(instruction, Push):
                self._send(self._serializer.encode(instruction.message))
            elif isinstance(instruction, End):
                self._end(instruction.topic)
            else:
                self._join(instruction)

    def _join(self, join: Join) -> None:
        message = join.message
        try:
            if self._endpoint.port.is_draining:
                raise Refused("draining", "the gateway is draining")
            if self.is_logged_out:
                raise logged_out()
            pattern = _pattern(message.topic.removeprefix(_PREFIX))
            self._endpoint.check_topic(self._client, pattern)
            pattern = self._endpoint.port.permitted_topics(self._client.principal, pattern)
            params = JoinParams.read(message.payload)
        except Refused as refused:
            self._carry_out(self._decisions.refused(message, refusal_payload(refused)))
            return
        channel = PhoenixChannel(self._endpoint.port, self, message.topic, params)
        following = self._endpoint.topics.follow(pattern, params.last_event_id, _ChannelOutlet(self, message.topic))
        self._channels[message.topic] = channel, following
        self._carry_out(self._decisions.joined(message, msgspec.json.encode({"topic": pattern.text})))

    def _deliver(self, message: PhoenixMessage) -> None:
        channel, _ = self._channels[message.topic]
        try:
            channel.take(message)
        except Exception:
            _logger.exception("a Phoenix channel failed")
            self._carry_out(self._decisions.crashed(message.topic))

    def _end(self, topic: str) -> None:
        channel, following = self._channels.pop(topic)
        following.end()
        channel.close()

    # ---- for the channels

    @property
    def is_congested(self) -> bool:
        return self._connection.unsent_bytes > MOST_UNSENT_BYTES

    def push(self, topic: str, event: str, payload: bytes) -> asyncio.Future[None] | None:
        if topic not in self._channels:
            return None
        join_ref = self._decisions.join_ref(topic)
        return self._send(self._serializer.encode(PhoenixMessage(join_ref, None, topic, event, payload)))

    def reply(self, to: PhoenixMessage, status: str, response: bytes) -> None:
        """Answer a push; one without a ref asked for no answer, and of one from before a rejoin nobody waits for it."""
        if to.ref is not None and to.topic in self._channels:
            join_ref = self._decisions.join_ref(to.topic)
            self._send(self._serializer.encode_reply(to, status, response, join_ref=join_ref))

    def open_client(self, outlet: Outlet) -> ClientChannel:
        return self._endpoint.open_channel(outlet, self._client)

    def running_count(self) -> int:
        return sum(channel.running_count() for channel, _ in self._channels.values())

    def admit(self, client: ClientChannel | None) -> None:
        self._endpoint.admit(self._client, None if client is None else client.session)

    def admit_event(self, topic: str) -> None:
        self._endpoint.port.check_published(self._client.principal, topic)
        self._endpoint.admit_event(self._client)

    def _send(self, data: bytes) -> asyncio.Future[None] | None:
        written = self._connection.send(data)
        if written is not None and self.is_congested:
            if self._congested_until is None:
                written.add_done_callback(self._sent)
            self._congested_until = written
        return written

    def _sent(self, written: asyncio.Future[None]) -> None:
        """What congested the socket is sent, perhaps: the events that were held up may follow."""
        until, self._congested_until = self._congested_until, None
        if self.is_congested and until is not None:
            self._congested_until = until
            until.add_done_callback(self._sent)
            return
        for _, following in list(self._channels.values()):
            following.pump()


class _ChannelOutlet:
    """Where the events of one channel's topic go. Implements `topic_pushes.TopicOutlet`."""

    __slots__ = ("_socket", "_topic")

    def __init__(self, socket: PhoenixSocket, topic: str) -> None:
        self._socket = socket
        self._topic = topic

    @property
    def is_congested(self) -> bool:
        return self._socket.is_congested

    def push(self, event: str, payload: bytes) -> asyncio.Future[None] | None:
        return self._socket.push(self._topic, event, payload)


def _pattern(name: str) -> TopicPattern:
    try:
        return TopicPattern("all" if name == _EVERYTHING else name)
    except InvalidTopic as error:
        raise Refused("invalid_params", str(error)) from None
