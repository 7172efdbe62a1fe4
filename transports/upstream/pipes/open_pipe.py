"""One open pipe to a server and the exchanges on it: sends, receives, and hands each message to whom it belongs."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Final

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamError
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.log_budget import LogBudget
from mcp_gateway.transports.upstream.http.dropped_messages import DroppedMessages

from .message_pipe import MessagePipe, PipeClosed, SendFailed, TooLarge
from .multiplexer import Answered, Ended, Held, Ignored, Multiplexer, Replied, Told

_logger = logging.getLogger(__name__)
_GREETINGS: Final = frozenset({"initialize", "server/discover", "ping"})

_INBOX_MESSAGES: Final = 256
_INBOX_BYTES: Final = 1_048_576
_SEND_SOON_S: Final = 10.0
_SENDING_SOON: Final = 100
# Where JSON writers put the id of a response: right at its beginning (Python), or as the last member (JavaScript).
_ID_AT_HEAD = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*([0-9]{1,18})\s*[,}]')
_END_BYTES: Final = 256
_ID_AT_TAIL = re.compile(rb'[,{]\s*"id"\s*:\s*([0-9]{1,18})\s*\}\s*\Z')


def session_lost(text: str) -> UpstreamError:
    """The message was not sent, because the connection that was the session is no more."""
    return UpstreamError(Fate.SESSION_LOST, text)


class Inbox:
    """What has come for one exchange and waits for its client, and how the exchange ends."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._size_bytes = 0
        self._news = asyncio.Event()
        self._space = asyncio.Event()
        self._response: Response | None = None
        self._error: UpstreamError | None = None
        self._is_concluded = False

    @property
    def is_full(self) -> bool:
        is_over = len(self._messages) >= _INBOX_MESSAGES or self._size_bytes >= _INBOX_BYTES
        return is_over and not self._is_concluded

    def put(self, message: Message) -> None:
        if not self._is_concluded:
            self._messages.append(message)
            self._size_bytes += jsonrpc.size_bytes(message)
            self._news.set()

    def conclude(self, response: Response | None, error: UpstreamError | None = None) -> None:
        """Set the outcome, once; it comes after what was put before."""
        if self._is_concluded:
            return
        self._response, self._error, self._is_concluded = response, error, True
        self._news.set()
        self._space.set()

    async def space(self) -> None:
        while self.is_full:
            self._space.clear()
            await self._space.wait()

    async def play(self, on_event: EventHandler) -> Response | None:
        """Pass on every message, then give the response; None where the stream has ended without one.

        Raises: UpstreamError.
        """
        while True:
            if self._messages:
                message = self._messages.popleft()
                self._size_bytes -= jsonrpc.size_bytes(message)
                self._space.set()
                await on_event(message, None)
            elif self._error is not None:
                raise self._error
            elif self._is_concluded:
                return self._response
            else:
                self._news.clear()
                await self._news.wait()


class _Sending:
    """Whether the server may have seen the message."""

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        self.has_begun = True


