"""One request and its answer over Streamable HTTP, in no task as long as both are as nearly all are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from msgspec.structs import replace

from mcp_gateway.transports.ports.deadlines import Deadlines
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_turns import NextTurn
from mcp_gateway.transports.ports.untasked_exchange import OnEnd, UntaskedExchange
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response

from .answer_reading import EVENT_STREAM, media_type, read_usual
from .http1_client import Asking
from .own_messages import OwnHearing
from .server_connection import ServerConnection

_LARGEST_BYTES: Final = 65_536
"""Of an answer that is waited for here: a larger one is read where it stays."""


class PlainWire(Protocol):
    """What a plain exchange needs of the conversation that it belongs to."""

    deadlines: Deadlines
    sending: NextTurn
    hearing: NextTurn
    max_message_bytes: int

    def ask(self, request: UpstreamRequest) -> Asking:
        """Raises: ValueError for a header that cannot be sent."""

    def speak(
        self, request: UpstreamRequest, on_event: EventHandler, begun: Asking | None = None
    ) -> Coroutine[Any, Any, UpstreamAnswer]:
        """The exchange in a task, whatever comes. begun: where the request was sent already. Raises: UpstreamError."""


class PlainExchange(UntaskedExchange):
    """Sends a request and looks at what comes of it. Whatever is not the usual goes on in a task, from where it is."""

    __slots__ = ("_asking", "_hear", "_is_over", "_on_end", "_request", "_task", "_wire", "due_s")

    _on_end: OnEnd

    def __init__(self, wire: PlainWire, request: UpstreamRequest, hear: OwnHearing) -> None:
        self._wire = wire
        self._request = request
        self._hear = hear
        self._asking: Asking | None = None  # while it is ours: a task that goes on takes it over
        self._task: asyncio.Task[None] | None = None
        self._coroutine = None
        self._is_over = False
        self.due_s = float("inf")

    async def _awaited(self) -> UpstreamAnswer:
        with self._hear as hear:
            return await self._wire.speak(self._request, hear)

    def awaited(self) -> Coroutine[Any, Any, UpstreamAnswer]:
        return self._awaited()

    def begin(self, on_end: OnEnd) -> None:
        self._on_end = on_end
        self._hear.__enter__()
        if self._request.timeout_s is not None:
            self.due_s = asyncio.get_running_loop().time() + self._request.timeout_s
            self._wire.deadlines.begin(self)
        self._wire.sending.add(self._send)

    def _send(self) -> None:
        if self._is_over:
            return
        is_sent = False
        # Of a header that cannot be sent, or a defect of ours: a task says that as it says all that is unusual.
        with contextlib.suppress(Exception):
            self._asking = self._wire.ask(self._request)
            is_sent = self._asking.begin(self._has_news)
        if not is_sent:
            self._go_on()

    def cancel(self) -> None:
        if self._leave() and self._task is not None:
            self._task.cancel()

    def has_passed(self) -> None:
        self._end(UpstreamError(Fate.TIMED_OUT, "the server did not answer in time"))

    # ---- what comes of it

    def _has_news(self) -> None:
        self._wire.hearing.add(self._look)

    def _look(self) -> None:
        """Something has come, or the connection has ended. Of what comes in pieces this may be the second look at all of them."""
        connection = None if self._asking is None or self._task is not None else self._asking.here
        if connection is None or not (connection.has_head or connection.has_failed):
            return
        if not connection.has_failed and self._may_wait(connection):
            return
        try:
            response = self._response(connection)
        except Exception as error:  # a defect of ours must not leave a client waiting
            self._end(error)
            return
        if response is None:
            self._go_on()
        else:
            connection.is_answered = True
            self._end(UpstreamAnswer(200, response, connection.headers.get("mcp-session-id")))

    def _may_wait(self, connection: ServerConnection) -> bool:
        """Whether more has to come before there is anything to see."""
        if connection.is_complete or connection.status != 200 or connection.bytes_here > _LARGEST_BYTES:
            return False
        if media_type(connection.headers) == EVENT_STREAM:
            return not connection.bytes_here
        return int(connection.headers.get("content-length", 0)) <= _LARGEST_BYTES

    def _response(self, connection: ServerConnection) -> Response | None:
        """The answer; None where more is to be done than to hand it on."""
        headers, request = connection.headers, self._request
        assert isinstance(request.message, Request)
        if connection.has_failed or connection.status != 200 or "content-encoding" in headers:
            return None
        if connection.bytes_here > self._wire.max_message_bytes:
            return None
        content_type = media_type(headers)
        if content_type != EVENT_STREAM and not connection.is_complete:  # as it is too large
            return None
        response = read_usual(content_type, connection.body_here, request.message.id, self._wire.max_message_bytes)
        # An error in a session may say that the server does not know it.
        return None if response is not None and response.error and request.session_id is not None else response

    # ---- whatever else it may be

    def _go_on(self) -> None:
        self._wire.deadlines.end(self)
        self._task = asyncio.get_running_loop().create_task(self._rest())

    async def _rest(self) -> None:
        begun, self._asking = self._asking, None
        left_s = None if self._request.timeout_s is None else max(0.001, self.due_s - asyncio.get_running_loop().time())
        outcome: UpstreamAnswer | BaseException
        try:
            outcome = await self._wire.speak(replace(self._request, timeout_s=left_s), self._hear, begun)
        except (Exception, asyncio.CancelledError) as error:
            outcome = error
        finally:
            if begun is not None:
                begun.leave()  # where nobody has awaited it
        self._end(outcome)
        del outcome  # an error holds this frame

    # ---- the end

    def _end(self, outcome: UpstreamAnswer | BaseException) -> None:
        if self._leave():
            self._on_end(outcome)

    def _leave(self) -> bool:
        """Whether it was not over."""
        if self._is_over:
            return False
        self._is_over = True
        self._wire.deadlines.end(self)
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.leave()
        self._hear.__exit__()
        return True
