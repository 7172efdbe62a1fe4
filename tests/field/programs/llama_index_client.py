"""The MCP tools of LlamaIndex, without its agents: a session for each call."""

import asyncio
import json
import sys

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec


async def main(url: str, calls: str) -> None:
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(BasicMCPClient(url)).to_tool_list_async()}
    results = [await tools[name].acall(**arguments) for name, arguments in json.loads(calls)]
    print(json.dumps({"tools": list(tools), "answers": [result.raw_output.content[0].text for result in results]}))


asyncio.run(main(*sys.argv[1:]))
