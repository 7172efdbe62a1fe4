"""Why a connection failed, in our words: what a library says may name the address, its query and what it was sent.

Clients read these texts. The library's own go to the log, which cleans them.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from typing import Final

from mcp_gateway.transports.protocol.framing.sse import EventTooLarge
from mcp_gateway.transports.telemetry.log_budget import LogBudget

from .server_connection import ExchangeCut
from .server_words import ServerWords

_logger = logging.getLogger(__name__)
_LINES: Final = 3
_PERIOD_S: Final = 60.0
"""Probes fail every few seconds for as long as a server is away."""

_WORDS: Final = {
    "socket.gaierror": "its name cannot be resolved",
    "builtins.TimeoutError": "no answer in time",
    "builtins.ValueError": "what the server sent cannot be read",
    "aiohttp.client_exceptions.ClientConnectorDNSError": "its name cannot be resolved",
    "aiohttp.client_exceptions.ServerDisconnectedError": "the server closed the connection",
    "aiohttp.client_exceptions.ServerTimeoutError": "no answer in time",
    "aiohttp.client_exceptions.ClientConnectionError": "the connection was lost",
    "aiohttp.client_exceptions.ClientPayloadError": "the answer breaks off, or is not encoded as its headers say",
    "aiohttp.client_exceptions.ClientResponseError": "what the server sent is not HTTP",
    "aiohttp.client_exceptions.InvalidURL": "an address is not valid",
    "aiohttp.http_exceptions.HttpProcessingError": "what the server sent is not HTTP",
    "aiohttp._websocket.models.WebSocketError": "the server does not keep to the WebSocket protocol",
}
"""{class of an error: why}: the nearest of its bases counts; what has none is named by its class alone. By name: a gateway
whose servers speak plain Streamable HTTP or stdio never loads aiohttp."""


def failure_text(error: BaseException) -> str:
    """The cause in words: the system's where it has some, else ours; never a library's."""
    system_error = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    if isinstance(system_error, ssl.SSLCertVerificationError):  # after the comma it names the host
        return f"the server's certificate is not accepted: {system_error.verify_message.partition(',')[0]}"
    if isinstance(system_error, ssl.SSLError):  # its errno is OpenSSL's, not the system's
        return f"TLS failed: {(system_error.reason or type(system_error).__name__).replace('_', ' ').lower()}"
    if (number := getattr(system_error, "errno", None)) is not None and number > 0:
        return os.strerror(number)  # asyncio puts the address into the error's own text
    if isinstance(error, EventTooLarge | ExchangeCut):
        return str(error)
    bases = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((_WORDS[base] for base in bases if base in _WORDS), type(error).__name__)


class FailureLog:
    """Tells the log what a library said, without secrets and within a budget. name: of the replica."""

    def __init__(self, name: str, words: ServerWords) -> None:
        self._name = name
        self._words = words
        self._budget = LogBudget(_LINES, _PERIOD_S)

    def note(self, error: BaseException) -> str:
        """The failure in our words, once the log has the library's."""
        text = failure_text(error)
        left_out = self._budget.take(time.monotonic())
        if left_out is not None:
            before = f" ({left_out} failures before it were left out)" if left_out else ""
            said = self._words.text(str(error) or type(error).__name__)
            _logger.info("%s: %s%s: %s", self._name, text, before, said)
        return text
