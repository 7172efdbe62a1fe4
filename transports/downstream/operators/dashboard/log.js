// The newest lines of the gateway's log, all or those of one request, as `mcp-gateway logs -f` shows them.
'use strict';

const LOG_URL = '/metrics/dashboard/log';
const URGENCIES = { warning: 'warn', error: 'bad', critical: 'bad' };

const tailing = { isPaused: false, isFetching: false, shown: '' };

async function refreshLog() {
    if (tailing.isPaused || tailing.isFetching || !mayAct() || document.hidden) return;
    tailing.isFetching = true;
    const asked = new URLSearchParams({ request: $('log-request').value.trim(), level: $('log-least').value });
    try {
        const answer = await fetch(`${LOG_URL}?${asked}`, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
        const text = await answer.text();
        if (answer.ok && text !== tailing.shown) {
            tailing.shown = text;
            showLog(JSON.parse(text));
        }
    } catch { /* the state is asked for as often, and says that the gateway is away */ } finally {
        tailing.isFetching = false;
    }
}

function showLog({ lines, problem }) {
    $('log').replaceChildren(...lines.reverse().map(line => {
        const fields = make('span', 'fields', line.fields.map(([name, value]) => `${name} ${value}`).join(' · '));
        const text = make('td', '', line.text, ' ', fields, line.error ? make('pre', '', line.error) : null);
        const level = make('span', `mark mark-${URGENCIES[line.level] || 'idle'}`, line.level || '–');
        return make('tr', '', make('td', '', line.time ? clock(line.time) : ''), make('td', '', level), make('td', 'mono', line.actor.split('.').pop()), text);
    }));
    $('no-log').hidden = lines.length > 0;
    setText($('no-log'), problem ? `${problem[0].toUpperCase()}${problem.slice(1)}.`
        : $('log-request').value || $('log-least').value !== 'debug' ? 'No line matches.' : 'Nothing is in the log yet.');
}

// What the log has of one call.
function showLogOf(id) {
    $('log-request').value = id;
    refreshLog();
}

for (const id of ['log-request', 'log-least']) $(id).addEventListener('input', refreshLog);
$('log-form').addEventListener('submit', event => event.preventDefault());
$('log-pause').addEventListener('click', () => {
    tailing.isPaused = !tailing.isPaused;
    $('log-pause').setAttribute('aria-pressed', String(tailing.isPaused));
    refreshLog();
});
