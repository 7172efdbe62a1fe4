"""langchain-mcp-adapters: the tools of a server as tools of LangChain, a session for each call."""

import asyncio
import json
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient


async def main(url: str, calls: str) -> None:
    tools = {tool.name: tool for tool in await MultiServerMCPClient({"gateway": {"url": url, "transport": "http"}}).get_tools()}
    results = [await tools[name].ainvoke(arguments) for name, arguments in json.loads(calls)]
    print(json.dumps({"tools": list(tools), "answers": [result[0]["text"] for result in results]}))


asyncio.run(main(*sys.argv[1:]))
