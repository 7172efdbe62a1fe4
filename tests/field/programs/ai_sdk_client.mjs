// The MCP client of the AI SDK, without a model: its tools are called as the SDK calls them.
import { createMCPClient } from "@ai-sdk/mcp";

const [url, calls] = process.argv.slice(2);
const client = await createMCPClient({ transport: { type: url.includes("/sse") ? "sse" : "http", url } });
const tools = await client.tools();
const answers = [];
for (const [name, args] of JSON.parse(calls)) {
  const result = await tools[name].execute(args, { toolCallId: name, messages: [] });
  answers.push(result.content[0].text);
}
await client.close();
console.log(JSON.stringify({ tools: Object.keys(tools), answers }));
