"""The MCP toolset of Pydantic AI, without its agents."""

import asyncio
import json
import sys

from pydantic_ai.mcp import MCPToolset


async def main(url: str, calls: str) -> None:
    async with MCPToolset(url) as toolset:
        tools = [tool.name for tool in await toolset.list_tools()]
        results = [await toolset.direct_call_tool(name, arguments) for name, arguments in json.loads(calls)]
    print(json.dumps({"tools": tools, "answers": results}))


asyncio.run(main(*sys.argv[1:]))
