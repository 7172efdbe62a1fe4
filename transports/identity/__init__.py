"""Who a client is, by what it shows: access tokens, API keys, users that a proxy or TLS vouches for.
Decisions only; what they need of issuers is fetched by the actor "identity"."""
