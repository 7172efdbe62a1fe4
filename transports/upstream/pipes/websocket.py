"""WebSocket towards servers: one JSON-RPC message a frame, subprotocol `mcp`.

Source: ours, as no revision defines it; the subprotocol is that of the official SDKs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp

from mcp_gateway.transports.ports.upstream_port import (
    CredentialRefused,
    ask_showing,
    refuses_credential,
)
from mcp_gateway.transports.upstream.http.failure_text import failure_text
from mcp_gateway.transports.upstream.http.same_origin import LedAstray, address_within_origin

from .message_pipe import PipeClosed, TooLarge
from .pipe_target import CONNECT_TIMEOUT_S, PipeTarget

_PING_INTERVAL_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 1.0


class WebSocketPipe:
    """A `MessagePipe`: one WebSocket. A token is shown in its handshake, and holds as long as the server lets it."""

    def __init__(self, target: PipeTarget) -> None:
        self._target = target
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        self._http = aiohttp.ClientSession(
            connector=self._target.connector(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_within_origin()],
        )
        await ask_showing(self._target.show, self._shake_hands)

    async def _shake_hands(self, shown: Mapping[str, str]) -> None:
        assert self._http is not None
        try:
            self._socket = await self._http.ws_connect(
                self._target.url,
                protocols=("mcp",),
                headers={**self._target.headers, **shown, "User-Agent": "mcp-gateway"},
                heartbeat=_PING_INTERVAL_S,
                max_msg_size=self._target.max_message_bytes,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S),
            )
        except aiohttp.WSServerHandshakeError as error:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            if self._target.show is not None and refuses_credential(error.status, headers.get("www-authenticate", "")):
                raise CredentialRefused(error.status, headers) from None
            raise PipeClosed(f"the server answered the handshake with status {error.status}") from None
        except LedAstray as error:
            raise PipeClosed(str(error)) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PipeClosed(f"cannot connect: {failure_text(error)}") from None

    async def send(self, message: bytes, on_begin: Callable[[], None]) -> None:
        assert self._socket is not None
        async with self._turn:
            if self._socket.closed:
                raise PipeClosed(self._end_text())
            on_begin()
            try:
                await self._socket.send_str(message.decode())
            except (aiohttp.ClientError, ConnectionError) as error:
                raise PipeClosed(f"the connection failed: {failure_text(error)}") from None

    async def receive(self) -> bytes | TooLarge:
        assert self._socket is not None
        while True:
            frame = await self._socket.receive()
            if frame.type == aiohttp.WSMsgType.TEXT:
                text: str = frame.data
                return text.encode()
            if frame.type == aiohttp.WSMsgType.BINARY:
                data: bytes = frame.data
                return data
            if frame.type == aiohttp.WSMsgType.ERROR:
                raise PipeClosed(f"the connection failed: {failure_text(frame.data)}")
            if frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
                raise PipeClosed(self._end_text())

    def _end_text(self) -> str:
        code = self._socket.close_code if self._socket is not None else None
        return "the connection was lost" if code in (None, 1006) else f"the server has closed the connection with code {code}"

    async def close(self) -> None:
        try:
            if self._socket is not None:
                await self._socket.close()
        finally:
            if self._http is not None:
                await self._http.close()


def _within_origin() -> aiohttp.TraceConfig:
    """aiohttp's WebSockets follow redirects wherever they lead, our headers with them; this is the one place to stop that."""

    async def check(_session: Any, _context: Any, redirect: aiohttp.TraceRequestRedirectParams) -> None:
        address_within_origin(str(redirect.url), redirect.response.headers.get("Location", ""))

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(check)
    return tracing
