"""The official Python SDK's client, with answers to every question of a server and a record of what it was told."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import attrs
import mcp_types as types
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.end_to_end.phoenix_transport import phoenix_transport
from tests.end_to_end.websocket_transport import websocket_transport

MODES = ("legacy", "2026-07-28")
_Value = TypeVar("_Value")


@attrs.define
class Record:
    """What servers said to the client, in the order of arrival. notifications: the method of each."""

    logs: list[Any] = attrs.field(factory=list)
    notifications: list[str] = attrs.field(factory=list)
    updated_uris: list[str] = attrs.field(factory=list)
    questions: list[str] = attrs.field(factory=list)

    async def wait_for(self, condition: Callable[[Record], bool], timeout_s: float = 5.0) -> None:
        await eventually(lambda: condition(self), timeout_s, str(self))


async def eventually(check: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait on a condition without blocking the client.

    Raises: AssertionError after `timeout_s`.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    while not check():
        assert loop.time() < deadline_s, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(
    url: str, mode: str, *, name: str = "Ada", transport: Any = None, **options: Any
) -> AsyncIterator[tuple[Client, Record]]:
    """A connected client and its record.

    url:  of any endpoint of the gateway, or a server's own; it tells the transport.
    transport: by which the SDK connects, where the URL alone does not say it.
    name: what this client answers to an elicitation, and signs samples with.
    """
    record = Record()

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        record.questions.append("elicitation")
        return types.ElicitResult(action="accept", content={"name": name})

    async def sample(context: Any, params: Any) -> types.CreateMessageResult:
        prompt = params.messages[0].content.text
        record.questions.append(f"sampling: {prompt}")
        content = types.TextContent(type="text", text=f"about {prompt}")
        return types.CreateMessageResult(role="assistant", content=content, model=f"model of {name}")

    async def roots(context: Any) -> types.ListRootsResult:
        record.questions.append("roots")
        return types.ListRootsResult(roots=[types.Root(uri=f"file:///{name}")])  # type: ignore[arg-type]

    async def log(params: Any) -> None:
        record.logs.append(params.data)

    async def message(message: Any) -> None:
        if isinstance(message, Exception):
            return
        record.notifications.append(message.method)
        if message.method == "notifications/resources/updated":
            record.updated_uris.append(str(message.params.uri))

    callbacks: dict[str, Any] = {
        "elicitation_callback": elicit,
        "sampling_callback": sample,
        "list_roots_callback": roots,
        "logging_callback": log,
        "message_handler": message,
    }
    # The SDK (2.3.0) answers a late response to a request that it has cancelled into a stream that its own end has closed.
    has_ended = False
    try:
        async with Client(transport or _transport(url), mode=mode, cache=None, **callbacks, **options) as client:
            yield client, record
            has_ended = True
    except* (anyio.ClosedResourceError, anyio.BrokenResourceError):
        if not has_ended:
            raise


def _transport(url: str) -> Any:
    """What the SDK connects by: Streamable HTTP for a plain URL, else the transport of the gateway's endpoint."""
    if "/mcp/websocket" in url:
        return phoenix_transport(url)
    if url.startswith("ws"):
        return websocket_transport(url)
    return sse_client(url) if "/mcp/sse/" in url else url


def run(conversation: Coroutine[Any, Any, _Value], timeout_s: float = 30.0) -> _Value:
    """Run one conversation to its end, within a bound."""

    async def bounded() -> _Value:
        async with asyncio.timeout(timeout_s):
            return await conversation

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)  # the legacy era is what these tests are about
        return asyncio.run(bounded())


def text_of(result: Any) -> str:
    text: str = result.content[0].text
    return text


async def all_pages(fetch: Callable[..., Awaitable[Any]], member: str, attribute: str) -> list[list[str]]:
    """The names (or whatever attribute) on each page of a list."""
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor:
        page = await fetch(cursor=cursor)
        pages.append([str(getattr(item, attribute)) for item in getattr(page, member)])
        cursor = page.next_cursor
        assert len(pages) < 100, "the list does not end"
    return pages
