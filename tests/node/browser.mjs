// Drives Chromium for a test: one JSON command per line on standard input, one JSON answer per line on standard output.
// Usage: node browser.mjs CHROMIUM. See browser.py for the commands.
import { createInterface } from 'node:readline';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const browser = await chromium.launch({ executablePath: process.argv[2], args: ['--no-sandbox', '--disable-dev-shm-usage'] });
let page;
let protocol;
let problems = [];
let requested = [];
let answered = [];
let urls = new Map();
let statuses = new Map();

const commands = {
    async open({ url, width = 1280, height = 900, scheme = 'light' }) {
        if (page) await page.context().close();
        const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, bypassCSP: false });
        page = await context.newPage();
        problems = [];
        requested = [];
        answered = [];
        page.on('console', message => ['error', 'warning'].includes(message.type()) && problems.push(message.text()));
        page.on('pageerror', error => problems.push(String(error)));
        page.on('request', request => requested.push(request.url()));
        page.on('response', response => answered.push([response.url(), response.status()]));  // of frames, too
        protocol = await context.newCDPSession(page);
        urls = new Map();
        statuses = new Map();
        // Also what the browser keeps from the page, such as an image that is none. Either of the two may be told of first.
        protocol.on('Network.requestWillBeSent', ({ requestId, request }) => urls.set(requestId, request.url));
        protocol.on('Network.responseReceivedExtraInfo', ({ requestId, statusCode }) => statuses.set(requestId, statusCode));
        await protocol.send('Network.enable');
        await page.goto(url, { waitUntil: 'domcontentloaded' });
    },
    // Waits until these elements show these texts, all at the same moment.
    async wait_texts({ shown, timeout = 20000 }) {
        await page.waitForFunction(
            pairs =>
                pairs.every(([where, wanted]) =>
                    [...document.querySelectorAll(where)].some(each => !each.hidden && each.innerText.includes(wanted))
                ),
            shown,
            { timeout }
        );
    },
    text: ({ selector }) => page.innerText(selector),
    fill: ({ selector, value }) => page.fill(selector, value),
    click: ({ selector }) => page.click(selector),
    press: ({ key }) => page.keyboard.press(key),
    evaluate: ({ script }) => page.evaluate(script),
    screenshot: ({ path, full = true }) => page.screenshot({ path, fullPage: full }).then(() => null),
    // What axe-core finds wrong: [{id, impact, nodes}].
    async axe() {
        const isolated = await protocol.send('Page.createIsolatedWorld', { frameId: (await protocol.send('Page.getFrameTree')).frameTree.frame.id });
        const run = `${axeSource}; axe.run(document, { resultTypes: ['violations'] }).then(found => JSON.stringify(found.violations.map(each =>
            ({ id: each.id, impact: each.impact, nodes: each.nodes.map(node => node.target.join(' ') + ': ' + node.failureSummary) }))))`;
        const done = await protocol.send('Runtime.evaluate', { expression: run, contextId: isolated.executionContextId, awaitPromise: true, returnByValue: true });
        if (done.exceptionDetails) throw new Error(JSON.stringify(done.exceptionDetails));
        return JSON.parse(done.result.value);
    },
    async heap() {
        await protocol.send('HeapProfiler.collectGarbage');
        return (await protocol.send('Runtime.getHeapUsage')).usedSize;
    },
    problems: async () => problems,
    requested: async () => requested,
    answered: async () => [...answered, ...[...statuses].map(([id, status]) => [urls.get(id), status])],
};

for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...options } = JSON.parse(line);
    let answer;
    try {
        answer = { value: (await commands[name](options)) ?? null };
    } catch (error) {
        answer = { error: `${name}: ${error.message}` };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
