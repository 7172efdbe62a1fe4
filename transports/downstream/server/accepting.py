"""Takes connections of clients for as long as the process has file descriptors to spare.

A process without a descriptor cannot do anything any more: accepting spins, and its actors can neither send nor wait. Idle
connections count in no transport's limit, and some machines allow few descriptors.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import time
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry.log_budget import LogBudget

_logger = logging.getLogger(__name__)

_KEPT: Final = 256
"""Descriptors that clients do not get: for servers, actors and files. Where few are allowed, half of them."""


class BoundedHttpServer(HTTPServer):
    """An HTTP server that refuses a connection which would leave the process too few descriptors."""

    def initialize(self, *arguments: Any, **keywords: Any) -> None:
        super().initialize(*arguments, **keywords)
        self._most = most_for_clients()
        self._budget = LogBudget(lines=1)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        # The kernel gives the lowest number that is free.
        if self._most is not None and stream.socket.fileno() >= self._most:
            self._refuse(stream)
        else:
            super().handle_stream(stream, address)

    def _refuse(self, stream: IOStream) -> None:
        if self._budget.take(time.monotonic()) is not None:
            _logger.warning("connections of clients are refused: %d file descriptors are in use", self._most)
        with contextlib.suppress(OSError):  # a client that has gone already
            stream.socket.send(_REFUSAL)
        stream.close()


def most_for_clients() -> int | None:
    """The first file descriptor that no client may have; None where there is no limit."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else max(allowed - _KEPT, allowed // 2)


def _refusal() -> bytes:
    refused = Refused("too_many_connections", "this process can take no more connections")
    body = refused.body()
    head = (
        f"HTTP/1.1 {refused.status} Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


_REFUSAL: Final = _refusal()
