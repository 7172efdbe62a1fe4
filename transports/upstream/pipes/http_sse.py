"""HTTP+SSE towards servers: a stream of events from the server, POSTs to the endpoint that it names.

Source: MCP 2024-11-05, basic/transports, "HTTP with SSE".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp

from mcp_gateway.transports.ports.upstream_port import (
    CredentialRefused,
    ask_showing,
    refuses_credential,
)
from mcp_gateway.transports.protocol.framing.sse import EventStreamParser, EventTooLarge, ServerSentEvent
from mcp_gateway.transports.upstream.http.failure_text import failure_text
from mcp_gateway.transports.upstream.http.same_origin import MAX_REDIRECTS, LedAstray, address_within_origin, is_redirect

from .message_pipe import PipeClosed, SendFailed, TooLarge
from .pipe_target import CONNECT_TIMEOUT_S, PipeTarget

_LONGEST_ENDPOINT_BYTES: Final = 4_096


class SsePipe:
    """A `MessagePipe`: one event stream with its endpoint. The token of the day goes with the stream and with each message."""

    def __init__(self, target: PipeTarget) -> None:
        self._target = target
        self._url = target.url
        self._parser = EventStreamParser(target.max_message_bytes)
        self._events: deque[ServerSentEvent] = deque()
        self._http: aiohttp.ClientSession | None = None
        self._stream: aiohttp.ClientResponse | None = None
        self._endpoint = ""

    async def open(self) -> None:
        self._http = aiohttp.ClientSession(
            connector=self._target.connector(),
            headers={**self._target.headers, "User-Agent": "mcp-gateway", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**16,
        )
        try:
            self._stream = stream = await ask_showing(self._target.show, self._get)
            content_type = stream.content_type
            if stream.status != 200 or content_type != "text/event-stream":
                raise PipeClosed(f"the server answered with status {stream.status} and {content_type}")
            while not self._endpoint:
                event = await self._next_event()
                if event.event == "endpoint" and len(event.data) <= _LONGEST_ENDPOINT_BYTES:
                    self._endpoint = address_within_origin(self._url, event.data.decode(errors="replace"))
        except LedAstray as error:
            raise PipeClosed(str(error)) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PipeClosed(f"cannot connect: {failure_text(error)}") from None

    async def _get(self, shown: Mapping[str, str]) -> aiohttp.ClientResponse:
        assert self._http is not None
        for _ in range(MAX_REDIRECTS + 1):
            stream = await self._http.get(self._url, headers={"Accept": "text/event-stream", **shown}, allow_redirects=False)
            self._check_credential(stream)
            if not is_redirect("GET", stream.status):
                return stream
            stream.release()
            self._url = address_within_origin(self._url, stream.headers.get("Location", ""))
        raise LedAstray("the server redirects too often")

    def _check_credential(self, response: aiohttp.ClientResponse) -> None:
        """Raises: CredentialRefused."""
        if self._target.show is not None and refuses_credential(response.status, response.headers.get("WWW-Authenticate", "")):
            response.release()
            raise CredentialRefused(response.status, {name.lower(): value for name, value in response.headers.items()})

    # ---- messages

    async def send(self, message: bytes, on_begin: Callable[[], None]) -> None:
        await ask_showing(self._target.show, lambda shown: self._post(message, shown, on_begin))

    async def _post(self, message: bytes, shown: Mapping[str, str], on_begin: Callable[[], None]) -> None:
        assert self._http is not None
        endpoint, headers = self._endpoint, {"Content-Type": "application/json", **shown}
        try:
            for _ in range(MAX_REDIRECTS + 1):
                on_begin()
                async with self._http.post(endpoint, data=message, headers=headers, allow_redirects=False) as response:
                    self._check_credential(response)
                    if 200 <= response.status < 300:
                        return
                    if response.status == 404:
                        raise PipeClosed("the server does not know the connection any more")
                    if not is_redirect("POST", response.status):
                        raise SendFailed(f"the server answered with status {response.status}")
                    endpoint = address_within_origin(endpoint, response.headers.get("Location", ""))
            raise SendFailed("the server redirects too often")
        except LedAstray as error:
            raise SendFailed(str(error)) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SendFailed(f"the connection failed: {failure_text(error)}") from None

    async def receive(self) -> bytes | TooLarge:
        while True:
            try:
                event = await self._next_event()
            except (aiohttp.ClientError, TimeoutError) as error:
                raise PipeClosed(f"the connection failed: {failure_text(error)}") from None
            if event.event == "message" and event.data:
                return event.data

    async def _next_event(self) -> ServerSentEvent:
        assert self._stream is not None
        while not self._events:
            chunk = await self._stream.content.readany()
            if not chunk:
                raise PipeClosed("the server has ended its stream")
            try:
                self._events.extend(self._parser.feed(chunk))
            except EventTooLarge as error:
                raise PipeClosed(f"the server sent too much: {error}") from None
        return self._events.popleft()

    async def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        if self._http is not None:
            await self._http.close()
