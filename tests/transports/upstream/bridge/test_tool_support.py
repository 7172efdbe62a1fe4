"""What a legacy server's tools say of tasks, read page by page and once."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.upstream.bridge.tool_support import ToolSupport, tool_name
from tests.doubles.patience import on_loop


class Server:
    """Answers `tools/list` by pages; asked: the params of each request."""

    def __init__(self, *pages: Any) -> None:
        self.pages = list(pages)
        self.asked: list[bytes] = []

    async def list_tools(self, params: bytes) -> UpstreamAnswer:
        self.asked.append(params)
        page = self.pages[len(self.asked) - 1]
        if isinstance(page, Exception):
            raise page
        return UpstreamAnswer(200, Response(b"1", json.dumps(page).encode(), b""))


def test_the_tools_are_read_once_and_page_by_page() -> None:
    async def body() -> None:
        tools = [
            {"name": name, "execution": {"taskSupport": support}} for name, support in (("a", "required"), ("b", "optional"))
        ]
        server = Server({"tools": tools[:1], "nextCursor": "2"}, {"tools": tools[1:]})
        support = ToolSupport()
        found = [await support.of(name, server.list_tools, has_tasks=True) for name in ("a", "b", "c")]
        assert found == ["required", "optional", "forbidden"]
        assert server.asked == [b"", b'{"cursor":"2"}']

    on_loop(body)


def test_a_server_without_tasks_is_not_asked() -> None:
    async def body() -> None:
        server = Server()
        assert await ToolSupport().of("a", server.list_tools, has_tasks=False) == "forbidden"
        assert server.asked == []

    on_loop(body)


def test_a_server_that_cannot_list_its_tools_is_called_as_ever() -> None:
    async def body() -> None:
        for page in (UpstreamError(Fate.BROKEN, "gone"), {"tools": 1}):
            assert await ToolSupport().of("a", Server(page).list_tools, has_tasks=True) == "forbidden"

    on_loop(body)


def test_a_call_that_names_no_tool_names_none() -> None:
    assert tool_name({"name": Raw(b'"x"')}) == "x"
    assert tool_name({"name": Raw(b"1")}) == tool_name({}) == ""
