// Calls that have ended, to be looked through and one of them followed; and who is here.
'use strict';

const OUTCOMES = { ok: 'ok', error: 'warn', tool_error: 'warn', client_gone: 'idle' }; // all others are refusals
const KINDS = { 'tools/call/': '', 'resources/read/': 'resource ', 'prompts/get/': 'prompt ' };

let calls = [];

function nameOf(target) {
    const [prefix, word] = Object.entries(KINDS).find(([each]) => target.startsWith(each)) || ['', ''];
    return word + target.slice(prefix.length);
}

const whoOf = row => [row.client, row.principal, row.address].filter(Boolean).join(', ') || '–';

function textOf(call) {
    return Object.values(call).join(' ').toLowerCase();
}

function takeCalls(state) {
    calls = state.requests || [];
    showCalls();
    showClients(state);
}

function showCalls() {
    const wanted = $('call-filter').value.trim().toLowerCase();
    const shown = calls.filter(call => !wanted || textOf(call).includes(wanted));
    keep($('calls'), shown, call => call.id, call => {
        const follow = make('button', 'follow mono', call.id);
        follow.type = 'button';
        follow.title = 'Follow this call';
        follow.addEventListener('click', () => followCall(call.id));
        const outcome = make('span', `mark mark-${OUTCOMES[call.outcome] || 'bad'}`, call.outcome.replaceAll('_', ' '));
        const name = make('th', 'mono', nameOf(call.target), call.text ? make('span', 'reason', call.text) : null);
        name.scope = 'row';
        const cells = [clock(call.at), name, call.backend || '–', outcome, seconds(call.duration_s), seconds(call.upstream_s),
            `${whoOf(call)}`, follow];
        return make('tr', '', ...cells.map((cell, index) => (cell === name ? name : make('td', index === 4 || index === 5 ? 'number' : '', cell))));
    }, () => {});
    $('no-calls').hidden = shown.length > 0;
    setText($('no-calls'), calls.length ? 'No call matches the filter.' : 'Nobody has called anything yet.');
    setText($('calls-shown'), wanted ? `${shown.length} of ${calls.length}` : `${calls.length}`);
    const followed = shown.length === 1 && shown[0].id.toLowerCase() === wanted ? shown[0] : null;
    $('followed').hidden = followed === null;
    if (followed) {
        const trace = followed.trace_id ? `, trace ${followed.trace_id}` : '';
        setText($('followed'), `Over ${followed.transport}, revision ${followed.revision}${trace}. What the log has of it is below, and by mcp-gateway logs --request '${followed.id}'`);
    }
}

function followCall(id) {
    $('call-filter').value = $('call-filter').value === id ? '' : id;
    showCalls();
    showLogOf($('call-filter').value);
    $('call-filter').focus();
}

function showClients(state) {
    const clients = state.clients || [];
    keep($('clients'), clients, client => client.session || `${whoOf(client)} ${client.endpoint}`, client => {
        const head = make('th', '');
        head.scope = 'row';
        const cells = [0, 1, 2, 3].map(index => make('td', index === 0 ? '' : 'number'));
        const act = clientChoices(client).length ? actionButton('End…', `End what ${whoOf(client)} has open`,
            () => askToAct(`${whoOf(client)}`, clientChoices(client))) : null;
        const row = make('tr', '', head, ...cells, make('td', 'number', act));
        row.parts = [head, ...cells];
        return row;
    }, (row, client) => {
        const [who, how, streams, open, rest] = row.parts;
        setText(who, whoOf(client));
        setText(how, [client.revision, client.endpoint && `at ${client.endpoint}`, ...client.transports].filter(Boolean).join(', '));
        setText(streams, String(client.streams));
        setText(open, String(client.calls));
        setText(rest, client.idle_seconds === undefined ? '–' : duration(client.idle_seconds));
    });
    $('no-clients').hidden = clients.length > 0;
    setText($('parked'), state.parked ? `${state.parked} calls wait for their clients' answers.` : '');
}

$('call-filter').addEventListener('input', showCalls);
$('call-form').addEventListener('submit', event => event.preventDefault());
