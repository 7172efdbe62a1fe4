// A server of the official TypeScript SDK 1.x, as its README writes one: sessions on /mcp, none on /stateless.
// Usage: node typescript_server.mjs PORT. Prints "listening"; GET /counters tells {"opened", "open"} of the sessions.
import { randomUUID } from 'node:crypto';
import express from 'express';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import { ElicitResultSchema, isInitializeRequest } from '@modelcontextprotocol/sdk/types.js';
import { z } from 'zod/v3';

const app = express();
const transports = {};
let opened = 0;

const makeServer = () => {
    const server = new McpServer({ name: 'typescript', version: '1' });
    server.registerTool('echo', { description: 'Says it again.', inputSchema: { message: z.string() } }, async ({ message }) => ({
        content: [{ type: 'text', text: message }]
    }));
    const question = {
        message: 'What is your name?',
        requestedSchema: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] }
    };
    const told = answer => ({ content: [{ type: 'text', text: `${answer.action}: ${answer.content?.name}` }] });
    server.registerTool('ask', { description: 'Asks for a name, in the stream of the call.' }, async ({ sendRequest }) =>
        told(await sendRequest({ method: 'elicitation/create', params: question }, ElicitResultSchema))
    );
    server.registerTool('ask_apart', { description: 'Asks for a name, in the stream of the session.' }, async () =>
        told(await server.server.elicitInput(question))
    );
    return server;
};

app.use(express.json());
app.post('/mcp', async (request, response) => {
    const id = request.headers['mcp-session-id'];
    let transport = transports[id];
    if (!id && isInitializeRequest(request.body)) {
        transport = new StreamableHTTPServerTransport({
            sessionIdGenerator: randomUUID,
            onsessioninitialized: sessionId => {
                opened += 1;
                transports[sessionId] = transport;
            }
        });
        transport.onclose = () => delete transports[transport.sessionId];
        await makeServer().connect(transport);
    }
    if (!transport) {
        const error = { code: -32000, message: 'Bad Request: No valid session ID provided' };
        response.status(400).json({ jsonrpc: '2.0', error, id: null });
        return;
    }
    await transport.handleRequest(request, response, request.body);
});

const inSession = async (request, response) => {
    const transport = transports[request.headers['mcp-session-id']];
    if (transport) await transport.handleRequest(request, response);
    else response.status(400).send('Invalid or missing session ID');
};
app.get('/mcp', inSession);
app.delete('/mcp', inSession);

app.post('/stateless', async (request, response) => {
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
    const server = makeServer();
    response.on('close', () => {
        transport.close();
        server.close();
    });
    await server.connect(transport);
    await transport.handleRequest(request, response, request.body);
});

app.get('/counters', (_, response) => response.json({ opened, open: Object.keys(transports).length }));
app.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('listening'));
