"""Phoenix messages on the wire: serializer 1.0.0 (JSON objects) and 2.0.0 (JSON arrays, and binary pushes). Pure.

Source: Phoenix 1.8, "Writing a Channels Client"; `Phoenix.Socket.Message`; its two JSON serializers.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.framing.surrogates import without_halves
from mcp_gateway.transports.protocol.mcp.refusals import Refused

Ref = str | int | None
"""Clients send strings; whatever they send comes back as it was."""

DEFAULT_VERSION: Final = "1.0.0"
"""What a client speaks that names no `vsn`."""

_LONGEST_REF: Final = 255
"""As the binary form has it. Refs of joins are kept, and clients count."""
_BINARY_PUSH: Final = 0
_BINARY_HEAD: Final = 5

_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_ref = msgspec.json.Decoder(Ref).decode
_decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode


class PhoenixMessage(msgspec.Struct, frozen=True):
    """One message of either direction. payload: JSON; what a binary push carries shall be JSON too, which nobody has checked."""

    join_ref: Ref
    ref: Ref
    topic: str
    event: str
    payload: bytes


class Malformed(Exception):
    """The bytes are no message of the serializer; `str()` says why. is_unsupported: the serializer has no such frames."""

    def __init__(self, text: str, *, is_unsupported: bool = False) -> None:
        super().__init__(text)
        self.is_unsupported = is_unsupported


class Serializer(Protocol):
    """One version of the wire format. version: as `vsn` names it."""

    version: str

    def decode(self, data: bytes, is_text: bool) -> PhoenixMessage:
        """Read one frame of a client.

        Raises: Malformed.
        """

    def encode(self, message: PhoenixMessage) -> bytes:
        """The text frame of a push."""

    def encode_reply(self, to: PhoenixMessage, status: str, response: bytes, *, join_ref: Ref) -> bytes:
        """The text frame that answers a push. response: JSON."""


class SerializerV1:
    """JSON objects, without `join_ref` in what the server sends."""

    version = "1.0.0"

    def decode(self, data: bytes, is_text: bool) -> PhoenixMessage:
        if not is_text:
            raise Malformed(f"serializer {self.version} has no binary messages", is_unsupported=True)
        try:
            read = _decode_object(data)
        except (msgspec.DecodeError, RecursionError) as error:
            repaired = without_halves(data)
            if repaired != data:
                return self.decode(repaired, is_text)
            raise Malformed(str(error)) from None
        return _checked(PhoenixMessage(read.join_ref, read.ref, read.topic, read.event, bytes(read.payload)))

    def encode(self, message: PhoenixMessage) -> bytes:
        names = _encode(message.topic), _encode(message.event)
        return b'{"topic":%b,"event":%b,"payload":%b,"ref":%b}' % (*names, message.payload, _encode(message.ref))

    def encode_reply(self, to: PhoenixMessage, status: str, response: bytes, *, join_ref: Ref) -> bytes:
        payload = b'{"status":%b,"response":%b}' % (_encode(status), response)
        return self.encode(PhoenixMessage(join_ref, to.ref, to.topic, "phx_reply", payload))


class SerializerV2:
    """JSON arrays [join_ref, ref, topic, event, payload], and a binary form for pushes of a client."""

    version = "2.0.0"

    def decode(self, data: bytes, is_text: bool) -> PhoenixMessage:
        if not is_text:
            return _decode_binary_push(data)
        try:
            join_ref, ref, topic, event, payload = _decode_array(data)[:5]  # Phoenix ignores what follows
            head = _decode_ref(join_ref), _decode_ref(ref), _decode_string(topic), _decode_string(event)
        except (msgspec.DecodeError, RecursionError) as error:
            repaired = without_halves(data)
            if repaired != data:
                return self.decode(repaired, is_text)
            raise Malformed(str(error)) from None
        except ValueError:
            raise Malformed("an array of five was expected: join_ref, ref, topic, event, payload") from None
        return _checked(PhoenixMessage(*head, bytes(payload)))

    def encode(self, message: PhoenixMessage) -> bytes:
        refs = _encode(message.join_ref), _encode(message.ref)
        return b"".join((b"[", b",".join((*refs, _encode(message.topic), _encode(message.event), message.payload)), b"]"))

    def encode_reply(self, to: PhoenixMessage, status: str, response: bytes, *, join_ref: Ref) -> bytes:
        payload = b'{"status":%b,"response":%b}' % (_encode(status), response)
        return self.encode(PhoenixMessage(join_ref, to.ref, to.topic, "phx_reply", payload))


def serializer_for(version: str | None) -> Serializer:
    """The serializer that a client's `vsn` parameter asks for; None is a client without one.

    Raises: Refused with invalid_request.
    """
    major_minor = (version or DEFAULT_VERSION).split(".")[:2]
    if major_minor == ["1", "0"]:
        return SerializerV1()
    if major_minor == ["2", "0"]:
        return SerializerV2()
    raise Refused("invalid_request", f"vsn must be 1.0.0 or 2.0.0, not {(version or '')[:20]!r}")


class _Object(msgspec.Struct):
    topic: str
    event: str
    payload: Raw = Raw(b"{}")
    ref: Ref = None
    join_ref: Ref = None


_decode_object = msgspec.json.Decoder(_Object).decode


def _checked(message: PhoenixMessage) -> PhoenixMessage:
    if any(isinstance(ref, str) and len(ref) > _LONGEST_REF for ref in (message.join_ref, message.ref)):
        raise Malformed(f"a ref is at most {_LONGEST_REF} characters long")
    return message


def _decode_binary_push(data: bytes) -> PhoenixMessage:
    """A byte for the kind, one for the size of each of join_ref, ref, topic and event, then these four, then the payload."""
    if len(data) < _BINARY_HEAD or data[0] != _BINARY_PUSH:
        raise Malformed("a binary message of a client is a push")
    texts: list[str] = []
    at = _BINARY_HEAD
    for size in data[1:_BINARY_HEAD]:
        try:
            texts.append(data[at : at + size].decode())
        except UnicodeDecodeError:
            raise Malformed("join_ref, ref, topic and event must be UTF-8") from None
        at += size
    if at > len(data):
        raise Malformed("the message is shorter than its head says")
    join_ref, ref, topic, event = texts
    return PhoenixMessage(join_ref or None, ref or None, topic, event, data[at:])
