"""Which of the two HTTP transports a server speaks: asked in the order that the specification gives.

Source: MCP 2025-11-25, basic/transports, "Backwards Compatibility": POST an `initialize`; where it is answered with 400, 404 or
405, GET, and expect an event stream whose first event is `endpoint`. What asks is loaded with the first question.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.eras.own_requests import TRANSPORT_ID, initialize
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.upstream.http.failure_text import failure_text
from mcp_gateway.transports.upstream.http.same_origin import MAX_REDIRECTS, LedAstray, address_within_origin, is_redirect

from .message_pipe import PipeClosed

_ASK_S: Final = 10.0
_ENDPOINT_S: Final = 5.0
_END_S: Final = 1.0
_LARGEST_REFUSAL_BYTES: Final = 65_536
_REFUSALS: Final = frozenset({400, 404, 405})


async def speaks_sse(url: str, headers: Mapping[str, str]) -> bool | None:
    """Whether the server at the URL speaks HTTP+SSE; None where nothing that it says belongs to either transport.

    Raises: UpstreamError where it cannot be reached, or is unwell.
    """
    import aiohttp

    try:
        is_streamable = await _takes_initialize(url, headers)
    except LedAstray as error:
        raise UpstreamError(Fate.BROKEN, str(error)) from None
    except TimeoutError as error:
        raise UpstreamError(Fate.UNREACHABLE, "the server did not answer in time", reason="upstream_timeout") from error
    except (aiohttp.ClientError, ValueError) as error:
        raise UpstreamError(Fate.UNREACHABLE, f"cannot connect: {failure_text(error)}") from error
    return False if is_streamable else (await _names_endpoint(url, headers) or None)


async def _takes_initialize(url: str, headers: Mapping[str, str]) -> bool:
    """Whether a POST meets anything but the refusals that a server of HTTP+SSE has for it; a session that it opens is ended."""
    import aiohttp

    body = jsonrpc.encode(initialize(TRANSPORT_ID))
    ours = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "User-Agent": "mcp-gateway"}
    async with aiohttp.ClientSession(
        headers={**headers, **ours}, timeout=aiohttp.ClientTimeout(total=_ASK_S), cookie_jar=aiohttp.DummyCookieJar()
    ) as http:
        for _ in range(MAX_REDIRECTS + 1):
            async with http.post(url, data=body, allow_redirects=False) as response:
                if is_redirect("POST", response.status):
                    url = address_within_origin(url, response.headers.get("Location", ""))
                    continue
                if response.status >= 500:
                    text = f"the server answered with status {response.status}"
                    raise UpstreamError(Fate.UNREACHABLE, text)
                if response.status in _REFUSALS:
                    return _is_of_mcp(await response.content.read(_LARGEST_REFUSAL_BYTES))
                session_id = response.headers.get("Mcp-Session-Id")
            if session_id is not None:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # the server forgets an idle session by itself
                    async with asyncio.timeout(_END_S), http.delete(url, headers={"Mcp-Session-Id": session_id}):
                        pass
            return True
    raise LedAstray("the server redirects too often")


def _is_of_mcp(body: bytes) -> bool:
    """Whether a refusal is a JSON-RPC answer: of a server that speaks only a revision without `initialize`, for example."""
    try:
        return isinstance(jsonrpc.decode_from_server(body), Response)
    except Refused:
        return False


async def _names_endpoint(url: str, headers: Mapping[str, str]) -> bool:
    from .http_sse import SsePipe
    from .pipe_target import PipeTarget

    pipe = SsePipe(PipeTarget(url, headers, _LARGEST_REFUSAL_BYTES))
    try:
        async with asyncio.timeout(_ENDPOINT_S):
            await pipe.open()
    except (PipeClosed, TimeoutError):
        return False
    finally:
        await pipe.close()
    return True
