"""Where the exchanges of clients enter the actor system: the edge actor, its port on the event loop, the feed of topics, and what
it keeps of sessions and lists. It survives the restarts of the chain and is told the new addresses. Imports conversations,
forwarding, storage; no other role."""