class OpenPipe:
    """An open pipe.

    is_private: it serves one session; otherwise any number of sessions or stateless requests.
    on_end:     called once, when the connection has ended by itself.
    dropped:    of all connections to the replica.
    answer:     the server's response to `initialize`, where there was one.
    used_s, heard_s: when a client last spoke on it, and the server.
    end:        how it has ended, once it has by itself.
    has_served: the server has answered a client's request that is no greeting: how it ends after that is no failure to start.
    """

    def __init__(
        self,
        pipe: MessagePipe,
        *,
        name: str,
        is_private: bool,
        is_modern: bool,
        on_end: Callable[[OpenPipe], None],
        dropped: DroppedMessages,
    ) -> None:
        self._pipe = pipe
        self._name = name
        self._on_end = on_end
        self._dropped = dropped
        self.is_private = is_private
        self.is_initialized = False
        self.has_served = False
        self.answer: Response | None = None
        self.sessions: set[str] = set()
        self.opened_s = self.used_s = self.heard_s = asyncio.get_running_loop().time()
        self.pings_missed = 0
        self._exchanges = Multiplexer(is_private=is_private, is_modern=is_modern)
        self._inboxes: dict[int, Inbox] = {}
        self._budget = LogBudget()
        self._ended: UpstreamError | None = None
        self.end = PipeClosed("the connection was closed")
        self._has_left = False  # closed by us for want of use: its streams end, they do not fail
        self._tasks = HeldTasks()
        self._reader = self._tasks.start(self._read())
        self._closing: asyncio.Task[None] | None = None

    # ---- state

    @property
    def is_modern(self) -> bool:
        return self._exchanges.is_modern

    def turn_legacy(self) -> None:
        """The server turns out to speak the revisions with a handshake."""
        self._exchanges.is_modern = False

    @property
    def is_open(self) -> bool:
        return self._ended is None

    @property
    def has_spoken(self) -> bool:
        """The server has said anything at all."""
        return self.heard_s > self.opened_s

    @property
    def is_busy(self) -> bool:
        return self._exchanges.call_count > 0

    @property
    def has_stream(self) -> bool:
        return self._exchanges.stream_count > 0

    @property
    def keeps_state(self) -> bool:
        """A client may come back for what the server waits for, or tells it later."""
        return self._exchanges.keeps_state

    # ---- exchanges

    async def request(
        self,
        owner: str,
        request: Request,
        on_event: EventHandler,
        timeout_s: float | None,
        *,
        is_stream: bool = False,
        on_open: Callable[[], None] | None = None,
        is_use: bool = True,
    ) -> Response | None:
        """One request from its first byte to its response; None where the server has ended a subscription.

        on_open: called once it was sent.
        is_use:  a client speaks: False for what only the gateway wants to know.

        Raises: UpstreamError.
        """
        used_s = self.used_s
        self._use()
        exchange_id, message = self._exchanges.begin(owner, request, is_stream=is_stream)
        inbox = self._inboxes[exchange_id] = Inbox()
        sending = _Sending()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(message, sending)
                if on_open is not None:
                    on_open()
                response = await inbox.play(on_event)
                self.has_served |= is_use and response is not None and request.method not in _GREETINGS
                return response
        except TimeoutError:
            if sending.has_begun:
                self._give_up(exchange_id, "no answer in time")
                raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from None
            raise _reads_nothing() from None
        except asyncio.CancelledError:
            if sending.has_begun:
                self._give_up(exchange_id, "the client has gone")
            raise
        finally:
            self._forget(exchange_id)
            if not is_use and not self.is_busy:  # else another has begun meanwhile
                self.used_s = used_s

    async def stream(self, owner: str, on_event: EventHandler, on_open: Callable[[], None] | None = None) -> None:
        """Pass on what the server says on its own, until the pipe is closed for want of use.

        Raises: UpstreamError.
        """
        self._use()
        exchange_id, held = self._exchanges.begin_stream(owner)
        inbox = self._inboxes[exchange_id] = Inbox()
        for message in held:
            inbox.put(message)
        if on_open is not None:
            on_open()
        try:
            await inbox.play(on_event)
        finally:
            self._forget(exchange_id)

    async def tell(self, owner: str, message: Notification | Response, timeout_s: float | None) -> None:
        """Pass on a client's notification, or its answer to a question of the server.

        Raises: UpstreamError.
        """
        self._use()
        outgoing: Message | None = message
        if isinstance(message, Response):
            outgoing = message if self._exchanges.may_answer(message) else None
        else:
            outgoing, cancelled_id = self._exchanges.outgoing(owner, message)
            if cancelled_id is not None and (inbox := self._inboxes.get(cancelled_id)) is not None:
                text = "the client has cancelled the request"
                inbox.conclude(None, UpstreamError(Fate.ENDED, text))
        if outgoing is None:
            return
        sending = _Sending()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(outgoing, sending)
        except TimeoutError:
            raise _reads_nothing(was_sent=sending.has_begun) from None

    def end_streams(self, owner: str) -> None:
        """The session has moved to a pipe of its own, where its stream goes on."""
        for exchange_id in self._exchanges.streams_of(owner):
            self._inboxes[exchange_id].conclude(None)

    def _use(self) -> None:
        self.used_s = asyncio.get_running_loop().time()
        if self._ended is not None:
            raise session_lost(self._ended.failure.text)

    def _forget(self, exchange_id: int) -> None:
        self.used_s = asyncio.get_running_loop().time()
        self._exchanges.end(exchange_id)
        inbox = self._inboxes.pop(exchange_id, None)
        if inbox is not None:
            inbox.conclude(None)  # sets a reader free that waits for space

    def _give_up(self, exchange_id: int, reason: str) -> None:
        cancellation = self._exchanges.cancellation(exchange_id, reason)
        if cancellation is not None:
            self._send_soon(cancellation)

    async def _send(self, message: Message, sending: _Sending) -> None:
        try:
            await self._pipe.send(jsonrpc.encode(message), sending.begin)
        except PipeClosed as closed:
            self._fail(closed)
            if sending.has_begun:
                raise UpstreamError(Fate.CUT, closed.told) from None
            raise session_lost(closed.told) from None
        except SendFailed as failed:
            raise UpstreamError(Fate.BROKEN if sending.has_begun else Fate.UNREACHABLE, str(failed)) from None

    def _send_soon(self, message: Message) -> None:
        """Send without waiting. A server that takes nothing misses it: by then it has worse problems."""
        if self._ended is None and len(self._tasks) < _SENDING_SOON:
            self._tasks.start(self._send_within_bound(message))

    async def _send_within_bound(self, message: Message) -> None:
        try:
            async with asyncio.timeout(_SEND_SOON_S):
                await self._send(message, _Sending())
        except (TimeoutError, UpstreamError):
            _logger.debug("%s: a message to the server was given up", self._name)

    # ---- what comes from the server

    async def _read(self) -> None:
        try:
            while True:
                data = await self._pipe.receive()
                self.heard_s = asyncio.get_running_loop().time()
                if isinstance(data, TooLarge):
                    self._take_too_large(data)
                    continue
                for part in jsonrpc.parts_of(data):
                    await self._read_message(part)
        except PipeClosed as closed:
            self._fail(closed)
        except Exception:  # a defect of ours must not leave callers waiting
            _logger.exception("%s: reading failed", self._name)
            self._fail(PipeClosed("internal error"))

    async def _read_message(self, data: bytes) -> None:
        try:
            message = jsonrpc.decode_from_server(data)
        except Refused as refused:
            inbox = None if b'"method"' in data else self._owner(data[:_END_BYTES], data[-_END_BYTES:])
            if inbox is None:
                self._warn(f"skipped what is no message: {refused.text[:200]}")
            else:
                text = f"the server sent a malformed answer: {refused.text[:200]}"
                inbox.conclude(None, UpstreamError(Fate.BROKEN, text))
        else:
            await self._take(message)

    def _warn(self, text: str) -> None:
        left_out = self._budget.take(asyncio.get_running_loop().time())
        if left_out is not None:
            before = f" ({left_out} warnings before it were left out)" if left_out else ""
            _logger.warning("%s: %s%s", self._name, text, before)

    async def _take(self, message: Message) -> None:
        incoming = self._exchanges.incoming(message)
        if isinstance(incoming, Told):
            for exchange_id in incoming.exchange_ids:
                await self._tell(exchange_id, incoming.message)
        elif isinstance(incoming, Answered):
            self._inboxes[incoming.exchange_id].conclude(incoming.response)
            self._exchanges.end(incoming.exchange_id)  # what comes after the response belongs to nobody
        elif isinstance(incoming, Ended):
            self._inboxes[incoming.exchange_id].conclude(None)
        elif isinstance(incoming, Replied):
            if incoming.is_too_many:
                metrics.bounds_reached_total.labels("questions").inc()
            self._send_soon(incoming.response)
        elif isinstance(incoming, Held):
            for reply in incoming.replies:
                self._send_soon(reply)
        elif isinstance(incoming, Ignored):
            self._dropped.note(incoming.kind, incoming.why)

    async def _tell(self, exchange_id: int, message: Message) -> None:
        """One slow client stops the reading of a pipe of its own; on a shared one it loses what it does not take."""
        inbox = self._inboxes[exchange_id]
        if inbox.is_full and not self.is_private:
            if isinstance(message, Notification) and message.method in ("notifications/progress", "notifications/message"):
                return  # an older state of what is told again
            text = "the client reads too slowly: what the server says on its own was given up"
            inbox.conclude(None, UpstreamError(Fate.REFUSED, text))
            self._give_up(exchange_id, "the client reads too slowly")
            return
        await inbox.space()
        inbox.put(message)

    def _owner(self, head: bytes, tail: bytes) -> Inbox | None:
        """Whose answer it was, as far as its ends show that."""
        found = _ID_AT_HEAD.match(head) or _ID_AT_TAIL.search(tail)
        return self._inboxes.get(int(found[1])) if found is not None else None

    def _take_too_large(self, data: TooLarge) -> None:
        inbox = self._owner(data.head, data.tail)
        if inbox is None:
            self._warn("skipped a message that is too large")
        else:
            inbox.conclude(None, UpstreamError(Fate.BROKEN, "the answer is larger than max_message_bytes"))

    # ---- the end

    def _fail(self, closed: PipeClosed) -> None:
        """The connection has ended by itself."""
        if self._ended is None:
            self.end = closed
            self._end(UpstreamError(Fate.CUT, closed.told))
            self._on_end(self)

    def _end(self, error: UpstreamError) -> None:
        """Every exchange ends with the pipe; no client waits for what cannot come."""
        if self._ended is not None:
            return
        self._ended = error
        for exchange_id, inbox in list(self._inboxes.items()):
            is_own_stream = self._has_left and self._exchanges.cancellation(exchange_id, "") is None
            inbox.conclude(None, None if is_own_stream else error)

    def leave(self, reason: str) -> None:
        """Close a pipe that nobody uses any more: its streams end in good order."""
        self._has_left = True
        self._end(UpstreamError(Fate.ENDED, reason))
        self._reader.cancel()

    async def close(self, reason: str = "the connection was closed") -> None:
        """End the exchanges, then the pipe. May be called again, and waits for the same end."""
        self.leave(reason)
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._pipe.close())
        await asyncio.shield(self._closing)


def _reads_nothing(*, was_sent: bool = False) -> UpstreamError:
    fate = Fate.TIMED_OUT if was_sent else Fate.UNREACHABLE
    return UpstreamError(fate, "the server does not read what it is sent", reason="upstream_timeout")
