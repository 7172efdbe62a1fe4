"""What nodes say to each other, on its way through the engine: encrypted, in parts, each taken once and in its order. Pure.

The engine carries the packets and is not trusted with them: whoever can write to it can neither read nor forge one, nor have one
taken twice. All nodes have the key of the cluster. Encryption is AES-256-GCM (RFC 5116); the names and epochs of both nodes, the
incarnation of the one that is to take it, and the packet's place are authenticated with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import attrs
import msgspec
from cryptography.exceptions import InvalidTag

from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing

from .engine import MAX_PAYLOAD_BYTES

PART_BYTES: Final = MAX_PAYLOAD_BYTES - 1_000
"""Of what a packet carries; the rest is names, numbers, nonce and tag."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Of all parts together: as much as goes between processes of one node."""

_NONCE_BYTES: Final = 12


class PacketRefused(Exception):
    """A packet that was not made with the cluster's key for this node, or has come before, or out of order."""


@attrs.frozen
class Peer:
    """One end of what is sent.

    epoch:       of the membership. The engine gives it, so whoever has the engine can give one out again.
    incarnation: random for each start of the process that takes packets, which alone knows what it has taken.
    """

    node: str
    epoch: int
    incarnation: str


class _Head(msgspec.Struct, frozen=True, array_like=True):
    """Authenticated, in the clear. lane: rises when the sender begins anew after a loss. number: within the lane."""

    sender: str
    sender_epoch: int
    target: str
    target_epoch: int
    target_incarnation: str
    lane: int
    number: int
    is_last_part: bool


class _Packet(msgspec.Struct, frozen=True, array_like=True):
    head: bytes
    nonce: bytes
    sealed: bytes


_decode_head = msgspec.msgpack.Decoder(_Head).decode
_decode_packet = msgspec.msgpack.Decoder(_Packet).decode
_encode = msgspec.msgpack.encode


def packet_cipher(*secrets: bytes) -> KeyRing:
    """secrets: the cluster's, at least 32 bytes each, the newest first; what seals ids is derived from them in another way."""
    return KeyRing(*secrets, purpose=b"mcp-gw-nodes")


class PacketSender:
    """One node's packets to another one, as long as both have their epochs."""

    def __init__(self, cipher: KeyRing, own: Peer, target: Peer) -> None:
        self._cipher = cipher
        self._own, self._target = own, target
        self._lane = 1
        self._number = 0

    def packets(self, message: bytes) -> list[bytes]:
        """The message in parts; the next one is sent when the one before was taken. Raises: ValueError where it is too large."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"{len(message)} bytes are more than the {MAX_MESSAGE_BYTES} between nodes")
        starts = range(0, max(len(message), 1), PART_BYTES)
        return [self._packet(message[start : start + PART_BYTES], is_last_part=start == starts[-1]) for start in starts]

    def begin_anew(self) -> None:
        """What was sent last may have been lost: the other side shall expect neither it nor the rest of it."""
        self._lane += 1
        self._number = 0

    def _packet(self, part: bytes, *, is_last_part: bool) -> bytes:
        self._number += 1
        own, target = self._own, self._target
        place = (self._lane, self._number, is_last_part)
        head = _encode(_Head(own.node, own.epoch, target.node, target.epoch, target.incarnation, *place))
        nonce = os.urandom(_NONCE_BYTES)
        return _encode(_Packet(head, nonce, self._cipher.encrypt(nonce, part, head)))


@attrs.define
class _Incoming:
    """How far a sender has come in one of its epochs. parts: of the message that is not complete."""

    lane: int = 0
    number: int = 0
    parts: list[bytes] = attrs.field(factory=list)
    size: int = 0


class PacketReceiver:
    """What other nodes send to this one. Keeps the parts of one message of each, MAX_MESSAGE_BYTES at most.

    How far a sender has come in an epoch is kept beyond it: the keys that tell of epochs are the engine's, and whoever can write
    there could name one again and have its packets taken once more.
    """

    def __init__(self, cipher: KeyRing) -> None:
        self._cipher = cipher
        self._epochs: dict[str, int] = {}  # of now
        self._incoming: dict[tuple[str, int], _Incoming] = {}

    def take(self, packet: bytes, own: Peer) -> tuple[str, bytes] | None:
        """(sender, message) where the packet completes one. own: this node as it is now.

        Raises: PacketRefused.
        """
        try:
            read = _decode_packet(packet)
            head = _decode_head(read.head)
            part = self._cipher.decrypt(read.nonce, read.sealed, read.head)
        except (msgspec.DecodeError, InvalidTag, ValueError):
            raise PacketRefused("not of this cluster") from None
        if Peer(head.target, head.target_epoch, head.target_incarnation) != own:
            raise PacketRefused("for another node, or for this one before it started or joined anew")
        epoch = self._epochs.get(head.sender, 0)
        if epoch > head.sender_epoch:
            raise PacketRefused("of before")
        if epoch < head.sender_epoch:
            self._begin(head.sender, head.sender_epoch)
        known = self._incoming.setdefault((head.sender, head.sender_epoch), _Incoming())
        if known.lane > head.lane:
            raise PacketRefused("of before")
        if known.lane < head.lane:
            known.lane, known.number, known.parts, known.size = head.lane, 0, [], 0
        if head.number != known.number + 1:
            raise PacketRefused("has come before, or too early")
        known.number = head.number
        known.parts.append(part)
        known.size += len(part)
        if known.size > MAX_MESSAGE_BYTES:
            known.parts, known.size = [], 0
            raise PacketRefused("too large")
        if not head.is_last_part:
            return None
        message = b"".join(known.parts)
        known.parts, known.size = [], 0
        return head.sender, message

    def epoch_of(self, node: str) -> int:
        """That of its newest packet, or of its presence where that tells of a newer one."""
        return self._epochs.get(node, 0)

    def epochs_changed(self, epochs: Mapping[str, int]) -> None:
        """What the presence keys say of the other nodes, {node: epoch}: nothing is taken any more of another epoch that is older,
        and of a newer one as soon as it comes. Frees what is held of incomplete messages of nodes that are gone."""
        for node, epoch in list(self._epochs.items()):
            if node not in epochs:
                self._free(node, epoch)
            elif epoch != epochs[node]:
                self._begin(node, epochs[node])

    def _begin(self, node: str, epoch: int) -> None:
        if node in self._epochs:
            self._free(node, self._epochs[node])
        self._epochs[node] = epoch

    def _free(self, node: str, epoch: int) -> None:
        if (known := self._incoming.get((node, epoch))) is not None:
            known.parts, known.size = [], 0
