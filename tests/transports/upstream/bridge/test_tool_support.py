"""What a legacy server's tools say of tasks, read page by page and once."""

from __future__ import annotations

import json
from typing import Any

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.upstream.bridge.server_sessions import ServerSession
from mcp_gateway.transports.upstream.bridge.tool_support import ToolSupport
from tests.doubles.legacy_bridge import on_loop

CAPABILITIES = {"tools": {}, "tasks": {"requests": {"tools": {"call": {}}}}}


class Sessions:
    """Answers `tools/list` by pages; asked: the params of each request."""

    def __init__(self, *pages: Any) -> None:
        self.pages = list(pages)
        self.asked: list[bytes] = []

    async def ask(self, session: ServerSession, method: str, params: bytes, timeout_s: float) -> UpstreamAnswer:
        self.asked.append(params)
        page = self.pages[len(self.asked) - 1]
        if isinstance(page, Exception):
            raise page
        return UpstreamAnswer(200, Response(b"1", json.dumps(page).encode(), b""))


def session(capabilities: Any) -> ServerSession:
    return ServerSession(None, "s1", "2025-11-25", {"capabilities": capabilities})  # type: ignore[arg-type]


def test_the_tools_are_read_once_and_page_by_page() -> None:
    async def body() -> None:
        tools = [
            {"name": name, "execution": {"taskSupport": support}} for name, support in (("a", "required"), ("b", "optional"))
        ]
        sessions = Sessions({"tools": tools[:1], "nextCursor": "2"}, {"tools": tools[1:]})
        support = ToolSupport(sessions)  # type: ignore[arg-type]
        found = [await support.of(session(CAPABILITIES), name) for name in ("a", "b", "c")]
        assert found == ["required", "optional", "forbidden"]
        assert sessions.asked == [b"", b'{"cursor":"2"}']

    on_loop(body)


def test_a_server_without_tasks_is_not_asked() -> None:
    async def body() -> None:
        sessions = Sessions()
        assert await ToolSupport(sessions).of(session({"tools": {}}), "a") == "forbidden"  # type: ignore[arg-type]
        assert sessions.asked == []

    on_loop(body)


def test_a_server_that_cannot_list_its_tools_is_called_as_ever() -> None:
    async def body() -> None:
        for page in (UpstreamError(Fate.BROKEN, "gone"), {"tools": 1}):
            assert await ToolSupport(Sessions(page)).of(session(CAPABILITIES), "a") == "forbidden"  # type: ignore[arg-type]

    on_loop(body)
