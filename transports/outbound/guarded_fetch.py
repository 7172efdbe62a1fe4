"""One request to an address that may come from a stranger: https, public addresses, no redirects, bounded in size and time.

The HTTP client is loaded with the first of them: most gateways fetch nothing.

Source: OWASP, Server-Side Request Forgery Prevention; MCP security best practices, "Server-Side Request Forgery".
"""

from __future__ import annotations

import asyncio
import json as json_codec
import logging
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

import attrs

from .public_addresses import is_public

if TYPE_CHECKING:
    import aiohttp

_logger = logging.getLogger(__name__)
_LONGEST_URL: Final = 4_096


@attrs.frozen(kw_only=True)
class FetchRules:
    """What is allowed. allow_private: any address, and plain HTTP: for what an operator has named on the own network.

    max_bytes: of the body. timeout_s: from the look-up of the name to the last byte.
    """

    allow_private: bool = False
    max_bytes: int = 262_144
    timeout_s: float = 10.0


@attrs.frozen
class Fetched:
    """An answer, whatever its status. headers: {lower-case name: value}, the first where a name comes twice."""

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


class FetchFailed(Exception):
    """There is no answer. The text names the host and the cause: nothing of the path, the query, or what was sent.

    is_refused: nothing was sent, because the rules forbid it; trying again is of no use.
    """

    def __init__(self, text: str, *, is_refused: bool = False) -> None:
        super().__init__(text)
        self.is_refused = is_refused


class _NotPublicError(OSError):
    """The address is on an own network."""


async def fetch(
    url: str,
    *,
    rules: FetchRules,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    json: Any = None,
) -> Fetched:
    """Send one request on a connection of its own.

    form: sent as `application/x-www-form-urlencoded`; json: as `application/json`; at most one of them.

    Raises: FetchFailed.
    """
    import aiohttp

    parts = _checked(url, rules)
    body, sent_headers = _body_of(form, json)
    sent_headers |= {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
    connector = aiohttp.TCPConnector(
        limit=1, force_close=True, use_dns_cache=False, socket_factory=None if rules.allow_private else _socket_to_public_address
    )
    timeout = aiohttp.ClientTimeout(total=rules.timeout_s)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
            ) as session,
            session.request(method, url, data=body, headers=sent_headers, allow_redirects=False) as response,
        ):
            return await _read(response, parts, rules)
    except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
        _logger.debug("a fetch from %s failed: %s", parts.hostname, type(error).__name__)
        raise FetchFailed(f"{parts.hostname}: {_words_of(error)}", is_refused=_is_not_public(error)) from error


def _checked(url: str, rules: FetchRules) -> SplitResult:
    """The parts of a URL that may be asked. Raises: FetchFailed."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise FetchFailed("the address is not valid", is_refused=True) from None
    schemes = ("https", "http") if rules.allow_private else ("https",)
    if parts.scheme not in schemes or not parts.hostname or port == 0 or len(url) > _LONGEST_URL:
        raise FetchFailed(f"the address is no {' or '.join(schemes)} URL", is_refused=True)
    if "@" in parts.netloc or "#" in url or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise FetchFailed(
            f"{parts.hostname!r}: the address has a user, a fragment, or characters that belong encoded", is_refused=True
        )
    return parts


def _body_of(form: Mapping[str, str] | None, json: Any) -> tuple[aiohttp.FormData | bytes | None, dict[str, str]]:
    if form is not None:
        import aiohttp

        return aiohttp.FormData(dict(form)), {}
    if json is not None:
        return json_codec.dumps(json).encode(), {"Content-Type": "application/json"}
    return None, {}


def _socket_to_public_address(address_info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for the very address that is connected to: whatever a name resolved to before or after does not count."""
    family, kind, protocol, _, address = address_info
    if not is_public(str(address[0])):
        raise _NotPublicError("the address is not public")
    return socket.socket(family=family, type=kind, proto=protocol)


async def _read(response: aiohttp.ClientResponse, parts: SplitResult, rules: FetchRules) -> Fetched:
    if 300 <= response.status < 400 and response.status != 304:
        raise FetchFailed(f"{parts.hostname}: it answers with a redirect")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchFailed(f"{parts.hostname}: the answer is compressed, which was not asked for")
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > rules.max_bytes:
            raise FetchFailed(f"{parts.hostname}: the answer is larger than {rules.max_bytes} bytes")
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        headers.setdefault(name.lower(), value)
    return Fetched(response.status, headers, bytes(body))


def _is_not_public(error: BaseException) -> bool:
    return isinstance(error, _NotPublicError) or isinstance(getattr(error, "os_error", None), _NotPublicError)


def _words_of(error: BaseException) -> str:
    """The cause in our words: a library's may name the whole URL."""
    import aiohttp

    if _is_not_public(error):
        return "its address is not public"
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror | aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, ssl.SSLError | ssl.CertificateError | aiohttp.ClientSSLError):
        return "its certificate or its TLS is not accepted"
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return "it cannot be reached, or the connection was lost"
    return "what it sent is not HTTP, or the address is not valid"
