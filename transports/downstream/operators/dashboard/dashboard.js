// The page: a snapshot from /metrics/dashboard/state every two seconds, and the gateway's own event stream in between.
'use strict';

const STATE_URL = '/metrics/dashboard/state';
const STREAM_URL = '/mcp/sse/events/all';
const REFRESH_MS = 2000;
const HIDDEN_REFRESH_MS = 15000;
const PATIENCE_MS = 5000; // a state that takes longer than this is no answer
const SPANS_S = [60, 300, 900]; // of the timeline: the shortest that shows the whole life of the gateway, the last one at most
const MOST_EVENTS = 300;
const MOST_SIGNALS = 200;
const SIGNALS_LISTED = 6;

const CLASSES = {
    viable: 'ok', strained: 'warn', failing: 'bad',
    healthy: 'ok', degraded: 'warn', unhealthy: 'bad',
    closed: 'ok', half_open: 'warn', open: 'bad',
    pain: 'bad', pleasure: 'ok', emergency: 'bad',
};
const WORDS = { pleasure: 'relief', half_open: 'half open' };

const view = {
    events: new Map(), // {id: event}, ids ascending, at most MOST_EVENTS
    signals: new Map(), // {id: signal}, the same
    lastId: 0,
    lostAt: null,
    isPaused: false,
    state: null,
    timer: 0,
    isFetching: false,
};

const $ = id => document.getElementById(id);

// ---- making and updating elements

function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children.filter(child => child !== null));
    return element;
}

function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
}

function setMark(element, status) {
    element.className = `mark mark-${CLASSES[status] || 'idle'}`;
    setText(element, WORDS[status] || status);
}

const mark = status => {
    const element = make('span', '');
    setMark(element, status);
    return element;
};

// Keeps one child per item, in order: what stays is updated in place, so that focus and scrolling survive.
function keep(parent, items, keyOf, create, update) {
    const known = new Map([...parent.children].map(child => [child.dataset.key, child]));
    let place = parent.firstElementChild;
    for (const item of items) {
        const key = String(keyOf(item));
        let child = known.get(key);
        known.delete(key);
        if (child === undefined) {
            child = create(item);
            child.dataset.key = key;
        }
        if (child !== place) parent.insertBefore(child, place);
        else place = place.nextElementSibling;
        update(child, item);
    }
    for (const child of known.values()) child.remove();
}

// A row of cells in which each part with a name can be updated.
function parts(element, entries) {
    element.parts = {};
    for (const [name, part] of Object.entries(entries)) {
        element.parts[name] = part;
        element.append(part);
    }
    return element;
}

// ---- words for numbers

const seconds = value => (value === null || value === undefined ? '–' : value < 0.001 ? `${(value * 1e6).toFixed(0)} µs`
    : value < 1 ? `${(value * 1000).toFixed(value < 0.01 ? 1 : 0)} ms` : `${value.toFixed(value < 10 ? 1 : 0)} s`);
const percent = value => `${(value * 100).toFixed(value > 0 && value < 0.1 ? 1 : 0)}\u00a0%`;
const rate = value => (value >= 1000 ? `${(value / 1000).toFixed(1)} k/s` : `${value.toFixed(value < 10 ? 1 : 0)}/s`);
const clock = at => new Date(at).toLocaleTimeString([], { hour12: false });

