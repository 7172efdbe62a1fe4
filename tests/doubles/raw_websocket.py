"""A WebSocket client made of bytes: it can break every rule, and sees what a library would hide."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from types import TracebackType

import attrs

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0
_MASK = b"\x0f\xf0\x55\xaa"
_TIMEOUT_S = 10.0


@attrs.frozen
class RawFrame:
    """One frame of the server. opcode: see the constants; is_compressed: the RSV1 bit."""

    opcode: int
    payload: bytes
    is_final: bool = True
    is_compressed: bool = False

    @property
    def code(self) -> int | None:
        """The code of a close frame; None where it has none."""
        assert self.opcode == CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None


class RawWebSocket:
    """`async with RawWebSocket(port, path) as client`: connected and, if the server agreed, upgraded.

    status, headers, body: of the answer to the upgrade request; header names in lower case.
    """

    def __init__(
        self,
        port: int,
        path: str,
        headers: Mapping[str, str | None] | None = None,
        *,
        start: str = "GET",
        follows: bytes = b"",
    ) -> None:
        """headers: besides those of an upgrade, or instead of them, None leaves one out. follows: sent at once."""
        self._port = port
        shown: dict[str, str | None] = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "AAECAwQFBgcICQoLDA0ODw==",
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        lines = [f"{name}: {value}" for name, value in shown.items() if value is not None]
        first = f"{start} {path} HTTP/1.1" if " " not in start else start
        self._request = "\r\n".join([first, *lines, "", ""]).encode() + follows
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def __aenter__(self) -> RawWebSocket:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        self.writer.write(self._request)
        async with asyncio.timeout(_TIMEOUT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            self.status = int(first.split()[1])
            self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.body = await self.reader.readexactly(int(self.headers.get("content-length", 0)))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.writer.close()

    def send(self, opcode: int, payload: bytes = b"", **how: object) -> None:
        self.writer.write(frame(opcode, payload, **how))  # type: ignore[arg-type]

    async def receive(self) -> RawFrame:
        """The next frame that is not a ping; pings are not answered.

        Raises: asyncio.IncompleteReadError at the end of the connection.
        """
        while True:
            received = await self.receive_any()
            if received.opcode != PING:
                return received

    async def receive_any(self) -> RawFrame:
        async with asyncio.timeout(_TIMEOUT_S):
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a server does not mask"
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(size)
        return RawFrame(first & 0x0F, payload, bool(first & 0x80), bool(first & 0x40))

    async def is_ended(self) -> bool:
        """Whether nothing follows: the server has ended its side."""
        async with asyncio.timeout(_TIMEOUT_S):
            return await self.reader.read(1) == b""


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    is_final: bool = True,
    reserved: int = 0,
    is_masked: bool = True,
    size: int | None = None,
) -> bytes:
    """The bytes of a client's frame. reserved: the bits RSV1 to RSV3 as a number; size: a lie about the payload's length."""
    length = len(payload) if size is None else size
    mask_bit = 0x80 if is_masked else 0
    head = bytes([(0x80 if is_final else 0) | reserved << 4 | opcode])
    if length < 126:
        head += bytes([mask_bit | length])
    elif length < 65_536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", length)
    if not is_masked:
        return head + payload
    mask = _MASK * (len(payload) // 4 + 1)
    return head + _MASK + bytes(byte ^ key for byte, key in zip(payload, mask, strict=False))
