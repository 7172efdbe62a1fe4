"""Where the exchanges of clients enter the actor system: the edge actor with its desk, its port on the event loop with all that
is open, the feed of topics, and what it keeps of sessions and lists. It survives the restarts of the chain and is told the new
addresses. Imports conversations, forwarding, storage; no other role."""