function duration(value) {
    if (value < 60) return `${Math.floor(value)} s`;
    if (value < 3600) return `${Math.floor(value / 60)} min`;
    if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
    return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

// ---- viability

const VERDICTS = { viable: 'Viable', strained: 'Strained', failing: 'Failing' };
const VERDICT_TEXTS = {
    viable: 'The gateway does what it is for.',
    strained: 'It serves, and something in it hurts.',
    failing: 'Clients feel this.',
};

function showViability(viability, now) {
    if (!viability || !viability.status) return;
    const kind = CLASSES[viability.status];
    $('verdict').className = `word word-${kind}`;
    setText($('verdict'), VERDICTS[viability.status]);
    setText($('verdict-text'), VERDICT_TEXTS[viability.status]);
    $('pain-meter').setAttribute('aria-valuenow', viability.pain.toFixed(2));
    $('pain-meter').setAttribute('aria-valuetext', `${viability.pain.toFixed(2)}, ${viability.status}`);
    $('pain-bar').style.width = `${viability.pain * 100}%`;
    $('pain-bar').className = `bar-${kind}`;
    setText($('pain-number'), viability.pain.toFixed(2));
    $('no-aches').hidden = viability.aches.length > 0;
    keep($('aches'), viability.aches, ache => ache.source, () => {
        const bar = make('span', '');
        const item = make('li', '', make('span', 'level', bar));
        item.bar = bar;
        const [source, reason] = [make('span', 'source'), make('span', 'reason')];
        item.append(make('div', '', source, reason));
        parts(item, { since: make('span', 'since') });
        Object.assign(item.parts, { source, reason });
        return item;
    }, (item, ache) => {
        item.bar.style.width = `${Math.max(4, ache.felt * 100)}%`;
        setText(item.parts.source, ache.is_emergency ? `${ache.source} (emergency)` : ache.source);
        setText(item.parts.reason, ache.reason);
        setText(item.parts.since, `for ${duration(Math.max(0, (now - ache.since) / 1000))}`);
    });
    keep($('systems'), viability.systems, system => system.key, system => {
        const symbol = make('span', 'symbol', system.key);
        const title = make('h3', '', symbol, system.name);
        const article = make('article', 'system');
        const status = make('span', 'mark');
        const chart = document.createElementNS(SVG, 'svg');
        chart.setAttribute('aria-hidden', 'true');
        const text = make('span', '');
        const facts = make('dl', '');
        const ache = make('p', 'ache');
        article.append(make('header', '', title, status), make('p', 'task', system.task), make('div', 'variety', chart, text), facts, ache);
        article.parts = { status, chart, text, facts, ache };
        return article;
    }, (article, system) => {
        const { status, chart, text, facts, ache } = article.parts;
        setMark(status, system.status);
        const isQuiet = system.variety_in_per_s === 0;
        drawVariety(chart, isQuiet ? null : 1 - system.attenuation);
        setText(text, isQuiet ? 'no variety now'
            : `${rate(system.variety_in_per_s)} in, ${rate(system.variety_out_per_s)} out: ${percent(system.attenuation)} absorbed`);
        keep(facts, Object.entries(system.facts).flatMap(([name, value]) => [['dt', name, name], ['dd', name, value]]),
            ([tag, name]) => `${tag}-${name}`, ([tag]) => make(tag, ''), (element, [, , value]) => setText(element, value));
        setText(ache, system.ache);
        ache.className = system.status === 'viable' ? 'ache' : 'ache ache-felt';
        ache.hidden = !system.ache;
    });
}

// ---- the algedonic timeline

function showTimeline(now) {
    const signals = [...view.signals.values()];
    const up = (view.state && view.state.node.uptime_seconds) || 0;
    const span = SPANS_S.find(each => up <= each) || SPANS_S[SPANS_S.length - 1];
    drawTimeline($('timeline'), signals, now, span * 1000);
    [...$('axis').children].slice(0, 3).forEach((label, index) => setText(label, `${duration(span * (1 - index / 3))}${index ? '' : ' ago'}`));
    const recent = signals.filter(signal => now - signal.at <= span * 1000);
    const count = kind => recent.filter(signal => signal.kind === kind).length;
    const period = `the last ${duration(span)}`;
    $('timeline').setAttribute('aria-label', recent.length === 0 ? `No signals in ${period}`
        : `In ${period}: ${count('pain')} signals of pain, ${count('pleasure')} of relief, ${count('emergency')} emergencies`);
    keep($('signals'), signals.slice(-SIGNALS_LISTED).reverse(), signal => signal.id, signal => {
        const time = make('time', 'muted', clock(signal.at));
        time.dateTime = new Date(signal.at).toISOString();
        return make('li', '', time, make('span', 'kind', mark(signal.kind)), make('span', 'source', signal.source),
            make('span', 'reason', signal.reason), make('span', 'number muted', signal.intensity.toFixed(2)));
    }, () => {});
}

function takeSignal(signal) {
    if (view.signals.has(signal.id)) return;
    view.signals.set(signal.id, signal);
    trim(view.signals, MOST_SIGNALS);
}

// Late ones (the snapshot knows what the stream has not brought) are put in order.
function trim(map, most) {
    const ids = [...map.keys()];
    if (ids.length > 1 && ids[ids.length - 1] < ids[ids.length - 2]) {
        const entries = [...map.entries()].sort(([one], [other]) => one - other);
        map.clear();
        for (const [id, value] of entries) map.set(id, value);
    }
    for (const id of map.keys()) {
        if (map.size <= most) break;
        map.delete(id);
    }
}

// ---- backends

const SPARKS = [
    { key: 'requests_per_s', label: 'requests', top: 1, show: now => rate(now.requests_per_s) },
    { key: 'p95_s', label: 'p95 latency', top: 0.001, show: now => seconds(now.p95_s) },
    { key: 'fault_share', label: 'faults', top: 0.05, show: now => percent(now.fault_share), isBad: true },
    { key: 'pool_use', label: 'pool in use', top: 1, show: now => percent(now.pool_use) },
];

function makeBackend(backend) {
    const article = make('article', 'backend panel');
    const protocol = make('p', 'muted');
    const act = actionButton('Drain…', `Drain or undrain ${backend.title || backend.name}`,
        () => askToAct(`Drain or undrain ${backend.title || backend.name}`, drainChoices(article.backend)));
    const header = make('header', '', make('div', '', make('h3', '', backend.title || backend.name), protocol, act));
    const sparks = {};
    for (const spark of SPARKS) {
        const chart = document.createElementNS(SVG, 'svg');
        chart.setAttribute('aria-hidden', 'true');
        const value = make('b', '');
        header.append(make('div', spark.isBad ? 'spark spark-bad' : 'spark', make('div', 'label', spark.label, value), chart));
        sparks[spark.key] = { chart, value };
    }
    const body = make('tbody', '');
    const heads = ['Replica', 'Health', 'Circuit', 'Share of the ring', 'Leased', 'Idle', 'Waiting'].map((text, index) => {
        const head = make('th', index > 3 ? 'number' : '', text);
        head.scope = 'col';
        return head;
    });
    const failure = make('p', 'failure');
    article.append(header, make('table', '', make('thead', '', make('tr', '', ...heads)), body), failure);
    article.parts = { protocol, sparks, body, act, failure };
    return article;
}

// failure: of the last call that its server did not answer. reasons: {replica: why it is not well}.
function updateBackend(article, backend, measured, failure, reasons) {
    const { protocol, sparks, body, act } = article.parts;
    article.backend = backend;
    act.hidden = !mayAct();
    article.parts.failure.hidden = !failure;
    if (failure) {
        setText(article.parts.failure, `Last error, ${clock(failure.at)}: ${nameOf(failure.target)}: ${failure.text || failure.outcome.replaceAll('_', ' ')} (${failure.id})`);
    }
    const drift = measured && measured.drift >= 1.5 ? `, ${measured.drift.toFixed(1)} times its usual latency` : '';
    const name = backend.title && backend.title !== backend.name ? `${backend.name}, ` : '';
    setText(protocol, `${name}${backend.protocol === 'auto' ? 'revision auto' : backend.protocol}${drift}${backend.draining ? ', draining' : ''}`);
    for (const spark of SPARKS) {
        setText(sparks[spark.key].value, measured ? spark.show(measured) : '–');
        if (measured) drawSparkline(sparks[spark.key].chart, measured.series[spark.key], spark.top);
    }
    keep(body, backend.replicas, replica => replica.address, replica => {
        const reason = make('span', 'reason');
        const head = make('th', 'address', replica.address, reason);
        head.scope = 'row';
        const cells = ['Health', 'Circuit', 'Ring', 'Leased', 'Idle', 'Waiting'].map((label, index) => {
            const cell = make('td', index > 2 ? 'number' : '');
            cell.dataset.label = label;
            return cell;
        });
        const [health, circuit, bar, share] = [make('span', 'mark'), make('span', 'mark'), make('span', ''), make('span', '')];
        cells[0].append(health);
        cells[1].append(circuit);
        cells[2].append(make('span', 'share', bar), share);
        const row = make('tr', '', head, ...cells);
        row.parts = { health, circuit, bar, share, reason, counts: cells.slice(3) };
        return row;
    }, (row, replica) => {
        setMark(row.parts.health, replica.health);
        setMark(row.parts.circuit, replica.circuit);
        const why = [(backend.draining_replicas || []).includes(replica.address) ? 'draining' : '', reasons[`${backend.name}/${replica.address}`]];
        setText(row.parts.reason, why.filter(Boolean).join(', '));
        row.parts.bar.style.width = `${(replica.ring_share || 0) * 100}%`;
        setText(row.parts.share, percent(replica.ring_share || 0));
        ['leased', 'idle', 'waiting'].forEach((state, index) => setText(row.parts.counts[index], String((replica.pool || {})[state] ?? '–')));
    });
}

// ---- tables

function showRows(parent, rows) {
    keep(parent, rows, row => row.key, row => {
        const head = make('th', row.isMono ? 'mono' : '');
        head.scope = 'row';
        const cell = make('td', 'number');
        const element = make('tr', '', head, cell);
        element.parts = { head, cell };
        return element;
    }, (element, row) => {
        setText(element.parts.head, row.reason ? `${row.name}: ${row.reason}` : row.name);
        if (row.status) {
            if (!element.parts.mark) element.parts.cell.append((element.parts.mark = make('span', 'mark')));
            setMark(element.parts.mark, row.status);
        } else setText(element.parts.cell, row.value);
    });
}

function flatTree(rows, depth = 0) {
    return rows.flatMap(row => [{ ...row, depth }, ...flatTree(row.children || [], depth + 1)]);
}

function showTree(tree) {
    keep($('tree'), flatTree(tree), row => row.name, row => {
        const head = make('th', 'tree-name', row.name);
        head.scope = 'row';
        head.style.paddingLeft = `${row.depth * 14}px`;
        const cells = [0, 1, 2].map(() => make('td', 'number'));
        const element = make('tr', '', head, ...cells);
        element.parts = cells;
        return element;
    }, (element, row) => {
        const [restarts, up, pid] = element.parts;
        setText(restarts, String(row.restarts ?? 0));
        restarts.className = row.restarts ? 'number restarted' : 'number muted';
        setText(up, duration(row.uptime_seconds || 0));
        setText(pid, row.pid === null ? '–' : String(row.pid));
    });
}

function showCounts(id, counts, nothing) {
    const rows = Object.entries(counts || {}).sort().map(([name, value]) => ({ key: name, name, value: String(value), isMono: true }));
    showRows($(id), rows.length ? rows : [{ key: '', name: nothing, value: '' }]);
}

// ---- events

function takeEvent(id, event) {
    if (view.events.has(id)) return;
    view.events.set(id, { id, topic: event.event_type, payload: event.payload, at: event.timestamp });
    trim(view.events, MOST_EVENTS);
    if (id > view.lastId) view.lastId = id;
    if (event.event_type.startsWith('vsm.algedonic.')) {
        takeSignal({ id, at: event.timestamp, kind: event.event_type.split('.')[2], ...event.payload });
    }
}

const summary = payload => Object.entries(payload || {})
    .filter(([name, value]) => value !== '' && value !== null && name !== 'since')
    .map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(' · ')
    .slice(0, 400);

function showEvents() {
    if (view.isPaused) return;
    const wanted = $('filter').value.trim().toLowerCase();
    const all = [...view.events.values()].reverse();
    const shown = wanted ? all.filter(event => `${event.topic} ${summary(event.payload)}`.toLowerCase().includes(wanted)) : all;
    keep($('events'), shown, event => event.id, event => {
        const time = make('td', '', clock(event.at));
        return make('tr', event.isGap ? 'gap' : '', time, make('td', '', event.topic), make('td', '', summary(event.payload)));
    }, () => {});
    $('no-events').hidden = shown.length > 0;
    setText($('no-events'), all.length ? 'No event matches the filter.' : 'No events yet.');
    setText($('shown'), wanted ? `${shown.length} of ${all.length}` : `${all.length}`);
}

function takeGap(text) {
    let gap = {};
    try {
        gap = JSON.parse(text);
    } catch { /* the stream says that something is missing; which ids does not matter here */ }
    const id = view.lastId + 0.5;
    view.events.set(id, { id, topic: 'gap', payload: gap, at: Date.now(), isGap: true });
    trim(view.events, MOST_EVENTS);
}

// ---- the gateway, lost and found

function setLost(isLost) {
    if (isLost && view.lostAt === null) {
        view.lostAt = Date.now();
        document.body.classList.add('is-lost');
        $('link').className = 'mark mark-bad';
        setText($('link'), 'lost');
        $('lost').hidden = false;
        setText($('lost'), `The gateway has not answered since ${clock(view.lostAt)}. What you see is its last state; this page keeps trying.`);
    } else if (!isLost && (view.lostAt !== null || view.state === null)) {
        const away = view.lostAt === null ? 0 : Math.max(1, Math.round((Date.now() - view.lostAt) / 1000));
        view.lostAt = null;
        document.body.classList.remove('is-lost');
        $('link').className = 'mark mark-ok';
        setText($('link'), away ? `live again after ${away} s` : 'live');
        $('lost').hidden = true;
        openStream();
    }
}

let stream = null;

// The browser comes back by itself after an interruption, with the last id it saw; a refusal ends its trying, and then this does it.
function openStream() {
    if (stream !== null && stream.readyState !== EventSource.CLOSED) return;
    if (stream !== null) stream.close();
    stream = new EventSource(STREAM_URL);
    stream.addEventListener('vsm_event', event => {
        try {
            takeEvent(Number(event.lastEventId), JSON.parse(event.data));
        } catch {
            return;
        }
        schedule(150);
    });
    stream.addEventListener('gap', event => takeGap(event.data));
}

async function refresh() {
    if (view.isFetching) return;
    view.isFetching = true;
    clearTimeout(view.timer);
    try {
        const answer = await fetch(STATE_URL, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
        if (answer.status === 401) location.reload(); // the login is over: the page leads to the next one
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        const state = await answer.json();
        setLost(false);
        view.state = state;
        show(state);
    } catch {
        setLost(true);
    } finally {
        view.isFetching = false;
        view.timer = setTimeout(refresh, document.hidden ? HIDDEN_REFRESH_MS : REFRESH_MS);
    }
}

// Ask again soon, because something has happened; many events ask once.
let soon = 0;
function schedule(delay) {
    if (soon) return;
    soon = setTimeout(() => {
        soon = 0;
        showEvents();
        showTimeline(Date.now());
        if (!document.hidden) refresh();
    }, delay);
}

function show(state) {
    const now = state.at;
    const node = state.node || {};
    setText($('facts'), `${node.version || ''}, up ${duration(node.uptime_seconds || 0)}, answered by ${state.cell}`);
    for (const event of state.events || []) takeEvent(event.id, event);
    for (const signal of state.viability.timeline || []) takeSignal(signal);
    showViability(state.viability, now);
    showTimeline(now);
    const reasons = Object.fromEntries(Object.entries(state.health.components || {}).map(([name, health]) => [name, health.reason]));
    keep($('backends'), node.backends || [], backend => backend.name, makeBackend,
        (article, backend) => updateBackend(article, backend, (state.viability.backends || {})[backend.name],
            (state.failures || {})[backend.name], reasons));
    showCuration(state);
    showActions(state);
    showTree(node.tree || []);
    showCounts('connections', node.connections, 'none');
    showCounts('sessions', state.viability.sessions, 'none');
    showRows($('health'), Object.entries(state.health.components || {}).map(([name, health]) => (
        { key: name, name, status: health.status, reason: health.reason, isMono: true })));
    takeCalls(state);
    showEvents();
    refreshLog();
}

// ---- start

$('filter').addEventListener('input', showEvents);
$('filter-form').addEventListener('submit', event => event.preventDefault());
$('pause').addEventListener('click', () => {
    view.isPaused = !view.isPaused;
    $('pause').setAttribute('aria-pressed', String(view.isPaused));
    showEvents();
});
document.addEventListener('visibilitychange', () => {
    if (!document.hidden) refresh();
});
window.addEventListener('resize', () => showTimeline(view.state ? view.state.at : Date.now()));
refresh();
