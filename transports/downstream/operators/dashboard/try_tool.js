// Try a tool: a form made from its input schema, and the call as any client would make it, at the gateway's own endpoint.
'use strict';

const MCP_URL = '/mcp';
const REVISION = '2026-07-28';
const MOST_PAGES = 1000; // of a list that never ends
const NUMERIC = ['number', 'integer'];

const trying = {
    tools: new Map(), // {name: tool}
    token: '', // kept in this page alone
    lastId: 0,
    abort: null,
};

// ---- the protocol

class Refused extends Error {
    constructor(error, status) {
        super(error.message || `status ${status}`);
        this.status = status;
        this.reason = (error.data && error.data.reason) || '';
    }
}

async function askGateway(method, params, headers, onProgress, signal) {
    const id = ++trying.lastId;
    const meta = {
        'io.modelcontextprotocol/protocolVersion': REVISION,
        'io.modelcontextprotocol/clientInfo': { name: 'mcp-gateway-dashboard', version: '1' },
        'io.modelcontextprotocol/clientCapabilities': {},
        ...(onProgress ? { progressToken: id } : {}),
    };
    const answer = await fetch(MCP_URL, {
        method: 'POST',
        cache: 'no-store',
        signal,
        headers: {
            'Content-Type': 'application/json',
            Accept: 'application/json, text/event-stream',
            'MCP-Protocol-Version': REVISION,
            'Mcp-Method': method,
            ...headers,
            ...(trying.token ? { Authorization: `Bearer ${trying.token}` } : {}),
        },
        body: JSON.stringify({ jsonrpc: '2.0', id, method, params: { ...params, _meta: meta } }),
    });
    for await (const message of messagesOf(answer)) {
        if (message.method === 'notifications/progress' && onProgress) onProgress(message.params);
        if (message.id !== id) continue;
        if (message.error) throw new Refused(message.error, answer.status);
        return message.result;
    }
    throw new Refused({}, answer.status);
}

// The messages of an answer: one of JSON, or those of an event stream as they come.
async function* messagesOf(answer) {
    if (!(answer.headers.get('Content-Type') || '').startsWith('text/event-stream')) {
        const text = await answer.text();
        try {
            yield JSON.parse(text);
        } catch { /* whoever answered is not the gateway: the status says what can be said */ }
        return;
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = '';
    for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const events = (waiting + value.replaceAll('\r', '')).split('\n\n');
        waiting = events.pop();
        for (const event of events) {
            const data = event.split('\n').filter(line => line.startsWith('data:')).map(line => line.slice(5).trimStart()).join('\n');
            if (data) yield JSON.parse(data);
        }
    }
}

// A header takes visible ASCII; anything else goes as base64 (2026-07-28, Streamable HTTP, "Encoding of header values").
function headerText(value) {
    const text = String(value);
    if (/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !text.startsWith('=?base64?')) return text;
    return `=?base64?${btoa(String.fromCharCode(...new TextEncoder().encode(text)))}?=`;
}

function headersOfCall(tool, given) {
    const headers = { 'Mcp-Name': headerText(tool.name) };
    for (const [name, schema] of Object.entries((tool.inputSchema && tool.inputSchema.properties) || {})) {
        const header = schema && schema['x-mcp-header'];
        if (header && given[name] !== undefined && given[name] !== null) headers[`Mcp-Param-${header}`] = headerText(given[name]);
    }
    return headers;
}

// ---- the list

async function loadTools() {
    const tools = new Map();
    let cursor;
    for (let page = 0; page < MOST_PAGES; page += 1) {
        const result = await askGateway('tools/list', cursor === undefined ? {} : { cursor }, {});
        for (const tool of result.tools) tools.set(tool.name, tool);
        cursor = result.nextCursor;
        if (cursor === undefined || cursor === null) break;
    }
    trying.tools = tools;
    const before = $('tool').value;
    $('tool').replaceChildren(...[...tools.keys()].map(name => new Option(name, name)));
    if (tools.has(before)) $('tool').value = before;
    $('tool-form').hidden = tools.size === 0;
    say(tools.size === 0 ? 'There is no tool that you may use.' : `${tools.size} tools`);
    showForm();
}

// ---- the form

const typeOf = schema => {
    const types = [].concat((schema && schema.type) || []).filter(type => type !== 'null');
    return types.length === 1 ? types[0] : 'any';
};

