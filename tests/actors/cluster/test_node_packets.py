"""What travels between nodes: read by whom it is for, once, in order, and by nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.cluster.engine import MAX_PAYLOAD_BYTES
from mcp_gateway.actors.cluster.node_packets import (
    MAX_MESSAGE_BYTES,
    PART_BYTES,
    PacketReceiver,
    PacketRefused,
    PacketSender,
    Peer,
    packet_cipher,
)

SECRET = b"s" * 32
A, B = Peer("a", 3, "a-1"), Peer("b", 7, "b-1")


def sender(own: Peer = A, target: Peer = B, secret: bytes = SECRET) -> PacketSender:
    return PacketSender(packet_cipher(secret), own, target)


def receiver(secret: bytes = SECRET) -> PacketReceiver:
    return PacketReceiver(packet_cipher(secret))


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_a_message_arrives_whole_in_parts_that_the_engine_takes(size: int) -> None:
    message = b"x" * size
    packets = sender().packets(message)
    assert len(packets) == max(1, -(-size // PART_BYTES))
    assert all(len(packet) <= MAX_PAYLOAD_BYTES for packet in packets)
    taking = receiver()
    assert [taking.take(packet, B) for packet in packets] == [None] * (len(packets) - 1) + [("a", message)]


def test_a_message_past_the_largest_size_is_refused_before_it_is_sent() -> None:
    assert len(sender().packets(b"x" * MAX_MESSAGE_BYTES)) == -(-MAX_MESSAGE_BYTES // PART_BYTES)
    with pytest.raises(ValueError, match="between nodes"):
        sender().packets(b"x" * (MAX_MESSAGE_BYTES + 1))


def test_nobody_without_the_key_reads_or_makes_a_packet() -> None:
    (packet,) = sender().packets(b"a secret word")
    assert b"secret" not in packet
    with pytest.raises(PacketRefused, match="not of this cluster"):
        receiver(b"t" * 32).take(packet, B)
    with pytest.raises(PacketRefused, match="not of this cluster"):
        receiver().take(sender(secret=b"t" * 32).packets(b"")[0], B)


@given(position=st.integers(0), bit=st.integers(0, 7))
def test_a_packet_that_was_altered_anywhere_is_refused(position: int, bit: int) -> None:
    (packet,) = sender().packets(b"message")
    altered = bytearray(packet)
    altered[position % len(packet)] ^= 1 << bit
    with pytest.raises(PacketRefused):
        receiver().take(bytes(altered), B)


@given(st.binary(max_size=300))
def test_rubbish_is_refused_and_nothing_worse(rubbish: bytes) -> None:
    with pytest.raises(PacketRefused):
        receiver().take(rubbish, B)


def test_a_packet_is_taken_once_and_none_out_of_its_turn() -> None:
    taking, sending = receiver(), sender()
    first, second, third = (sending.packets(b"%d" % number)[0] for number in range(3))
    assert taking.take(first, B) is not None
    for packet in (first, third):
        with pytest.raises(PacketRefused, match="come before"):
            taking.take(packet, B)
    assert taking.take(second, B) == ("a", b"1")
    assert taking.take(third, B) == ("a", b"2")


def test_after_a_loss_a_new_lane_begins_and_what_was_left_of_the_old_one_is_refused() -> None:
    taking, sending = receiver(), sender()
    parts = sending.packets(b"x" * (PART_BYTES + 1))
    taking.take(parts[0], B)
    sending.begin_anew()
    (fresh,) = sending.packets(b"fresh")
    assert taking.take(fresh, B) == ("a", b"fresh")
    with pytest.raises(PacketRefused, match="of before"):
        taking.take(parts[1], B)


def test_packets_for_another_node_or_another_epoch_of_it_are_refused() -> None:
    (packet,) = sender().packets(b"")
    for own in (Peer("b", 8, "b-1"), Peer("c", 7, "b-1")):
        with pytest.raises(PacketRefused, match="another node"):
            receiver().take(packet, own)


def test_packets_that_were_recorded_are_refused_by_a_node_that_has_started_anew_though_the_engine_gives_it_its_old_epoch() -> (
    None
):
    """Whoever has the engine says which epoch a node has, and the node that starts remembers no packet that it has taken."""
    recorded = sender().packets(b"run this tool")
    assert receiver().take(recorded[0], B) == ("a", b"run this tool")
    with pytest.raises(PacketRefused, match="started"):
        receiver().take(recorded[0], Peer("b", 7, "b-2"))


def test_of_a_sender_that_has_joined_anew_the_old_packets_are_refused() -> None:
    taking = receiver()
    old = sender()
    (packet, late) = (old.packets(b"1")[0], old.packets(b"2")[0])
    taking.take(packet, B)
    (fresh,) = sender(own=Peer("a", 9, "a-1")).packets(b"3")
    assert taking.take(fresh, B) == ("a", b"3")
    with pytest.raises(PacketRefused, match="of before"):
        taking.take(late, B)


def test_the_epoch_of_a_sender_is_that_of_its_newest_packet_also_before_its_presence_tells_of_it() -> None:
    taking = receiver()
    taking.epochs_changed({"a": 7})
    assert taking.epoch_of("a") == 0, "it has sent nothing yet"
    for epoch in (7, 9):
        taking.take(sender(own=Peer("a", epoch, "a-1")).packets(b"1")[0], B)
        assert taking.epoch_of("a") == epoch


def test_a_presence_that_names_an_earlier_epoch_again_has_none_of_its_packets_taken_twice() -> None:
    taking = receiver()
    (packet,) = sender(own=Peer("a", 100, "a-1")).packets(b"run this tool")
    assert taking.take(packet, B) == ("a", b"run this tool")
    for told in ({"a": 1}, {"a": 100}, {}, {"a": 100}):
        taking.epochs_changed(told)
    with pytest.raises(PacketRefused, match="come before"):
        taking.take(packet, B)


def test_after_the_engine_has_lost_its_revisions_the_epoch_that_the_presence_tells_counts() -> None:
    taking = receiver()
    taking.take(sender(own=Peer("a", 100, "a-1")).packets(b"1")[0], B)
    (packet,) = sender(own=Peer("a", 2, "a-1")).packets(b"2")
    with pytest.raises(PacketRefused, match="of before"):
        taking.take(packet, B)
    taking.epochs_changed({"a": 2})
    assert taking.take(packet, B) == ("a", b"2")
    taking.epochs_changed({})
    with pytest.raises(PacketRefused, match="come before"):
        taking.take(packet, B)
