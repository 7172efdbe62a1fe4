"""The channels of one Phoenix socket: who has joined which topic, and what happens to each message. Pure.

Source: Phoenix 1.8, `Phoenix.Socket` and `Phoenix.Channel.Server`. One order is ours: a channel that a new join replaces is
closed before the reply to that join, so that a client of serializer 1, which reads no `join_ref`, does not close the new one.
"""

from __future__ import annotations

from typing import Final

import attrs

from .phoenix_serializer import PhoenixMessage, Ref

MOST_CHANNELS: Final = 100
"""Of one socket. Source: Phoenix 1.8, `max_channels_per_transport`."""

_NOTHING: Final = b"{}"
_UNMATCHED: Final = b'{"reason":"unmatched topic"}'
_TOO_MANY: Final = b'{"reason":"too many channels joined"}'
_CRASHED: Final = b'{"reason":"channel_crash"}'


@attrs.frozen
class Reply:
    """Answer the message. join_ref: of the channel, None where there is none. response: JSON."""

    to: PhoenixMessage
    status: str
    response: bytes
    join_ref: Ref


@attrs.frozen
class Push:
    """Send the message."""

    message: PhoenixMessage


@attrs.frozen
class Join:
    """Open a channel, then say so with `joined` or `refused`."""

    message: PhoenixMessage


@attrs.frozen
class End:
    """The topic's channel is over: let go of what it held."""

    topic: str


@attrs.frozen
class Deliver:
    """The message is for the topic's channel."""

    message: PhoenixMessage


Instruction = Reply | Push | Join | End | Deliver


class JoinedChannels:
    """Decides over the messages of one socket. prefix: what topics of channels begin with ("mcp:")."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._join_refs: dict[str, Ref] = {}  # {topic: join_ref of its channel}

    def join_ref(self, topic: str) -> Ref:
        return self._join_refs[topic]

    # ---- the client's messages

    def receive(self, message: PhoenixMessage) -> list[Instruction]:
        topic, event = message.topic, message.event
        if topic == "phoenix" and event == "heartbeat":
            return [Reply(message, "ok", _NOTHING, None)]
        if event == "phx_join":
            return self._join(message)
        if topic not in self._join_refs:
            if event == "phx_leave":
                return [Reply(message, "ok", _NOTHING, message.join_ref)]
            return [Reply(message, "error", _UNMATCHED, None)]
        join_ref = self._join_refs[topic]
        if message.join_ref is not None and message.join_ref != join_ref:
            return []  # from before a rejoin: whoever sent it no longer waits
        if event == "phx_leave":
            del self._join_refs[topic]
            return [End(topic), Reply(message, "ok", _NOTHING, join_ref), _over(topic, join_ref, "phx_close", _NOTHING)]
        return [Deliver(message)]

    def _join(self, message: PhoenixMessage) -> list[Instruction]:
        topic = message.topic
        if not topic.startswith(self._prefix):
            return [Reply(message, "error", _UNMATCHED, None)]
        done: list[Instruction] = []
        if topic in self._join_refs:
            done = [End(topic), _over(topic, self._join_refs.pop(topic), "phx_close", _NOTHING)]
        if len(self._join_refs) >= MOST_CHANNELS:
            return [*done, Reply(message, "error", _TOO_MANY, message.join_ref)]
        return [*done, Join(message)]

    # ---- what became of a channel

    def joined(self, message: PhoenixMessage, response: bytes) -> list[Instruction]:
        """A `Join` was carried out."""
        self._join_refs[message.topic] = message.join_ref
        return [Reply(message, "ok", response, message.join_ref)]

    def refused(self, message: PhoenixMessage, response: bytes) -> list[Instruction]:
        """A `Join` was not."""
        return [Reply(message, "error", response, message.join_ref)]

    def crashed(self, topic: str) -> list[Instruction]:
        """The channel's handler failed: the client joins again."""
        join_ref = self._join_refs.pop(topic)
        return [End(topic), _over(topic, join_ref, "phx_error", _CRASHED)]


def _over(topic: str, join_ref: Ref, event: str, payload: bytes) -> Push:
    return Push(PhoenixMessage(join_ref, join_ref, topic, event, payload))
