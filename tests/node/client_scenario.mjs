// One walk through an MCP server with the official TypeScript client; prints one JSON line of what it saw.
//
//   node client_scenario.mjs URL [--legacy|--modern|--auto] [--server everything|demo] [--prefix PREFIX]
//
// --legacy opens a session with `initialize` (the default), --modern speaks 2026-07-28 without one, --auto finds out.
// --prefix stands before tool and prompt names, as a gateway with several backends shows them.
// A step that fails shows its error in `errors` and the walk goes on. Exit code: 0 without errors, 1 with some, 2 without a connection.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const STEP_TIMEOUT_MS = 15_000;
const arguments_ = process.argv.slice(2);
const url = arguments_.shift();
const valueOf = (name, otherwise) => (arguments_.includes(name) ? arguments_[arguments_.indexOf(name) + 1] : otherwise);
const mode = arguments_.includes('--modern') ? { pin: '2026-07-28' } : arguments_.includes('--auto') ? 'auto' : 'legacy';
const prefix = valueOf('--prefix', '');
const server = valueOf('--server', 'everything');

const seen = { errors: {}, logs: [], notifications: [] };

async function step(name, action) {
    try {
        seen[name] = await action();
    } catch (error) {
        seen.errors[name] = `${error.code ?? error.name}: ${error.message}`;
    }
}

const client = new Client(
    { name: 'typescript-test-client', version: '1.0.0' },
    { capabilities: { elicitation: {}, sampling: {}, roots: { listChanged: true } }, versionNegotiation: { mode } }
);
client.setRequestHandler('elicitation/create', async request => {
    seen.elicitation_message = request.params.message;
    return { action: 'accept', content: { name: 'Ada' } };
});
client.setRequestHandler('sampling/createMessage', async request => {
    seen.sampling_prompt = request.params.messages[0].content.text;
    return { role: 'assistant', model: 'test-model', content: { type: 'text', text: '42' } };
});
client.setRequestHandler('roots/list', async () => ({ roots: [{ uri: 'file:///root', name: 'root' }] }));
client.setNotificationHandler('notifications/message', async notification => {
    seen.logs.push(notification.params.data);
});
client.setNotificationHandler('notifications/tools/list_changed', async () => {
    seen.notifications.push('tools/list_changed');
});

const options = { timeout: STEP_TIMEOUT_MS };
const call = (name, args = {}, more = {}) => client.callTool({ name: prefix + name, arguments: args, ...more.params }, { ...options, ...more.options });
const text = result => result.content[0].text;

async function everything() {
    await step('echo', async () => text(await call('echo', { message: 'hi' })));
    await step('structured', async () => (await call('add', { a: 1, b: 2 })).structuredContent);
    await step('tool_error', async () => (await call('fail')).isError);
    await step('elicit', async () => text(await call('elicit')));
    await step('sample', async () => text(await call('sample', { prompt: 'What is the answer?' })));
    await step('roots', async () => text(await call('roots')));
    await step('progress', async () => {
        const reports = [];
        await call('progress', { steps: 3 }, { options: { onprogress: report => reports.push(report.progress) } });
        return reports;
    });
    await step('logged', async () => {
        const meta = mode === 'legacy' ? {} : { _meta: { 'io.modelcontextprotocol/logLevel': 'info' } };
        return text(await call('log', { message: 'hello' }, { params: meta }));
    });
    await step('cancelled', async () => {
        const controller = new AbortController();
        setTimeout(() => controller.abort('enough'), 1000);
        try {
            await call('slow', { seconds: 30, tag: 'typescript' }, { options: { signal: controller.signal } });
            return false;
        } catch {
            return true;
        }
    });
    await step('resources', async () => (await client.listResources({}, options)).resources.map(resource => resource.uri).sort());
    await step('templates', async () => (await client.listResourceTemplates({}, options)).resourceTemplates.map(item => item.uriTemplate));
    await step('resource', async () => (await client.readResource({ uri: 'test://item/7' }, options)).contents[0].text);
    await step('prompts', async () => (await client.listPrompts({}, options)).prompts.map(prompt => prompt.name));
    await step('prompt', async () => (await client.getPrompt({ name: `${prefix}greet`, arguments: { name: 'Bo' } }, options)).messages[0].content.text);
    await step('completion', async () => {
        const asked = { ref: { type: 'ref/prompt', name: `${prefix}greet` }, argument: { name: 'name', value: 'A' } };
        return (await client.complete(asked, options)).completion.values;
    });
    await step('unknown_tool', async () => {
        try {
            return (await call('no_such_tool')).isError ? 'tool error' : 'success';
        } catch (error) {
            return error.code;
        }
    });
}

async function demo() {
    await step('echo', async () => text(await call('echo', { message: 'hi' })));
    await step('structured', async () => (await call('echo', { message: 'hi' })).structuredContent);
    await step('time', async () => !Number.isNaN(Date.parse(text(await call('time')))));
    await step('tool_error', async () => (await call('fail')).isError);
    await step('progress', async () => {
        const reports = [];
        await call('slow', { seconds: 0.2, steps: 4 }, { options: { onprogress: report => reports.push(report.progress) } });
        return reports;
    });
    await step('resource', async () => (await client.readResource({ uri: 'demo://echo/hello' }, options)).contents[0].text);
    await step('prompt', async () => (await client.getPrompt({ name: `${prefix}greet`, arguments: { name: 'Bo' } }, options)).messages[0].content.text);
}

const transport = new StreamableHTTPClientTransport(new URL(url));
try {
    await client.connect(transport, options);
} catch (error) {
    console.log(JSON.stringify({ errors: { connect: `${error.code ?? error.name}: ${error.message}` } }));
    process.exit(2);
}
seen.protocol_version = client.getNegotiatedProtocolVersion();
seen.server = client.getServerVersion()?.name;
seen.session = Boolean(transport.sessionId);
await step('tools', async () => (await client.listTools({}, options)).tools.map(tool => tool.name));
await (server === 'demo' ? demo() : everything());
if (transport.sessionId) await step('terminated', async () => (await transport.terminateSession(), true));
await client.close();
console.log(JSON.stringify(seen));
process.exit(Object.keys(seen.errors).length ? 1 : 0);
