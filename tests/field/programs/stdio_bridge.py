"""A program between stdio and the gateway, started as a desktop client does: `stdio_bridge.py URL CALLS COMMAND...`."""

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main(url: str, calls: str, *command: str) -> None:
    program, *arguments = (word.replace("{url}", url) for word in command)
    async with (
        stdio_client(StdioServerParameters(command=program, args=arguments)) as streams,
        ClientSession(*streams) as session,
    ):
        await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        results = [await session.call_tool(name, arguments) for name, arguments in json.loads(calls)]
    print(json.dumps({"tools": tools, "answers": [result.content[0].text for result in results]}))


asyncio.run(main(*sys.argv[1:]))
