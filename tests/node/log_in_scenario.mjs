// The official TypeScript client logs in by itself; prints one JSON line of what it saw.
//
//   node log_in_scenario.mjs URL [--modern]
//
// It meets 401, logs in at the provider that the gateway names (as identity_provider.mjs does it for everybody), calls `echo`, then
// `slow`, for which it needs another scope, and after the token has expired `echo` again.
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';

const url = new URL(process.argv[2]);
const mode = process.argv.includes('--modern') ? { pin: '2026-07-28' } : 'legacy';
const redirectUrl = 'http://127.0.0.1/callback';
const seen = { asked: [], refreshes: 0 };

/** What a browser does with an authorization URL: cookies and redirects, until it is sent back. */
async function logIn(authorizationUrl) {
    const cookies = new Map();
    let next = authorizationUrl.href;
    for (let hops = 0; hops < 10; hops += 1) {
        const shown = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
        const answer = await fetch(next, { redirect: 'manual', headers: shown ? { cookie: shown } : {} });
        for (const line of answer.headers.getSetCookie()) {
            const [name, value] = line.split(';')[0].split('=', 2);
            cookies.set(name, value);
        }
        next = new URL(answer.headers.get('location'), next).href;
        if (next.startsWith(redirectUrl)) return new URL(next).searchParams;
    }
    throw new Error(`no end of redirects: ${next}`);
}

let tokens;
let verifier;
let callback;
const authProvider = {
    redirectUrl,
    clientMetadata: { client_name: 'a client of the tests', redirect_uris: [redirectUrl], grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'none' },
    clientInformation: () => ({ client_id: 'inspector' }),
    tokens: () => tokens,
    saveTokens: saved => {
        if (tokens && !callback) seen.refreshes += 1;
        tokens = saved;
    },
    redirectToAuthorization: async authorizationUrl => {
        seen.asked.push((authorizationUrl.searchParams.get('scope') ?? '').split(' '));
        callback = await logIn(authorizationUrl);
    },
    saveCodeVerifier: saved => (verifier = saved),
    codeVerifier: () => verifier
};

let transport;
async function finish() {
    await transport.finishAuth(callback);
    callback = undefined;
}

async function connect() {
    const client = new Client({ name: 'typescript-login', version: '1.0.0' }, { versionNegotiation: { mode } });
    transport = new StreamableHTTPClientTransport(url, { authProvider });
    await client.connect(transport);
    return client;
}

/** Once more, after a login, where that is what is missing. */
async function loggedIn(action) {
    try {
        return await action();
    } catch (error) {
        if (!(error instanceof UnauthorizedError) || !callback) throw error;
        await finish();
        return action();
    }
}

const call = (client, name, args) => loggedIn(async () => (await client.callTool({ name, arguments: args })).content[0].text);

const client = await loggedIn(connect);
seen.echoed = await call(client, 'echo', { message: 'hello' });
seen.slept = await call(client, 'slow', { seconds: 0.01 });
tokens = { ...tokens, access_token: 'expired.in.the.meantime' };
seen.again = await call(client, 'echo', { message: 'again' });
await client.close();
console.log(JSON.stringify(seen));
process.exit(0);
