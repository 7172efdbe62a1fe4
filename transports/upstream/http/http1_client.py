"""A lean HTTP/1.1 client for one origin: kept-alive connections that carry one exchange at a time, answers parsed by llhttp.

A general client took a quarter of the CPU of a call; this one does only what the wire to an MCP server needs. It follows no
redirect, keeps no cookie and asks no proxy.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import re
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final

import aiohappyeyeballs
from yarl import URL

from mcp_gateway.transports.ports.deadlines import Deadlines

from .client_tls import ClientTls
from .server_connection import Answer, ServerConnection

_CONNECT_TIMEOUT_S: Final = 5.0
_SECOND_ADDRESS_S: Final = 0.25  # Source: RFC 8305, section 5, "Connection Attempt Delay"
# Shorter than the 5 s after which common servers close an idle connection: a request never meets a closing one.
_KEEP_ALIVE_S: Final = 4.0
_SWEEP_S: Final = 1.0
_MOST_ENDING: Final = 16
"""Connections, to one origin, that are kept for the end of a stream whose answer is here. Ours."""
_LONGEST_REST_BYTES: Final = 65_536
"""Of what comes between the answer and that end."""
_NO_TOKEN: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class CannotConnect(Exception):
    """Nothing of the request has been sent. Its cause is the system's own error, where there is one."""


