// An identity provider on oidc-provider: `node identity_provider.mjs PORT` writes {"issuer": ...} once it listens, then serves
// until it is killed. Every login succeeds, as whoever `login_hint` names ("alice" where it names nobody).
//
// Clients: "service" (JWTs) and "opaque-service" (opaque tokens) by client credentials; "exchanger" by token exchange; "gateway"
// for introspection; all with the secret "secret". "inspector" is a public one with PKCE. Others register, or are a document.
// POST /control {"ttl": seconds}: how long tokens are good for that are issued from now on; 300 at first.
// POST /control {"logOut": {"client", "sub", "sid"}}: sends the client's logout token to where it wants such.
// POST /control {"rotate": true}: from now on a new key signs, and the old one is no longer named.
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { createLocalJWKSet, jwtVerify } from 'jose'
import { errors, Provider } from 'oidc-provider'

const port = Number(process.argv[2])
const issuer = `http://127.0.0.1:${port}`
const SCOPES = ['mcp:tools', 'files:read', 'files:write', 'mcp-gateway:operate']
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const GROUPS = { alice: ['staff'], bob: ['guests'] }
let ttl = 300

const newKey = () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'ES256' }
}
const confidential = (client_id, grant_types) => ({
  client_id, client_secret: 'secret', grant_types, redirect_uris: [], response_types: [], scope: SCOPES.join(' '),
  id_token_signed_response_alg: 'ES256',
})

const store = new Map() // of this process: what is issued outlives a rotation of keys
class MemoryAdapter {
  constructor (name) { this.name = name }
  key (id) { return `${this.name}:${id}` }
  async upsert (id, payload) { store.set(this.key(id), payload) }
  async find (id) { return store.get(this.key(id)) }
  async findByUid (uid) { return this.where('uid', uid) }
  async findByUserCode (code) { return this.where('userCode', code) }
  async consume (id) { store.get(this.key(id)).consumed = Math.floor(Date.now() / 1000) }
  async destroy (id) { store.delete(this.key(id)) }
  async revokeByGrantId (grantId) {
    for (const [key, payload] of store) if (payload.grantId === grantId) store.delete(key)
  }

  where (name, value) {
    for (const [key, payload] of store) if (key.startsWith(`${this.name}:`) && payload[name] === value) return payload
  }
}

function makeProvider (key) {
  const provider = new Provider(issuer, {
    adapter: MemoryAdapter,
    jwks: { keys: [key] },
    cookies: { keys: ['for tests'] },
    clients: [
      confidential('service', ['client_credentials']),
      confidential('opaque-service', ['client_credentials']),
      confidential('exchanger', [EXCHANGE]),
      confidential('gateway', []),
      {
        client_id: 'inspector', token_endpoint_auth_method: 'none', application_type: 'native',
        grant_types: ['authorization_code', 'refresh_token'], redirect_uris: ['http://127.0.0.1/callback'],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    scopes: ['openid', 'offline_access', ...SCOPES],
    pkce: { required: () => true },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    extraTokenClaims: (_, token) => ({ groups: GROUPS[token.accountId] ?? [] }),
    issueRefreshToken: async (_, client) => client.grantTypeAllowed('refresh_token'),
    // Its own keeps to public addresses; clients of tests are on this machine.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    ttl: {
      AccessToken: () => ttl, ClientCredentials: () => ttl, AuthorizationCode: 60, Grant: 86_400, IdToken: 300, Interaction: 300,
      RefreshToken: 86_400, Session: 86_400,
    },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: () => true },
      backchannelLogout: { enabled: true },
      revocation: { enabled: true, allowedPolicy: () => true },
      registration: { enabled: true },
      registrationManagement: { enabled: true },
      clientIdMetadataDocument: { enabled: true, ack: 'draft-02' },
      resourceIndicators: {
        enabled: true,
        defaultResource: (_, client, oneOf) => oneOf ?? [],
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource, client) => ({
          scope: SCOPES.join(' '),
          audience: resource,
          accessTokenTTL: ttl,
          accessTokenFormat: client.clientId.startsWith('opaque') ? 'opaque' : 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  })
  const { kty, crv, x, y, kid } = key
  const ownKeys = createLocalJWKSet({ keys: [{ kty, crv, x, y, kid, alg: 'ES256' }] })

  // RFC 8693, as far as a gateway needs it: one of our own JWTs is exchanged for one with another audience.
  provider.registerGrantType(EXCHANGE, async ctx => {
    const { subject_token: shown, resource, audience, scope } = ctx.oidc.params
    let subject
    try {
      subject = (await jwtVerify(shown, ownKeys, { issuer })).payload
    } catch {
      throw new errors.InvalidGrant('the subject token is not good')
    }
    const target = [resource ?? audience].flat()[0]
    const token = new provider.AccessToken({
      client: ctx.oidc.client, accountId: subject.sub, scope: scope ?? subject.scope, gty: 'token_exchange',
    })
    token.resourceServer = new provider.ResourceServer(target, {
      scope: SCOPES.join(' '), audience: target, accessTokenTTL: ttl, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } },
    })
    ctx.body = {
      access_token: await token.save(), issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer', expires_in: token.expiration, scope: token.scope,
    }
  }, ['subject_token', 'subject_token_type', 'resource', 'audience', 'scope', 'requested_token_type'], ['resource'])

  return provider
}

let provider, answer
const useKey = key => {
  provider = makeProvider(key)
  answer = provider.callback()
}

async function interact (request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response)
  if (prompt.name === 'login') {
    const result = { login: { accountId: params.login_hint ?? 'alice' } }
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false })
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id })
  grant.addOIDCScope('openid offline_access')
  grant.addOIDCScope(params.scope ?? '')
  for (const resource of [params.resource ?? []].flat()) grant.addResourceScope(resource, SCOPES.join(' '))
  const result = { consent: { grantId: await grant.save() } }
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true })
}

async function control (request, response) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  const wanted = JSON.parse(Buffer.concat(chunks).toString())
  if (wanted.ttl) ttl = wanted.ttl
  if (wanted.rotate) useKey(newKey())
  if (wanted.logOut) {
    const { client, sub, sid } = wanted.logOut
    await (await provider.Client.find(client)).backchannelLogout(sub, sid)
  }
  response.writeHead(204).end()
}

useKey(newKey())
createServer((request, response) => {
  const handle = request.url.startsWith('/interaction/') ? interact : request.url === '/control' ? control : answer
  Promise.resolve(handle(request, response)).catch(error => response.writeHead(500).end(String(error)))
}).listen(port, '127.0.0.1', () => console.log(JSON.stringify({ issuer })))
