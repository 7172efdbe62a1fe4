"""Who may speak to an actor: packets that are sealed with the node's key, and the buffer that takes no others in."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import pickle
import secrets
import struct
import time
from collections import OrderedDict
from typing import Any

from .system_key import KEY_SIZE_BYTES

MAX_PACKET_BYTES = 64 * 1024 * 1024  # ours; the gateway sends less than a tenth of that
MAX_PACKET_AGE_S = 120.0  # four times the transmit timeout
REPLAY_WINDOW_PACKETS = 4096  # Thespian queues at most 1050 packets, so none is overtaken by more
MAX_KNOWN_SENDERS = 1024


class PacketSeal:
    """Signs what this process sends and admits what was signed with the same key: once, in time, for one of its own ports.

    A sealed packet is: header tag (16 bytes), sender (8), counter (8), monotonic clock in ns (8), target port (2), body tag
    (16), body. The header tag covers the body's size, so a peer without the key cannot make us wait for, let alone store, a
    body. The tags are keyed BLAKE2b. Source: RFC 7693; the replay window follows RFC 4303 (ESP), section 3.4.3.

    The clock is shared by all processes of one machine: a system hardened like this does not span machines. No encryption.
    """

    _FIELDS = struct.Struct(">8sQQH")
    TAG_BYTES = 16
    HEADER_BYTES = TAG_BYTES + _FIELDS.size
    OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_SIZE_BYTES:
            raise ValueError(f"the packet key has {len(key)} bytes, at least {KEY_SIZE_BYTES} are needed")
        self._key = key
        self.begin_process()

    def begin_process(self) -> None:
        """Forget whom the parent process was: a forked child is a sender and receiver of its own."""
        self._sender = secrets.token_bytes(8)
        self._counter = itertools.count(1)
        self._own_ports: set[int] = set()
        self._windows: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # {sender: (highest counter, bits of those seen)}

    def add_own_port(self, port: int) -> None:
        self._own_ports.add(port)

    def seal(self, body: bytes, target_port: int) -> bytes:
        fields = self._FIELDS.pack(self._sender, next(self._counter), time.monotonic_ns(), target_port)
        header_tag = self._tag(b"header", struct.pack(">Q", len(body)), fields)
        return b"".join((header_tag, fields, self._tag(b"body", header_tag, body), body))

    def admits_header(self, header: bytes, body_size: int) -> bool:
        """Whether HEADER_BYTES announce a packet of body_size bytes that this process should receive."""
        header_tag, fields = header[: self.TAG_BYTES], header[self.TAG_BYTES :]
        if not hmac.compare_digest(header_tag, self._tag(b"header", struct.pack(">Q", body_size), fields)):
            return False
        sender, counter, sent_ns, port = self._FIELDS.unpack(fields)
        is_fresh = abs(time.monotonic_ns() - sent_ns) <= MAX_PACKET_AGE_S * 1e9
        return is_fresh and port in self._own_ports and not self._is_seen(sender, counter)

    def open(self, packet: bytes) -> bytes | None:
        """The body of a packet whose header was admitted, or None; a second packet with the same number is refused."""
        header, body = packet[: self.HEADER_BYTES], packet[self.OVERHEAD_BYTES :]
        expected = self._tag(b"body", header[: self.TAG_BYTES], body)
        if not hmac.compare_digest(packet[self.HEADER_BYTES : self.OVERHEAD_BYTES], expected):
            return None
        sender, counter, _, _ = self._FIELDS.unpack(header[self.TAG_BYTES :])
        if self._is_seen(sender, counter):  # the same packet over two connections at once
            return None
        self._mark_seen(sender, counter)
        return body

    def _tag(self, purpose: bytes, *parts: bytes) -> bytes:
        tag = hashlib.blake2b(key=self._key, digest_size=self.TAG_BYTES, person=purpose)
        for part in parts:
            tag.update(part)
        return tag.digest()

    def _is_seen(self, sender: bytes, counter: int) -> bool:
        highest, seen = self._windows.get(sender, (0, 0))
        behind = highest - counter
        return behind >= 0 and (behind >= REPLAY_WINDOW_PACKETS or bool(seen >> behind & 1))

    def _mark_seen(self, sender: bytes, counter: int) -> None:
        highest, seen = self._windows.pop(sender, (0, 0))
        if counter > highest:
            seen = (seen << min(counter - highest, REPLAY_WINDOW_PACKETS) | 1) & ((1 << REPLAY_WINDOW_PACKETS) - 1)
            highest = counter
        else:
            seen |= 1 << (highest - counter)
        self._windows[sender] = (highest, seen)
        if len(self._windows) > MAX_KNOWN_SENDERS:
            self._windows.popitem(last=False)


class SealedReceiveBuffer:
    """Takes the place of Thespian's ReceiveBuffer: nothing is stored before the header is admitted, nothing unpickled before
    the whole packet is.

    A refused packet reads as complete without content, which Thespian answers with an error and a closed socket; in the role
    of an acknowledgement, with another attempt.
    """

    seal: PacketSeal
    acknowledgements: dict[bytes, str]  # {pickled bytes: Thespian's constant}; they carry nothing and are compared, not unpickled

    _MAX_SIZE_DIGITS = len(str(MAX_PACKET_BYTES))

    def __init__(self, _unpickle: object = None) -> None:
        self._packet = bytearray()
        self._size: int | None = None
        self._is_admitted = False
        self._is_refused = False
        self._extra = b""
        self._content: tuple[Any, bytes] | None = None

    def addMore(self, data: bytes) -> None:
        if not data or self._is_refused:
            return
        self._packet += data
        if self._size is None and not self._find_size():
            return
        assert self._size is not None
        if len(self._packet) > self._size:
            self._extra += bytes(self._packet[self._size :])
            del self._packet[self._size :]
        if not self._is_admitted:
            self._judge_header(self._size)

    def is_empty(self) -> bool:
        return self._size is None and not self._packet

    def remainingAmount(self) -> int:
        if self._size is None:
            return 20  # as Thespian: a size and the first bytes
        if not self._is_admitted:
            return min(self._size, PacketSeal.HEADER_BYTES) - len(self._packet)
        return self._size - len(self._packet)

    def isDone(self) -> bool:
        return self._is_refused or (self._size is not None and len(self._packet) == self._size)

    def removeExtra(self) -> None:
        self._extra = b""

    def completed(self) -> tuple[Any, bytes] | None:
        """Content and what came after it, or None; Thespian may ask twice, so the verdict is kept."""
        if self._is_refused or not self.isDone():
            return None
        if self._content is None:
            packet = bytes(self._packet)
            if packet in self.acknowledgements:
                self._content = (self.acknowledgements[packet], b"")
            else:
                body = self.seal.open(packet) if len(packet) > PacketSeal.OVERHEAD_BYTES else None
                if body is None:
                    self._refuse()
                    return None
                self._content = (pickle.loads(body), b"")
        return self._content[0], self._extra

    def _find_size(self) -> bool:
        digits, mark, rest = self._packet.partition(b">")
        if not mark:
            if len(digits) > self._MAX_SIZE_DIGITS or (digits and not digits.isdigit()):
                self._refuse()
            return False
        # No sign, no space: a negative size would make recv() raise and end the process.
        if not digits.isdigit() or len(digits) > self._MAX_SIZE_DIGITS or not 0 < int(digits) <= MAX_PACKET_BYTES:
            self._refuse()
            return False
        self._size, self._packet = int(digits), rest
        return True

    def _judge_header(self, size: int) -> None:
        if size <= PacketSeal.OVERHEAD_BYTES:
            self._is_admitted = True  # at most an acknowledgement; `completed` compares
            if not any(len(each) == size for each in self.acknowledgements):
                self._refuse()
        elif len(self._packet) >= PacketSeal.HEADER_BYTES:
            header = bytes(self._packet[: PacketSeal.HEADER_BYTES])
            self._is_admitted = self.seal.admits_header(header, size - PacketSeal.OVERHEAD_BYTES)
            if not self._is_admitted:
                self._refuse()

    def _refuse(self) -> None:
        self._is_refused = True
        self._packet.clear()
        self._extra = b""
