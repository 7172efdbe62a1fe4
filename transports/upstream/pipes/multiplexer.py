"""One full-duplex pipe to a server, shared by many exchanges: which message belongs to whom. Pure.

A pipe (stdio, WebSocket, HTTP+SSE) has one stream each way and no request of its own for an answer to come back on, so callers
would collide: their ids and progress tokens are replaced by ones of this pipe, and put back on the way to the client.

Source: MCP 2026-07-28, basic/transports/stdio "Receiving Messages", basic/patterns/progress, basic/patterns/cancellation;
2025-11-25, basic/utilities/cancellation; JSON-RPC 2.0, section 5: an error without id is for what could not be read. To whom a
message goes that names no request is ours: never to a second client.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.upstream_port import Stray
from mcp_gateway.transports.protocol.eras.questions import MAY_NEED_INPUT, MOST_OPEN_QUESTIONS
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import INTERNAL_ERROR, METHOD_NOT_FOUND, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import META_SUBSCRIPTION_ID

MAX_HELD = 100
"""Messages that wait for the stream of a session which has none open."""

MAX_ASKED = 2 * MOST_OPEN_QUESTIONS
"""Questions of the server that may be without an answer: a pipe is one session's, whose calls are few."""

_OWN_ID_AS_STRING = re.compile(rb'\A"([1-9][0-9]{0,17})"\Z')
_META_LOG_LEVEL = "io.modelcontextprotocol/logLevel"
_UNREADABLE = (msgspec.DecodeError, RecursionError, KeyError)


@attrs.frozen
class Told:
    """The message is for these exchanges."""

    exchange_ids: tuple[int, ...]
    message: Message = attrs.field(repr=False)


@attrs.frozen
class Answered:
    """The response of this exchange, with its caller's own id."""

    exchange_id: int
    response: Response = attrs.field(repr=False)


@attrs.frozen
class Ended:
    """The server has ended this subscription without a response."""

    exchange_id: int


@attrs.frozen
class Replied:
    """Nobody is asked: this goes back to the server. is_too_many: because too many of its questions wait for an answer."""

    response: Response = attrs.field(repr=False)
    is_too_many: bool = False


@attrs.frozen
class Held:
    """Kept until the session opens its stream. replies: to questions that had to make room."""

    replies: tuple[Response, ...] = attrs.field(default=(), repr=False)


@attrs.frozen
class Ignored:
    """Belongs to nobody; why says so for the log, kind for the count."""

    why: str
    kind: Stray = Stray.NOTIFICATION


Incoming = Told | Answered | Ended | Replied | Held | Ignored


@attrs.define
class _Exchange:
    """One open exchange. client_id is empty for a session's own stream, which has no request. token: the client's own.

    may_ask: the server runs something for it, on whose behalf it may ask and log.
    """

    owner: str
    client_id: bytes
    is_stream: bool
    may_ask: bool = False
    token: bytes = b""
    wants_logs: bool = False


