// The npm client of Phoenix, as the gateway's users write it; prints one JSON line for each phase.
//
//   node phoenix_scenario.mjs WS_URL [--cut] [--key KEY]
//
// First line: what it saw of one walk through a channel. With --cut, it then waits until its socket was cut and the channel joined
// again by itself, and prints a second line. With --key, its connection is opened by a ticket for this API key. Node 20 has no WebSocket of its own: npm `ws` stands in.
import { Socket } from 'phoenix';
import WebSocket from 'ws';

const [url, ...options] = process.argv.slice(2);
const seen = { responses: [], events: [], joins: 0, closes: [] };
let lastEventId;

const key = options.includes('--key') ? options[options.indexOf('--key') + 1] : undefined;
async function newTicket() {
    const answer = await fetch(`${url.replace(/^ws/, 'http')}/ticket`, { method: 'POST', headers: { authorization: `Bearer ${key}` } });
    return (await answer.json()).ticket;
}
const ticket = key && (await newTicket());

const socket = new Socket(url, {
    params: { user_id: 'user123', ...(ticket && { ticket }) },
    transport: WebSocket,
    heartbeatIntervalMs: 1000, // also how long it waits for the reply before it cuts the connection itself
    rejoinAfterMs: () => 50,
    reconnectAfterMs: () => 50
});
let beats = 0;
socket.onMessage(({ topic, event }) => {
    if (topic === 'phoenix' && event === 'phx_reply') beats += 1;
});
socket.onClose(event => seen.closes.push(event.code));
socket.connect();

const channel = socket.channel('mcp:events', () => (lastEventId === undefined ? {} : { last_event_id: lastEventId }));
const answered = push =>
    new Promise((resolve, reject) => {
        push.receive('ok', resolve).receive('error', reject).receive('timeout', () => reject(new Error('timeout')));
    });
const until = async check => {
    while (!check()) await new Promise(resolve => setTimeout(resolve, 10));
};

channel.on('event', payload => {
    if (payload.event_id !== undefined) lastEventId = payload.event_id;
    seen.events.push(payload);
});
channel.on('response', payload => seen.responses.push(payload));
const joining = channel.join().receive('ok', () => (seen.joins += 1));

// Pushed before the join is answered, as in the first lines of anybody's program: the client holds it back.
const early = answered(channel.push('request', { method: 'echo', params: { message: 'Hello' }, id: 'req-123' }));
seen.joined = await answered(joining);
seen.early = await early;
seen.pong = (await answered(channel.push('ping', {}))).type;
seen.called = (await answered(channel.push('request', { method: 'tools/call', params: { name: 'echo', arguments: { message: 'hi' } }, id: 7 }))).result.content[0].text;
await answered(channel.push('request', { method: 'tools/call', params: { name: 'slow', arguments: { seconds: 0.1, steps: 2 } }, id: 'slow-1' }));
seen.progress = seen.events.filter(each => each.event === 'notifications/progress').map(each => [each.id, each.data.progress]);
seen.error = await answered(channel.push('request', { method: 'no/such', id: 9 })).catch(reply => [reply.id, reply.error.code]);
await answered(channel.push('event', { event: 'hello', data: { n: 1 } }));
await until(() => seen.events.some(each => each.event === 'client.hello'));
const binary = new TextEncoder().encode(JSON.stringify({ method: 'echo', params: { b: 1 }, id: 'binary' })).buffer;
seen.binary = (await answered(channel.push('request', binary))).result;
seen.heartbeat_ms = await new Promise(resolve => socket.ping(resolve));

const second = socket.channel('mcp:client.*', {});
await answered(second.join());
seen.left = await answered(second.leave());
seen.unmatched = await answered(socket.channel('rooms:1', {}).join()).catch(reply => reply.reason);
const before = beats;
await until(() => beats >= before + 2);
seen.connected = socket.isConnected();
console.log(JSON.stringify(seen));

if (options.includes('--cut')) {
    await until(() => seen.joins > 1);
    const again = await answered(channel.push('request', { method: 'echo', params: { message: 'again' }, id: 'req-124' }));
    await until(() => seen.events.some(each => each.event === 'client.meanwhile'));
    console.log(JSON.stringify({ again, closes: seen.closes, meanwhile: seen.events.filter(each => each.event === 'client.meanwhile').map(each => each.data.n) }));
}
socket.disconnect();
process.exit(0);
