// The official TypeScript SDK 1.x, which client_scenario.mjs of tests/node does not use: only its MCP client, a URL and nothing else.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, calls] = process.argv.slice(2);
const Transport = url.includes("/sse") ? SSEClientTransport : StreamableHTTPClientTransport;
const client = new Client({ name: "sdk_1", version: "1" });
await client.connect(new Transport(new URL(url)));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const answers = [];
for (const [name, args] of JSON.parse(calls)) {
  answers.push((await client.callTool({ name, arguments: args })).content[0].text);
}
await client.close();
console.log(JSON.stringify({ tools, answers }));