class Multiplexer:
    """The open exchanges of one pipe.

    is_private: the pipe belongs to one session, so that whatever the server says without naming a request is for that session.
                On a shared one that is told to nobody, except where a single session has calls open.
    is_modern:  the server asks nothing and logs only for requests that want it (MCP 2026-07-28).
    """

    def __init__(self, *, is_private: bool, is_modern: bool) -> None:
        self._is_private = is_private
        self.is_modern = is_modern
        self._open: OrderedDict[int, _Exchange] = OrderedDict()
        self._id_of: dict[tuple[str, object], int] = {}  # {(owner, the caller's id): exchange id}, of requests
        self._asked: OrderedDict[object, int] = OrderedDict()  # {the server's request id: exchange that was asked; 0: held}
        self._held: deque[Request | Notification] = deque()
        self._subscriptions: set[bytes] = set()  # URIs as JSON, of the session whose pipe this is
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def call_count(self) -> int:
        """Open requests that end by themselves; streams are not among them."""
        return sum(not each.is_stream for each in self._open.values())

    @property
    def stream_count(self) -> int:
        return len(self._open) - self.call_count

    @property
    def keeps_state(self) -> bool:
        """Whether the server waits for an answer of the client, or has resources to tell it of."""
        return bool(self._asked or self._subscriptions)

    def streams_of(self, owner: str) -> tuple[int, ...]:
        return tuple(each for each, exchange in self._open.items() if exchange.is_stream and exchange.owner == owner)

    # ---- from the callers

    def begin(self, owner: str, request: Request, *, is_stream: bool = False) -> tuple[int, Request]:
        """Take up a request: its exchange id, and the message with an id and a progress token that nobody else has."""
        self._last_id += 1
        exchange_id = self._last_id
        params, token, wants_logs = _with_token(request.params, exchange_id)
        exchange = _Exchange(owner, request.id, is_stream, request.method in MAY_NEED_INPUT, token, wants_logs)
        self._open[exchange_id] = exchange
        self._id_of[owner, _value(request.id)] = exchange_id
        if request.method in ("resources/subscribe", "resources/unsubscribe"):
            self._note_subscription(request)
        return exchange_id, Request(b"%d" % exchange_id, request.method, params)

    def _note_subscription(self, request: Request) -> None:
        try:
            uri = bytes(jsonrpc.members(request.params)["uri"])
        except _UNREADABLE:
            return
        (self._subscriptions.add if request.method == "resources/subscribe" else self._subscriptions.discard)(uri)

    def begin_stream(self, owner: str) -> tuple[int, tuple[Message, ...]]:
        """Take up a session's own stream: its exchange id, and what has waited for it."""
        self._last_id += 1
        self._open[self._last_id] = _Exchange(owner, b"", is_stream=True)
        held = tuple(self._held)
        self._held.clear()
        for message in held:
            if isinstance(message, Request) and _value(message.id) in self._asked:
                self._asked[_value(message.id)] = self._last_id
        return self._last_id, held

    def end(self, exchange_id: int) -> None:
        """Forget an exchange, once it has its answer or nobody waits for it."""
        exchange = self._open.pop(exchange_id, None)
        if exchange is not None and exchange.client_id:
            key = (exchange.owner, _value(exchange.client_id))
            if self._id_of.get(key) == exchange_id:
                del self._id_of[key]

    def cancellation(self, exchange_id: int, reason: str) -> Notification | None:
        """What tells the server that nobody waits for an open exchange any more; None where it never heard of it."""
        exchange = self._open.get(exchange_id)
        if exchange is None or not exchange.client_id:
            return None
        return _cancelled(b"%d" % exchange_id, reason)

    def outgoing(self, owner: str, notification: Notification) -> tuple[Notification | None, int | None]:
        """A client's notification as the server shall see it, and the exchange that it cancels; None: nothing to say."""
        if notification.method != "notifications/cancelled":
            return notification, None
        try:
            params = jsonrpc.members(notification.params)
            exchange_id = self._id_of[owner, _value(params["requestId"])]
        except _UNREADABLE:
            return None, None
        params["requestId"] = Raw(b"%d" % exchange_id)
        return Notification(notification.method, msgspec.json.encode(params)), exchange_id

    def may_answer(self, response: Response) -> bool:
        """Whether the server waits for this answer of a client; it may be given once."""
        return self._asked.pop(_value(response.id), None) is not None

    # ---- from the server

    def incoming(self, message: Message) -> Incoming:
        if isinstance(message, Response):
            return self._response(message)
        if isinstance(message, Request):
            return self._question(message)
        return self._notification(message)

    def _response(self, response: Response) -> Incoming:
        exchange_id = _own_id(response.id)
        if response.id == jsonrpc.NULL and response.error:  # a result could be anybody's
            calls = [each for each, exchange in self._open.items() if not exchange.is_stream]
            exchange_id = calls[0] if len(calls) == 1 else 0
        exchange = self._open.get(exchange_id)
        if exchange is None or not exchange.client_id:
            return Ignored("a response that nobody waits for", Stray.RESPONSE)
        return Answered(exchange_id, response.to(exchange.client_id))

    def _question(self, request: Request) -> Incoming:
        if request.method == "ping":
            return Replied(Response(request.id, b"{}", b""))
        if self.is_modern or not self._is_private:  # its clients have declared that they cannot be asked
            return Replied(_error(request.id, METHOD_NOT_FOUND, "the client offers nothing that it could be asked for"))
        if len(self._asked) >= MAX_ASKED:
            error = _error(request.id, INTERNAL_ERROR, "too many requests of the server wait for an answer")
            return Replied(error, is_too_many=True)
        exchange_id = self._newest_call() or self._stream()
        self._asked[_value(request.id)] = exchange_id or 0
        return Told((exchange_id,), request) if exchange_id else self._hold(request)

    def _notification(self, notification: Notification) -> Incoming:
        try:
            params = jsonrpc.members(notification.params)
            if notification.method == "notifications/progress":
                return self._progress(notification, params)
            if notification.method == "notifications/cancelled":
                return self._cancelled_by_server(notification, params)
            if self.is_modern and "_meta" in params:
                meta = jsonrpc.members(params["_meta"])
                if META_SUBSCRIPTION_ID in meta:
                    return self._of_subscription(notification, meta[META_SUBSCRIPTION_ID])
        except _UNREADABLE as error:
            return Ignored(f"{notification.method} cannot be read: {error!r}")
        if notification.method == "notifications/message":
            return self._log_message(notification)
        if self.is_modern:
            return Ignored(f"{notification.method} of no subscription")
        # To one stream of each session, the newest. Source: MCP 2025-11-25, basic/transports, "Multiple Connections".
        streams = {exchange.owner: each for each, exchange in self._open.items() if exchange.is_stream}
        if streams:
            return Told(tuple(streams.values()), notification)
        if not self._is_private:
            return Ignored(f"{notification.method}: no session of a shared pipe listens")
        exchange_id = self._newest_call()
        return Told((exchange_id,), notification) if exchange_id else self._hold(notification)

    def _progress(self, notification: Notification, params: dict[str, Raw]) -> Incoming:
        exchange_id = _value(params["progressToken"])
        exchange = self._open.get(exchange_id) if type(exchange_id) is int else None
        if exchange is None or not exchange.token:
            return Ignored("progress of a request that is over", Stray.PROGRESS)
        assert isinstance(exchange_id, int)
        params["progressToken"] = Raw(exchange.token)
        return Told((exchange_id,), Notification(notification.method, msgspec.json.encode(params)))

    def _cancelled_by_server(self, notification: Notification, params: dict[str, Raw]) -> Incoming:
        request_id = _value(params["requestId"])
        if self.is_modern:  # it may only end a subscription so
            exchange = self._open.get(request_id) if type(request_id) is int else None
            if exchange is None or not exchange.is_stream:
                return Ignored("a cancellation of nothing that is open", Stray.CANCELLATION)
            assert isinstance(request_id, int)
            return Ended(request_id)
        asked = self._asked.pop(request_id, None)
        if asked == 0:
            self._held = deque(each for each in self._held if not (isinstance(each, Request) and _value(each.id) == request_id))
        if asked is None or asked not in self._open:
            return Ignored("a cancellation of nothing that is open", Stray.CANCELLATION)
        return Told((asked,), notification)

    def _of_subscription(self, notification: Notification, subscription_id: Raw) -> Incoming:
        exchange_id = _value(subscription_id)
        if type(exchange_id) is not int or exchange_id not in self._open:
            return Ignored(f"{notification.method} of a subscription that is over")
        return Told((exchange_id,), notification)

    def _log_message(self, notification: Notification) -> Incoming:
        """Log messages name no request. Where it is not certain whose they are, nobody gets to read them."""
        calls = [(each, exchange) for each, exchange in self._open.items() if not exchange.is_stream]
        if self.is_modern:
            calls = [(each, exchange) for each, exchange in calls if exchange.wants_logs]
            return Told((calls[0][0],), notification) if len(calls) == 1 else Ignored("a log message of no certain request")
        if calls and (self._is_private or len({exchange.owner for _, exchange in calls}) == 1):
            return Told((self._newest_call(),), notification)
        if not self._is_private:
            return Ignored("a log message of no certain session")
        stream = self._stream()
        return Told((stream,), notification) if stream else self._hold(notification)

    def _newest_call(self) -> int:
        """What the server says without naming a request most likely belongs to the last one that runs something.

        Beside it there may be requests such as `resources/unsubscribe`, whose sender expects no more than their answer.
        """
        calls = [(each, exchange.may_ask) for each, exchange in reversed(self._open.items()) if not exchange.is_stream]
        return next((each for each, may_ask in calls if may_ask), calls[0][0] if calls else 0)

    def _stream(self) -> int:
        return next((each for each, exchange in reversed(self._open.items()) if exchange.is_stream), 0)

    def _hold(self, message: Request | Notification) -> Held:
        self._held.append(message)
        if len(self._held) <= MAX_HELD:
            return Held()
        dropped = self._held.popleft()
        if not isinstance(dropped, Request):
            return Held()
        self._asked.pop(_value(dropped.id), None)
        return Held((_error(dropped.id, INTERNAL_ERROR, "the client does not listen"),))

    def assert_consistent(self) -> None:
        """For tests: what must hold after every step."""
        requests = {each: exchange for each, exchange in self._open.items() if exchange.client_id}
        for (owner, client_id), exchange_id in self._id_of.items():
            exchange = requests[exchange_id]
            assert (owner, client_id) == (exchange.owner, _value(exchange.client_id))
        assert all(0 < each <= self._last_id for each in self._open)
        assert list(self._open) == sorted(self._open), "the newest call is the last one"
        assert len(self._held) <= MAX_HELD
        assert len(self._asked) <= MAX_ASKED
        held = [_value(each.id) for each in self._held if isinstance(each, Request)]
        assert {each for each, exchange_id in self._asked.items() if exchange_id == 0} <= set(held)
        assert self._is_private or not self._asked
        assert not self._held or not self._stream()


