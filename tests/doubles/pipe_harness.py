"""A conversation over scripted connections, on a loop of its own for each test."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.upstream.pipes.pipe_conversation import PipeConversation
from tests.doubles.patience import patience, until
from tests.doubles.scripted_pipe import ScriptedServer

LEGACY, MODERN = "2025-11-25", "2026-07-28"
ANY = {"sampling": {}}
INITIALIZED = Notification("notifications/initialized", b"")


def params(**values: Any) -> bytes:
    return json.dumps(values).encode()


class Harness:
    """A conversation with a scripted server, and shortcuts for what clients do. protocol: as configured, or "auto"."""

    def __init__(self, server: ScriptedServer, protocol: str = LEGACY, **options: Any) -> None:
        self.server = server
        self.era = ServerEra(protocol)
        self.wire = PipeConversation(
            "stdio:x#0", server, **{"backend": "x", "max_pipes": 3, "era": self.era, "longest_call_s": 60.0, **options}
        )
        self.events: list[Message | None] = []
        self.opened: list[str] = []  # sessions whose streams are open

    async def on_event(self, message: Message | None, event_id: str | None) -> None:
        self.events.append(message)

    async def open(self, capabilities: dict[str, Any] | None = None, revision: str = LEGACY, request_id: bytes = b"0") -> str:
        content = params(protocolVersion=revision, capabilities=capabilities or {}, clientInfo={"name": "c", "version": "1"})
        answer = await self.ask(Request(request_id, "initialize", content))
        assert answer.session_id is not None
        await self.tell(INITIALIZED, answer.session_id)
        return answer.session_id

    async def ask(
        self, message: Request, session_id: str | None = None, revision: str = LEGACY, timeout_s: float | None = 5.0, **how: Any
    ) -> UpstreamAnswer:
        request = UpstreamRequest(
            kind=how.pop("kind", RequestKind.REQUEST),
            message=message,
            revision=revision,
            session_id=session_id,
            timeout_s=timeout_s,
        )
        return await self.wire.exchange(request, how.pop("on_event", self.on_event))

    def call(self, session_id: str | None, request_id: bytes = b"1", **how: Any) -> asyncio.Task[UpstreamAnswer]:
        meta = how.pop("meta", {"progressToken": "t"})
        return asyncio.create_task(self.ask(Request(request_id, "tools/call", params(_meta=meta)), session_id, **how))

    async def tell(self, message: Notification | Response, session_id: str | None) -> UpstreamAnswer:
        request = UpstreamRequest(
            kind=RequestKind.MESSAGE, message=message, revision=LEGACY, session_id=session_id, timeout_s=5.0
        )
        return await self.wire.exchange(request, self.on_event)

    def listen(self, session_id: str) -> asyncio.Task[UpstreamAnswer]:
        request = UpstreamRequest(
            kind=RequestKind.STREAM, revision=LEGACY, session_id=session_id, on_open=lambda: self.opened.append(session_id)
        )
        return asyncio.create_task(self.wire.exchange(request, self.on_event))

    async def terminate(self, session_id: str) -> None:
        await self.wire.exchange(
            UpstreamRequest(kind=RequestKind.TERMINATE, revision=LEGACY, session_id=session_id), self.on_event
        )


def conversation(**options: Any) -> Callable[[Callable[[Harness], Awaitable[None]]], Callable[[], None]]:
    """Run the test with a harness on a loop of its own; afterwards nothing is left open and no task runs."""

    def decorate(test: Callable[[Harness], Awaitable[None]]) -> Callable[[], None]:
        def run() -> None:
            async def bounded() -> None:
                async with patience():
                    harness = Harness(options.pop("server", None) or ScriptedServer(), **options)
                    await test(harness)
                    await harness.wire.close()
                    assert harness.server.open_count == 0
                    await until(lambda: len(asyncio.all_tasks()) == 1)  # no task is left

            asyncio.run(bounded())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


async def refused(exchange: Awaitable[Any]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await exchange
    return caught.value


def silent_server() -> ScriptedServer:
    server = ScriptedServer()
    server.answers.clear()
    return server
