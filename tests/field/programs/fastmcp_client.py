"""FastMCP's client."""

import asyncio
import json
import sys

from fastmcp import Client


async def main(url: str, calls: str) -> None:
    async with Client(url) as client:
        tools = [tool.name for tool in await client.list_tools()]
        results = [await client.call_tool(name, arguments) for name, arguments in json.loads(calls)]
    print(json.dumps({"tools": tools, "answers": [result.content[0].text for result in results]}))


asyncio.run(main(*sys.argv[1:]))
