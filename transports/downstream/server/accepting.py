"""Takes connections of clients for as long as the process has file descriptors to spare.

A process without a descriptor cannot do anything any more: accepting spins, and its actors can neither send nor wait. Idle
connections count in no transport's limit, and some machines allow few descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import resource
import socket
import time
from http.client import responses
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, UnsatisfiableReadError

from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry.log_budget import LogBudget

_logger = logging.getLogger(__name__)

_LINGER_S: Final = 2.0
_KEPT: Final = 256
"""Descriptors that clients do not get: for servers, actors and files. Where few are allowed, half of them."""


class BoundedHttpServer(HTTPServer):
    """An HTTP server that refuses a connection which would leave the process too few descriptors."""

    def initialize(self, *arguments: Any, **keywords: Any) -> None:
        super().initialize(*arguments, **keywords)
        self._most = most_for_clients()
        self._budget = LogBudget(lines=1)
        self._lingering = HeldTasks()

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        # The kernel gives the lowest number that is free.
        if self._most is not None and stream.socket.fileno() >= self._most:
            self._refuse(stream)
        else:
            stream.close = functools.partial(self._close, stream)  # type: ignore[method-assign]
            super().handle_stream(stream, address)

    def _close(self, stream: IOStream, exc_info: Any = False) -> None:
        """Close it, with a word to a client whose headers are too large: Tornado would say none."""
        del stream.close  # of this object: the method of its class is there again
        is_reading_head = isinstance(exc_info, UnsatisfiableReadError) and stream._read_regex is not None
        if is_reading_head and stream.socket is not None:
            with contextlib.suppress(OSError):  # no descriptor left: it goes without
                kept = stream.socket.dup()
                if self._most is None or kept.fileno() < self._most:
                    self._lingering.start(_refuse_and_linger(kept))
                else:
                    kept.close()
        stream.close(exc_info)

    def _refuse(self, stream: IOStream) -> None:
        if self._budget.take(time.monotonic()) is not None:
            _logger.warning("connections of clients are refused: %d file descriptors are in use", self._most)
        with contextlib.suppress(OSError):  # a client that has gone already
            stream.socket.send(_REFUSAL)
        stream.close()


async def _refuse_and_linger(connection: socket.socket) -> None:
    """Answer 431, then read what still comes, for a while: a close before that would take the answer away from the client.

    Source: RFC 9112, section 9.6.
    """
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(OSError, TimeoutError):
        connection.setblocking(False)
        connection.send(_HEADERS_TOO_LARGE)
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_LINGER_S):
            while await loop.sock_recv(connection, 65_536):
                pass


def most_for_clients() -> int | None:
    """The first file descriptor that no client may have; None where there is no limit."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else max(allowed - _KEPT, allowed // 2)


def _answer(refused: Refused) -> bytes:
    """The whole of a last answer on a connection of which no request has been read."""
    body = refused.body()
    retry = "" if refused.retry_after_s is None else "Retry-After: 1\r\n"
    head = (
        f"HTTP/1.1 {refused.status} {responses[refused.status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body


_REFUSAL: Final = _answer(Refused("too_many_connections", "this process can take no more connections"))
_HEADERS_TOO_LARGE: Final = _answer(Refused("too_large", "the headers are too large", status=431))