function fieldOf(name, schema, isRequired) {
    const type = typeOf(schema);
    let input;
    if (schema && Array.isArray(schema.enum)) {
        input = make('select', '', new Option('', ''), ...schema.enum.map(value => new Option(String(value), JSON.stringify(value))));
        input.read = () => JSON.parse(input.value);
    } else if (type === 'boolean') {
        input = make('select', '', new Option('', ''), new Option('yes', 'true'), new Option('no', 'false'));
        input.read = () => input.value === 'true';
    } else if (NUMERIC.includes(type)) {
        input = make('input', '');
        input.type = 'number';
        input.step = type === 'integer' ? '1' : 'any';
        input.read = () => Number(input.value);
    } else if (type === 'string') {
        input = make(schema.format === 'textarea' || (schema.maxLength || 0) > 200 ? 'textarea' : 'input', '');
        input.read = () => input.value;
    } else {
        input = make('textarea', 'mono');
        input.placeholder = 'JSON';
        input.read = () => JSON.parse(input.value);
    }
    input.id = `argument-${name}`;
    input.name = name;
    input.required = isRequired;
    input.autocomplete = 'off';
    const label = make('label', '', name, isRequired ? '' : make('span', 'muted', ' optional'));
    label.htmlFor = input.id;
    const hint = make('p', 'muted hint', (schema && schema.description) || '');
    hint.id = `hint-${name}`;
    if (hint.textContent) input.setAttribute('aria-describedby', hint.id);
    return make('div', 'field', label, input, hint.textContent ? hint : null);
}

function showForm() {
    const tool = trying.tools.get($('tool').value);
    if (!tool) return;
    const schema = tool.inputSchema || {};
    setText($('tool-description'), tool.description || tool.title || '');
    $('tool-destructive').hidden = !(tool.annotations && tool.annotations.readOnlyHint === false && tool.annotations.destructiveHint !== false);
    $('tool-fields').replaceChildren(...Object.entries(schema.properties || {})
        .map(([name, each]) => fieldOf(name, each, (schema.required || []).includes(name))));
    showAnswer(null);
}

function argumentsGiven() {
    const given = {};
    for (const input of $('tool-fields').querySelectorAll('input, select, textarea')) {
        input.setCustomValidity('');
        if (input.value === '') continue;
        try {
            given[input.name] = input.read();
        } catch {
            input.setCustomValidity('This is not JSON.');
            input.reportValidity();
            return null;
        }
    }
    return given;
}

// ---- the answer

const say = text => setText($('tool-said'), text);

function showAnswer(result, isError = false) {
    $('tool-answer').hidden = result === null;
    $('tool-answer').className = isError ? 'answer answer-bad' : 'answer';
    $('tool-answer').textContent = result === null ? '' : result;
}

function wordsOf(result) {
    const words = (result.content || []).map(part => (part.type === 'text' ? part.text : JSON.stringify(part, null, 2)));
    if (result.structuredContent !== undefined) words.push(JSON.stringify(result.structuredContent, null, 2));
    return words.join('\n\n');
}

function showRefusal(error) {
    const isUnknown = error instanceof Refused && error.status === 401;
    $('token-field').hidden = !isUnknown && !trying.token;
    if (isUnknown) $('token').focus();
    say(error.name === 'AbortError' ? 'Cancelled.' : isUnknown ? 'The gateway asks who you are.'
        : error instanceof Refused ? `Refused${error.reason ? `: ${error.reason}` : ''}` : 'The gateway does not answer.');
    showAnswer(error.name === 'AbortError' || isUnknown ? null : error.message, true);
}

async function callTool() {
    const tool = trying.tools.get($('tool').value);
    const given = tool && argumentsGiven();
    if (!given) return;
    trying.abort = new AbortController();
    $('call').disabled = true;
    $('cancel').hidden = false;
    say('Calling.');
    showAnswer(null);
    const begun = performance.now();
    const onProgress = ({ progress, total, message }) => say(`${message ? `${message}: ` : ''}${progress}${total ? ` of ${total}` : ''}`);
    try {
        const result = await askGateway('tools/call', { name: tool.name, arguments: given }, headersOfCall(tool, given), onProgress, trying.abort.signal);
        const took = seconds((performance.now() - begun) / 1000);
        if (result.resultType === 'input_required') {
            say('The tool asks something back, which this page cannot answer: mcp-gateway call does.');
            showAnswer(JSON.stringify(result.inputRequests, null, 2));
        } else {
            say(result.isError ? `The tool says that it failed, after ${took}.` : `Answered in ${took}.`);
            showAnswer(wordsOf(result), result.isError);
        }
    } catch (error) {
        showRefusal(error);
    } finally {
        trying.abort = null;
        $('call').disabled = false;
        $('cancel').hidden = true;
    }
}

// ---- start

$('load-tools').addEventListener('click', () => {
    say('Asking for the list.');
    loadTools().catch(showRefusal);
});
$('token-field').addEventListener('submit', event => {
    event.preventDefault();
    trying.token = $('token').value.trim();
    loadTools().then(() => {
        $('token-field').hidden = true;
        $('tool').focus();
    }).catch(showRefusal);
});
$('tool').addEventListener('change', showForm);
$('tool-form').addEventListener('submit', event => {
    event.preventDefault();
    callTool();
});
$('cancel').addEventListener('click', () => trying.abort && trying.abort.abort());