def _with_token(params: bytes, exchange_id: int) -> tuple[bytes, bytes, bool]:
    """(params with a token of this pipe where there was one, the client's own token, whether it wants log messages).

    Encoded anew in any case: a second `_meta` that only the server would look at must not reach it.
    """
    if b"_meta" not in params and b"\\" not in params:  # an escape may spell it differently
        return params, b"", False
    try:
        values = jsonrpc.members(params)
        meta = jsonrpc.members(values["_meta"])
    except _UNREADABLE:
        return params, b"", False
    token = meta.get("progressToken")
    if token is not None:
        meta["progressToken"] = Raw(b"%d" % exchange_id)
    values["_meta"] = Raw(msgspec.json.encode(meta))
    return msgspec.json.encode(values), bytes(token or b""), _META_LOG_LEVEL in meta


def _value(request_id: bytes) -> object:
    """The id as a value, so that 1 and 1.0e0 or "a" and "\\u0061" are one; the bytes themselves where they are no id."""
    try:
        return jsonrpc.id_value(request_id)
    except (msgspec.DecodeError, ValueError):
        return bytes(request_id)


def _own_id(request_id: bytes) -> int:
    """The id as one of this pipe's, which some servers repeat as a string; 0 where it is none."""
    value = _value(_OWN_ID_AS_STRING.sub(rb"\1", request_id))
    return value if type(value) is int else 0


def _cancelled(request_id: bytes, reason: str) -> Notification:
    params = msgspec.json.encode({"requestId": Raw(request_id), "reason": reason})
    return Notification("notifications/cancelled", params)


def _error(request_id: bytes, code: int, text: str) -> Response:
    return Response(request_id, b"", json_error(code, text))
