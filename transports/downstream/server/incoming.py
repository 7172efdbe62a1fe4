"""One HTTP request of a client, from its first byte to the last byte of its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from tornado.iostream import IOStream

from mcp_gateway.transports.ports.hash_keys import holder
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.framing.pieces import Pieces, size_bytes
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .accept import EVENTS, refuses
from .buffered_bytes import IN, BufferedBytes, HeldBytes
from .client_connection import AnswerWriter, RequestDelegate
from .content_encoding import ACCEPT_ENCODING, UnsupportedEncoding, decoded
from .forwarded import TrustedProxies
from .message_deadline import OVERDUE, due_s
from .origins import OriginRules
from .tls import ClientCertificate
from .unsent_bytes import UnsentBytes


class RequestServer(Protocol):
    """What a request needs of the server that it comes to.

    reading: requests whose end has not come yet. always: headers of every answer.
    """

    origins: OriginRules
    proxies: TrustedProxies
    unsent: UnsentBytes
    max_message_bytes: int
    buffered: BufferedBytes
    reading: set[Incoming]
    always: Mapping[str, str]

    def dispatch(self, incoming: Incoming) -> None:
        """Have a whole request answered, whatever it asks for."""

    def challenge(self, incoming: Incoming, refused: Refused) -> str | None:
        """`WWW-Authenticate` of the refusal, where another credential might help."""


class Incoming(RequestDelegate):
    """One HTTP request of a client, whole once `body` is there, and the way to answer it.

    path:      as sent, without the slash at its end: people write addresses with and without one, and a redirect would lose
               bodies and credentials in some clients. ends_in_slash: whether there was one.
    headers:   {name as in "Mcp-Session-Id": value}; a header that came twice has both values, joined by a comma.
    version:   "HTTP/1.1" or "HTTP/1.0".
    origin:    whose request it is, and the address that the client wrote, where trusted proxies tell.
    remote_ip: where the client is, for shares, limits and keys: its address, or of IPv6 its network. See `forwarded.network_of`.
    peer:      the address at the other end of its connection.
    principal: who its client has proved to be, once that is found out; None where nobody knows.

    Answers: `respond` once; or `begin`, any number of `write`, then `end`; or `detach`. They are harmless after the client has
    gone.
    """

    __slots__ = (
        "_client_gone",
        "_connection",
        "_has_answered",
        "_held",
        "_pieces",
        "_refusal",
        "_server",
        "_size",
        "body",
        "ends_in_slash",
        "headers",
        "method",
        "origin",
        "path",
        "peer",
        "principal",
        "query",
        "remote_ip",
        "started_s",
        "version",
    )

    def __init__(self, server: RequestServer, connection: AnswerWriter) -> None:
        self._server = server
        self._connection = connection
        self._held: HeldBytes | None = None  # from the first byte of the body on, until the request is over
        self._size = 0
        self._has_answered = False
        self._client_gone: Callable[[], None] | None = None
        self._refusal: Refused | None = None
        self._pieces: bytearray | None = None  # of a body that does not come at once
        self.body = b""
        self.principal: Principal | None = None

    # ---- reading, as its connection calls it

    def head_received(self, method: str, target: str, version: str, headers: dict[str, str]) -> None:
        self.method = method
        self.headers = headers
        if target.startswith(("http://", "https://")):  # as to a proxy. Source: RFC 9112, section 3.2.2
            authority, slash, rest = target.partition("://")[2].partition("/")
            self.headers["Host"], target = authority, slash + rest or "/"
        path, _, self.query = target.partition("?")
        self.ends_in_slash = path.endswith("/") and path != "/"
        self.path = path[:-1] if self.ends_in_slash else path
        self.version = version
        self.peer = self._connection.peer.remote_ip
        self.origin = self._server.proxies.origin(self.peer, headers)
        self.remote_ip = self.origin.network
        self.started_s = time.monotonic()
        self._server.reading.add(self)
        length = self.headers.get("Content-Length", "0")
        declared = int(length) if length.isdigit() and len(length) < 20 else 0
        try:
            self._server.origins.check(self.headers.get("Origin"), self.headers.get("Host", ""), self.origin.host)
            if declared > self._server.max_message_bytes:
                raise self._too_large()
        except Refused as refused:
            self._refuse_early(refused, declared)

    def data_received(self, chunk: bytes) -> None:
        if self._has_answered:
            return
        self._size += len(chunk)
        if self._refusal is not None:
            self._refuse_early(self._refusal, self._size)
        elif self._size > self._server.max_message_bytes:
            self._refuse_early(self._too_large(), self._size)
        elif not self._hold(self._size):
            self._refuse_early(self._crowded(), self._size)
        elif not self.body:
            self.body = chunk
        elif self._pieces is None:
            self._pieces = bytearray(self.body + chunk)  # a list of pieces of a byte each would take forty times as much
        else:
            self._pieces += chunk

    def _hold(self, byte_count: int) -> bool:
        if self._held is None:
            self._held = self._server.buffered.of(self.remote_ip, IN)
        return self._held.hold(byte_count)

    @property
    def due_s(self) -> float:
        """When its body must be here."""
        return due_s(self.started_s, self._size)

    def give_up(self) -> None:
        """Its body has not come in time."""
        metrics.bounds_reached_total.labels("messages").inc()
        self.refuse(self._refusal or Refused("invalid_request", OVERDUE, status=408), {"Connection": "close"})

    def _refuse_early(self, refused: Refused, body_bytes: int) -> None:
        """Refuse a request whose body has not been read: a little more is read and dropped, so that the connection stays usable
        and the client, which may still be sending, reads the answer rather than a reset. A body far too large ends both.
        """
        self._refusal = refused
        self._drop()
        if body_bytes > 2 * self._server.max_message_bytes:
            self.refuse(refused, {"Connection": "close"})

    def _drop(self) -> None:
        self.body, self._pieces = b"", None
        if self._held is not None:
            self._held.release()

    def _crowded(self) -> Refused:
        assert self._held is not None
        metrics.bounds_reached_total.labels("buffered").inc()
        return self._held.refusal()

    def _too_large(self) -> Refused:
        return Refused("too_large", f"the message is larger than {self._server.max_message_bytes} bytes")

    def finish(self) -> None:
        self._server.reading.discard(self)
        if self._has_answered:
            return
        if self._refusal is not None:
            self.refuse(self._refusal)
            return
        if self._pieces is not None:
            self.body, self._pieces = bytes(self._pieces), None
        if self.body and (encoding := self.headers.get("Content-Encoding")) is not None:
            try:
                self.body = decoded(self.body, encoding, self._server.max_message_bytes)
                if not self._hold(len(self.body)):
                    raise self._crowded()
            except Refused as refused:
                is_other = isinstance(refused, UnsupportedEncoding)
                self.refuse(refused, {"Accept-Encoding": ACCEPT_ENCODING} if is_other else None)
                return
        self._server.dispatch(self)

    def over(self) -> None:
        """What it was has been held until now: whoever served it may have needed it."""
        self._server.reading.discard(self)
        self._has_answered = True
        self._drop()
        client_gone, self._client_gone = self._client_gone, None
        if client_gone is not None:
            client_gone()

    def take_body(self) -> bytes:
        """Its body, for one who counts it from now on."""
        body = self.body
        self._drop()
        return body

    # ---- answering

    @property
    def certificate(self) -> ClientCertificate | None:
        """The certificate at the other end of its connection: of a proxy where there is one, and not of its client."""
        return self._connection.peer.certificate()

    @property
    def holder(self) -> str:
        """Whose share it takes of what all clients share, see `hash_keys.holder_of`."""
        return holder(self.principal, self.remote_ip)

    def respond(self, status: int, body: Pieces, headers: Mapping[str, str], content_type: str = "application/json") -> None:
        if self._has_answered:
            return
        self._has_answered = True
        self._client_gone = None
        self._server.reading.discard(self)
        lines: dict[str, str] = {}
        if body:
            lines["Content-Type"] = content_type
        if status != 204:
            lines["Content-Length"] = str(size_bytes(body))
        lines.update(headers)
        self._add_common(lines)
        self._connection.answer(status, lines, body if self.method != "HEAD" else b"")
        self._written()

    def refuse(self, refused: Refused, more_headers: Mapping[str, str] | None = None) -> None:
        headers = dict(more_headers or {})
        if refused.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(refused.retry_after_s)))
        if (challenge := self._server.challenge(self, refused)) is not None:
            headers["WWW-Authenticate"] = challenge
        if not self._has_answered:
            metrics.refusals_total.labels(refused.reason).inc()
        self.respond(refused.status, refused.body(), headers)

    def _add_common(self, lines: dict[str, str]) -> None:
        if self._server.always:
            lines.update(self._server.always)
        if (origin := self.headers.get("Origin")) is not None:
            lines.update(self._server.origins.answer_headers(origin, self.headers.get("Host", ""), self.origin.host))

    def begin(self, headers: Mapping[str, str]) -> None:
        """Start an event stream."""
        if self._has_answered:
            return
        self._has_answered = True
        lines = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
        self._add_common(lines)
        self._connection.begin(200, lines)
        self._written()

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Send bytes of a begun stream; the future is done when the socket has taken these and all before them.

        It may fail, which asyncio reports unless somebody takes note (`loop_tasks.retrieve`); `on_client_gone` tells as well.
        """
        written = self._connection.write(data)
        self._written()
        return written

    def end(self) -> None:
        self._client_gone = None
        self._connection.end()
        self._written()

    def _written(self) -> None:
        self._server.unsent.written(self._connection.stream, self.remote_ip)

    def when_sent(self, callback: Callable[[], None]) -> None:
        """Call back once the client's socket has taken all that was written, or the client has gone: at once, as a rule."""
        self._server.unsent.when_sent(self._connection.stream, callback)

    def detach(self) -> IOStream:
        """Take the connection over for another protocol, whose answer this request is; nothing of HTTP follows."""
        self._has_answered = True
        self._client_gone = None
        return self._connection.detach()

    def on_client_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once if the client closes its connection before the answer is complete."""
        self._client_gone = callback


def method_not_allowed(incoming: Incoming, allowed: str) -> None:
    refused = Refused("invalid_request", f"{incoming.method} is not served here", status=405)
    incoming.respond(405, refused.body(), {"Allow": allowed})


def check_stream_is_taken(incoming: Incoming) -> None:
    """Raises: Refused where the client says that it takes no event stream, and there is nothing else at its address."""
    if refuses(incoming.headers.get("Accept", ""), EVENTS):
        raise Refused("invalid_request", "Accept refuses text/event-stream, and there is nothing else here", status=406)
