"""The official Python SDK 1.x, which has no Streamable HTTP before 1.8; the path of the address tells the transport."""

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession
from mcp.client.sse import sse_client


def transport(url: str) -> Any:
    if "/sse" in url:
        return sse_client(url)
    from mcp.client.streamable_http import streamablehttp_client

    return streamablehttp_client(url)


async def main(url: str, calls: str) -> None:
    async with transport(url) as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        results = [await session.call_tool(name, arguments) for name, arguments in json.loads(calls)]
    print(json.dumps({"tools": tools, "answers": [result.content[0].text for result in results]}))


asyncio.run(main(*sys.argv[1:]))
