"""The MCP servers of the OpenAI Agents SDK, without its agents."""

import asyncio
import json
import sys

from agents.mcp import MCPServerStreamableHttp


async def main(url: str, calls: str) -> None:
    async with MCPServerStreamableHttp(params={"url": url}) as server:
        tools = [tool.name for tool in await server.list_tools()]
        results = [await server.call_tool(name, arguments) for name, arguments in json.loads(calls)]
    print(json.dumps({"tools": tools, "answers": [result.content[0].text for result in results]}))


asyncio.run(main(*sys.argv[1:]))
