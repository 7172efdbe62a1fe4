"""How many calls at once, to whom, over what: the transport registry, the lease ledger (pure), the connection pool, and one
upstream actor per replica, which holds the conversation with its server. Knows the router and the edge by message only."""
