// What of each server's tools is served, and as what: hidden, renamed, edited, changed, waiting for approval.
'use strict';

const STATES = { waiting: 'bad', changed: 'warn', hidden: 'idle', renamed: 'ok', edited: 'ok' };
const STATE_WORDS = { waiting: 'waits for approval' };

function showCuration(state) {
    const tables = state.curation || [];
    $('curation-section').hidden = tables.length === 0;
    const rules = tables.filter(table => Object.keys(table.rules).length || table.left_out);
    keep($('curation-rules'), rules, table => table.backend, table => make('li', ''), (item, table) => {
        const words = Object.entries(table.rules).map(([name, value]) => `${name} ${value}`);
        if (table.left_out) words.push(`${table.left_out} more tools than are shown here`);
        setText(item, `${table.backend}: ${words.join('; ')}`);
    });
    const rows = tables.flatMap(table => table.tools.map(tool => ({ ...tool, backend: table.backend })));
    keep($('curation'), rows, row => JSON.stringify(row), row => {
        const head = make('th', 'mono', row.tool);
        head.scope = 'row';
        const status = make('span', `mark mark-${STATES[row.state] || 'idle'}`, STATE_WORDS[row.state] || row.state);
        const name = `${row.backend}/${row.tool}`;
        const isOpen = row.state === 'waiting' || row.state === 'changed';
        const approve = isOpen ? actionButton('Approve…', `Approve ${name}`, () => askToAct(`Approve ${name}`, [{
            label: name, button: 'Approve', isHarsh: true,
            text: `What ${name} says of itself now is taken as approved (${row.why}), and is served. Look at it first: a server that changes its tools can mean harm.`,
            body: { command: 'approve', backend: row.backend, tool: row.tool },
        }])) : null;
        return make('tr', '', head, make('td', '', row.backend), make('td', '', status), make('td', 'mono', row.served_as || 'not served'),
            make('td', 'muted', row.why), make('td', 'number', approve));
    }, () => {});
    $('curation-table').hidden = rows.length === 0;
}
