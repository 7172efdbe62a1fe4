"""The channels of a Phoenix socket: a table of what each message does, then any sequence of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.phoenix.joined_channels import (
    MOST_CHANNELS,
    Deliver,
    End,
    Instruction,
    Join,
    JoinedChannels,
    Push,
    Reply,
)
from mcp_gateway.transports.downstream.phoenix.phoenix_serializer import PhoenixMessage

TOPIC = "mcp:events"
OTHER = "mcp:vsm.*"


def message(join_ref: Any, ref: Any, topic: str, event: str, payload: bytes = b"{}") -> PhoenixMessage:
    return PhoenixMessage(join_ref, ref, topic, event, payload)


def joined(*topics: str, join_ref: Any = "j1") -> JoinedChannels:
    channels = JoinedChannels("mcp:")
    for topic in topics:
        asked = message(join_ref, "r1", topic, "phx_join")
        assert channels.receive(asked) == [Join(asked)]
        assert channels.joined(asked, b"{}") == [Reply(asked, "ok", b"{}", join_ref)]
    return channels


def over(join_ref: Any, event: str, payload: bytes = b"{}") -> Push:
    return Push(message(join_ref, join_ref, TOPIC, event, payload))


UNMATCHED = b'{"reason":"unmatched topic"}'
LEAVE = message("j1", "r2", TOPIC, "phx_leave")
STALE_LEAVE = message("j0", "r2", TOPIC, "phx_leave")
REJOIN = message("j2", "r2", TOPIC, "phx_join")
PING = message("j1", "r2", TOPIC, "ping")
UNNAMED_PING = message(None, "r2", TOPIC, "ping")
STALE_PING = message("j0", "r2", TOPIC, "ping")
STALE_NUMBER = message(1, "r2", TOPIC, "ping")
HEARTBEAT = message(None, "r2", "phoenix", "heartbeat")
NO_HEARTBEAT = message(None, "r2", "phoenix", "ping")
FOREIGN_JOIN = message("j9", "r2", "rooms:1", "phx_join")
ELSEWHERE = message("j1", "r2", OTHER, "ping")
LEAVE_ELSEWHERE = message("j8", "r2", OTHER, "phx_leave")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (HEARTBEAT, [Reply(HEARTBEAT, "ok", b"{}", None)]),
        (NO_HEARTBEAT, [Reply(NO_HEARTBEAT, "error", UNMATCHED, None)]),
        (FOREIGN_JOIN, [Reply(FOREIGN_JOIN, "error", UNMATCHED, None)]),
        (ELSEWHERE, [Reply(ELSEWHERE, "error", UNMATCHED, None)]),
        (PING, [Deliver(PING)]),
        (UNNAMED_PING, [Deliver(UNNAMED_PING)]),
        (STALE_PING, []),
        (STALE_NUMBER, []),
        (LEAVE, [End(TOPIC), Reply(LEAVE, "ok", b"{}", "j1"), over("j1", "phx_close")]),
        (STALE_LEAVE, []),
        (LEAVE_ELSEWHERE, [Reply(LEAVE_ELSEWHERE, "ok", b"{}", "j8")]),
        (REJOIN, [End(TOPIC), over("j1", "phx_close"), Join(REJOIN)]),
    ],
    ids=lambda each: each.event if isinstance(each, PhoenixMessage) else None,
)
def test_what_a_message_does_while_one_channel_is_joined(sent: PhoenixMessage, expected: list[Instruction]) -> None:
    """Source: Phoenix 1.8, `Phoenix.Socket.handle_in`."""
    assert joined(TOPIC).receive(sent) == expected


def test_after_a_leave_the_topic_is_unmatched_and_can_be_joined_again() -> None:
    channels = joined(TOPIC)
    channels.receive(LEAVE)
    assert channels.receive(PING) == [Reply(PING, "error", UNMATCHED, None)]
    assert channels.receive(REJOIN) == [Join(REJOIN)]


def test_after_a_rejoin_the_old_join_ref_is_stale_and_the_new_one_counts() -> None:
    channels = joined(TOPIC)
    channels.receive(REJOIN)
    channels.joined(REJOIN, b"{}")
    assert channels.receive(PING) == []
    again = message("j2", "r3", TOPIC, "ping")
    assert channels.receive(again) == [Deliver(again)]
    assert channels.receive(LEAVE) == []


def test_a_refused_join_leaves_no_channel() -> None:
    channels = JoinedChannels("mcp:")
    asked = message("j1", "r1", TOPIC, "phx_join")
    channels.receive(asked)
    assert channels.refused(asked, b'{"reason":"x"}') == [Reply(asked, "error", b'{"reason":"x"}', "j1")]
    assert channels.receive(PING) == [Reply(PING, "error", UNMATCHED, None)]


def test_a_channel_that_crashes_is_over_and_its_client_is_told_to_join_again() -> None:
    channels = joined(TOPIC, OTHER)
    assert channels.crashed(TOPIC) == [End(TOPIC), over("j1", "phx_error", b'{"reason":"channel_crash"}')]
    assert channels.receive(PING) == [Reply(PING, "error", UNMATCHED, None)]
    assert channels.receive(ELSEWHERE) == [Deliver(ELSEWHERE)]


def test_one_channel_too_many_is_refused_and_a_rejoin_is_none() -> None:
    topics = [f"mcp:topic{number}" for number in range(MOST_CHANNELS)]
    channels = joined(*topics)
    one_more = message("j2", "r2", TOPIC, "phx_join")
    assert channels.receive(one_more) == [Reply(one_more, "error", b'{"reason":"too many channels joined"}', "j2")]
    again = message("j2", "r2", topics[0], "phx_join")
    assert channels.receive(again)[-1] == Join(again)


TOPICS = [TOPIC, OTHER, "rooms:1", "phoenix"]
messages = st.builds(
    message,
    st.sampled_from([None, "j1", "j2", 3]),
    st.sampled_from([None, "r1", "r2"]),
    st.sampled_from(TOPICS),
    st.sampled_from(["phx_join", "phx_leave", "heartbeat", "ping", "phx_close", "phx_error"]),
)


@given(st.lists(st.tuples(messages, st.booleans()), max_size=40))
def test_whatever_comes_each_channel_that_was_joined_ends_once(steps: list[tuple[PhoenixMessage, bool]]) -> None:
    channels, live = JoinedChannels("mcp:"), set()
    for sent, is_accepted in steps:
        instructions = channels.receive(sent)
        for instruction in list(instructions):
            if isinstance(instruction, End):
                live.remove(instruction.topic)
            elif isinstance(instruction, Join):
                assert sent.topic not in live
                assert instruction is instructions[-1]
                (channels.joined if is_accepted else channels.refused)(sent, b"{}")
                live |= {sent.topic} if is_accepted else set()
            elif isinstance(instruction, Deliver):
                assert sent.topic in live
        pushes = [message(None, "r", topic, "ping") for topic in TOPICS]
        assert {push.topic for push in pushes if channels.receive(push) == [Deliver(push)]} == live
        assert sum(isinstance(each, Reply) for each in instructions) <= 1
