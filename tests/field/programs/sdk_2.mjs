// The official TypeScript SDK 2.x: only its MCP client, a URL and nothing else.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, calls] = process.argv.slice(2);
const client = new Client({ name: "sdk_2", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const tools = (await client.listTools()).tools.map((tool) => tool.name);
const answers = [];
for (const [name, args] of JSON.parse(calls)) {
  answers.push((await client.callTool({ name, arguments: args })).content[0].text);
}
await client.close();
console.log(JSON.stringify({ tools, answers }));
