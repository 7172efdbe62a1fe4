"""How many calls at once, to whom, over what: the transport registry, the lease ledger (pure), the connection pool, and one
upstream actor per replica, which speaks to its server over the wire that the registry names and answers the edge directly. Knows
the router and the edge by message only; imports `messages`, `runtime`, `supervision`, and `forwarding` for servers whose
connection another cell holds."""