class Http1Client:
    """Exchanges with one origin. How many run at once is up to the caller.

    url:     where; only scheme, host, port and user count. A user becomes Basic credentials.
    headers: sent with each request, unless it names its own.
    tls:     for a URL of https.
    """

    def __init__(self, url: str, headers: Mapping[str, str], tls: ClientTls | None = None) -> None:
        origin = URL(url)
        assert origin.raw_host is not None
        assert origin.port is not None
        self._host, self._port = origin.raw_host, origin.port
        self._tls = (tls or ClientTls()) if origin.scheme == "https" else None
        own = {"Host": origin.host_port_subcomponent or "", **headers}
        if origin.user is not None:
            credentials = f"{origin.user}:{origin.password or ''}".encode()
            own["Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
        self._lines = _lines(own)
        self.deadlines = Deadlines()
        # {whether they carry what may be repeated: the one that was used last is at the end, and used next}
        self._idle: dict[bool, list[ServerConnection]] = {True: [], False: []}
        self._open: set[ServerConnection] = set()
        self._ending: dict[ServerConnection, float] = {}  # since when only the end of their stream is missing
        self._sweeper: asyncio.TimerHandle | None = None

    def request(
        self,
        verb: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout_s: float | None = None,
        *,
        may_repeat: bool = False,
    ) -> Asking:
        """Ask; the block begins when the head of the answer is there.

        url:        of this origin.
        timeout_s:  until the end of the block; None for no limit. Connecting has a limit of its own.
        may_repeat: whether the caller asks again where the connection was cut before the answer. What may not be repeated has
                    connections apart: a server that fails at a notification after it has said 202 closes the connection a
                    little later, and would take along the next call, whoever's it is.

        Raises: ValueError for a header that cannot be sent; to begin the block CannotConnect, ExchangeCut, TimeoutError.
        """
        head = _head(verb, _target(url), {**self._lines, **_lines(headers)}, body)
        return Asking(self, head, body, timeout_s, may_repeat=may_repeat)

    async def close(self) -> None:
        """End all connections, exchanges included."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.transport.abort()

    # ---- connections

    async def connection(self, *, may_repeat: bool) -> ServerConnection:
        """One for an exchange, kept or new, to be given back. Raises: CannotConnect."""
        return self.kept_connection(may_repeat=may_repeat) or await self._connect()

    def kept_connection(self, *, may_repeat: bool) -> ServerConnection | None:
        """The same, None where none is kept."""
        too_old_s = time.monotonic() - _KEEP_ALIVE_S
        idle = self._idle[may_repeat]
        while idle:
            connection = idle.pop()
            if connection.idle_since_s >= too_old_s and not connection.transport.is_closing():
                return connection
            connection.transport.abort()
        return None

    def give_back(self, connection: ServerConnection, *, may_repeat: bool) -> None:
        """The exchange is over, or has failed. Where the answer is here and its stream has no end yet, it is waited for: servers
        write it a moment later, and a new connection would cost more than a call.
        """
        if connection.is_answered and not connection.is_over and len(self._ending) < _MOST_ENDING:
            self._ending[connection] = time.monotonic()
            connection.on_news = functools.partial(self._look_for_end, connection, may_repeat=may_repeat)
            self._sweep_later()
            return
        if connection.is_cut_unheard:
            for other in self._idle[may_repeat]:  # a server that restarts, or fails at many messages: who asks again meets none
                other.transport.abort()
        if not connection.is_reusable:
            connection.transport.abort()
            return
        connection.prepare()
        connection.idle_since_s = time.monotonic()
        self._idle[may_repeat].append(connection)
        self._sweep_later()

    def _look_for_end(self, connection: ServerConnection, *, may_repeat: bool) -> None:
        if connection.is_over or connection.bytes_here > _LONGEST_REST_BYTES:
            connection.on_news = None
            connection.is_answered = False
            self._ending.pop(connection, None)
            self.give_back(connection, may_repeat=may_repeat)

    def _sweep_later(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        too_old_s = time.monotonic() - _KEEP_ALIVE_S
        for idle in self._idle.values():
            while idle and idle[0].idle_since_s < too_old_s:
                idle.pop(0).transport.abort()
        for connection, since_s in list(self._ending.items()):
            if since_s < time.monotonic() - _SWEEP_S:
                connection.transport.abort()
        self._sweeper = None
        if self._ending or any(self._idle.values()):
            self._sweep_later()

    async def _connect(self) -> ServerConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                connected = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_SECOND_ADDRESS_S, interleave=1, loop=loop
                )
                try:
                    _, connection = await loop.create_connection(
                        lambda: ServerConnection(self._forget),
                        sock=connected,
                        ssl=None if self._tls is None else self._tls.context(),
                        server_hostname=self._host if self._tls else None,
                    )
                except BaseException:
                    connected.close()
                    raise
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise CannotConnect("no connection") from error
        self._open.add(connection)
        return connection

    def _forget(self, connection: ServerConnection) -> None:
        """It has ended."""
        self._open.discard(connection)
        self._ending.pop(connection, None)
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)


class Asking:
    """One request: the block of `Http1Client.request`. No generator, of which the event loop would keep account with every call.

    Who has a task awaits the block. Who has none begins it first, looks at `here` whenever there is news, and ends it by `leave`;
    or awaits the block after all, where it goes on with what has been sent and what has come.
    """

    __slots__ = ("_body", "_client", "_connection", "_deadline", "_head", "_may_repeat")

    def __init__(self, client: Http1Client, head: bytes, body: bytes, timeout_s: float | None, *, may_repeat: bool) -> None:
        self._client = client
        self._head = head
        self._body = body
        self._deadline = client.deadlines.within(timeout_s)
        self._may_repeat = may_repeat
        self._connection: ServerConnection | None = None

    # ---- without a task

    def begin(self, on_news: Callable[[], None]) -> bool:
        """Send at once; False where there is no connection for it yet, and nothing has been sent.

        on_news: called back, not from here, whenever something has come or the connection has ended, until the request is over
                 or awaited.
        """
        connection = self._client.kept_connection(may_repeat=self._may_repeat)
        if connection is None:
            return False
        self._connection = connection
        connection.on_news = on_news
        connection.send(self._head, self._body)
        return True

    @property
    def here(self) -> ServerConnection | None:
        """The connection that it was sent on, to see what has come."""
        return self._connection

    def leave(self) -> None:
        """It is over, however far it has come; harmless for one that was not sent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.on_news = None
            self._client.give_back(connection, may_repeat=self._may_repeat)

    def within(self, timeout_s: float | None) -> Asking:
        """The same with another deadline, before it is awaited."""
        self._deadline = self._client.deadlines.within(timeout_s)
        return self

    # ---- in a task

    async def __aenter__(self) -> Answer:
        self._deadline.__enter__()
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = await self._client.connection(may_repeat=self._may_repeat)
                connection.send(self._head, self._body)
            connection.on_news = None
            return await connection.answer()
        except BaseException as error:
            self.leave()
            self._deadline.__exit__(type(error), error, error.__traceback__)  # raises TimeoutError where that is why
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.leave()
        finally:
            self._deadline.__exit__(kind, error, traceback)


@functools.lru_cache(maxsize=1024)
def _target(url: str) -> str:
    """What stands in the request line. Source: RFC 9112, section 3.2.1."""
    return URL(url).raw_path_qs


def _lines(headers: Mapping[str, str]) -> dict[str, str]:
    """{lower-case name: line of a head}. Raises: ValueError for a header that cannot be sent."""
    if _NO_TOKEN.search("".join(headers)) or _NO_VALUE.search("".join(headers.values())):
        raise ValueError("a header holds characters that no header may hold")
    return {name.lower(): f"{name}: {value}\r\n" for name, value in headers.items()}


def _head(verb: str, target: str, lines: Mapping[str, str], body: bytes) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body or verb == "POST" else ""
    return f"{verb} {target} HTTP/1.1\r\n{''.join(lines.values())}{length}\r\n".encode()
