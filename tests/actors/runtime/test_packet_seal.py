"""Sealed packets and the buffer that receives them, against everything but a packet of this node."""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.runtime.packet_seal import MAX_PACKET_BYTES, REPLAY_WINDOW_PACKETS, PacketSeal, SealedReceiveBuffer
from tests.doubles.packets import Touch, framed

KEY, OTHER_KEY = b"k" * 32, b"o" * 32


# ---- the seal


def seals(key: bytes = KEY) -> tuple[PacketSeal, PacketSeal]:
    """A sender, and a receiver that listens on port 7."""
    sender, receiver = PacketSeal(key), PacketSeal(KEY)
    receiver.add_own_port(7)
    return sender, receiver


def opened(receiver: PacketSeal, packet: bytes) -> bytes | None:
    body_size = len(packet) - PacketSeal.OVERHEAD_BYTES
    return receiver.open(packet) if receiver.admits_header(packet[: PacketSeal.HEADER_BYTES], body_size) else None


def test_a_sealed_packet_is_opened_once() -> None:
    sender, receiver = seals()
    packet = sender.seal(b"body", 7)
    assert opened(receiver, packet) == b"body"
    assert opened(receiver, packet) is None


def test_a_packet_that_arrives_over_two_connections_at_once_is_opened_once() -> None:
    sender, receiver = seals()
    packet = sender.seal(b"body", 7)
    assert receiver.admits_header(packet[: PacketSeal.HEADER_BYTES], 4)
    assert receiver.admits_header(packet[: PacketSeal.HEADER_BYTES], 4)
    assert [receiver.open(packet), receiver.open(packet)] == [b"body", None]


def test_packets_may_overtake_each_other_within_the_window() -> None:
    sender, receiver = seals()
    packets = [sender.seal(b"%d" % number, 7) for number in range(1000)]
    for number in [*range(999, -1, -3), *range(0, 1000, 3), *range(1, 1000, 3), *range(2, 1000, 3)]:
        opened(receiver, packets[number])
    assert all(opened(receiver, packet) is None for packet in packets)
    assert opened(receiver, sender.seal(b"next", 7)) == b"next"


def test_a_packet_from_before_the_window_is_refused() -> None:
    sender, receiver = seals()
    old = sender.seal(b"old", 7)
    for _ in range(REPLAY_WINDOW_PACKETS):
        last = sender.seal(b"x", 7)
    assert opened(receiver, last) == b"x"
    assert opened(receiver, old) is None


def test_a_packet_for_another_port_or_with_another_key_or_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, receiver = seals()
    assert opened(receiver, sender.seal(b"body", 8)) is None
    assert opened(receiver, seals(OTHER_KEY)[0].seal(b"body", 7)) is None
    packet = sender.seal(b"body", 7)
    now_ns = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns + int(121e9))
    assert opened(receiver, packet) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_packet_changed_anywhere_is_refused(body: bytes, data: st.DataObject) -> None:
    sender, receiver = seals()
    packet = bytearray(sender.seal(body, 7))
    packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    assert opened(receiver, bytes(packet)) is None


# ---- the receive buffer


@pytest.fixture
def buffer_type(monkeypatch: pytest.MonkeyPatch) -> tuple[type[SealedReceiveBuffer], PacketSeal]:
    """A receive buffer that listens on port 7, and its sender."""
    sender, receiver = seals()

    class Buffer(SealedReceiveBuffer):
        seal = receiver
        acknowledgements = {pickle.dumps("ACK"): "ACK", pickle.dumps("ACK+DATAERR"): "ACK+DATAERR"}  # noqa: RUF012

    return Buffer, sender


def test_a_packet_arrives_whole_however_it_is_cut(buffer_type: tuple[type[SealedReceiveBuffer], PacketSeal]) -> None:
    buffer_class, sender = buffer_type
    content = ("sender", {"any": "thing"})
    for size in (1, 2, 3, 7, 20, 58, 1000):
        data = framed(sender.seal(pickle.dumps(content), 7))
        buffer = buffer_class()
        for start in range(0, len(data), size):
            assert not buffer.isDone()
            buffer.addMore(data[start : start + size])
        assert buffer.isDone()
        assert buffer.completed() == buffer.completed() == (content, b"")


def test_what_follows_a_packet_is_handed_on(buffer_type: tuple[type[SealedReceiveBuffer], PacketSeal]) -> None:
    buffer_class, sender = buffer_type
    buffer = buffer_class()
    buffer.addMore(framed(sender.seal(pickle.dumps(1), 7)) + b"5>hello")
    assert buffer.completed() == (1, b"5>hello")


def test_an_acknowledgement_needs_no_seal_and_is_never_unpickled(
    buffer_type: tuple[type[SealedReceiveBuffer], PacketSeal],
) -> None:
    buffer_class, _ = buffer_type
    buffer = buffer_class()
    buffer.addMore(framed(pickle.dumps("ACK")))
    assert buffer.completed() == ("ACK", b"")
    forged = buffer_class()
    forged.addMore(framed(b"x" * len(pickle.dumps("ACK"))))
    assert forged.isDone()
    assert forged.completed() is None


@pytest.mark.parametrize(
    "data",
    [
        b"-5>hello",
        b"0>",
        b"+9>123456789",
        b" 9>123456789",
        b"1_0>1234567890",
        b"%d>" % (MAX_PACKET_BYTES + 1),
        b"9" * 40,
        b"A" * 1000,
        b">",
        b"\xd9\xa3>abc",  # an Arabic digit: int() would take it
        b"100>" + b"\0" * 42,
        framed(pickle.dumps(Touch("/nonexistent/file"))),
    ],
)
def test_a_bad_header_is_refused_before_anything_is_stored(
    buffer_type: tuple[type[SealedReceiveBuffer], PacketSeal], data: bytes
) -> None:
    buffer_class, _ = buffer_type
    buffer = buffer_class()
    buffer.addMore(data)
    assert buffer.isDone()
    assert buffer.completed() is None
    assert not buffer._packet
    buffer.addMore(b"more")
    assert not buffer._packet


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=100), st.sampled_from([b"5>", b">", b"70>", b"1000>", b"26>"])), max_size=20))
def test_no_bytes_raise_or_are_kept_without_a_key(chunks: list[bytes]) -> None:
    """Whatever comes, at most a header's worth is stored, and the socket is read with a positive size until it is done."""

    class Buffer(SealedReceiveBuffer):
        seal = seals()[1]
        acknowledgements = {b"x" * 18: "ACK"}  # noqa: RUF012

    buffer = Buffer()
    for chunk in chunks:
        if buffer.isDone():
            break
        assert buffer.remainingAmount() > 0
        buffer.addMore(chunk[: buffer.remainingAmount()])
        assert len(buffer._packet) <= PacketSeal.OVERHEAD_BYTES
    assert buffer.completed() in (None, ("ACK", b""))
