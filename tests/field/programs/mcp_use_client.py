"""mcp-use, without its agents."""

import asyncio
import json
import sys

from mcp_use import MCPClient


async def main(url: str, calls: str) -> None:
    client = MCPClient({"mcpServers": {"gateway": {"url": url}}})
    session = await client.create_session("gateway")
    tools = [tool.name for tool in await session.list_tools()]
    results = [await session.call_tool(name, arguments) for name, arguments in json.loads(calls)]
    await client.close_all_sessions()
    print(json.dumps({"tools": tools, "answers": [result.content[0].text for result in results]}))


asyncio.run(main(*sys.argv[1:]))
