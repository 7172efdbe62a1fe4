"""Nodes on several machines as one gateway. The engine carries messages between them, keys with compare-and-set, and one log;
behind a narrow port, with NATS JetStream for a cluster and memory for one process. What follows from it (who is a member, who
owns what, shares of limits) is decided by pure modules. Imports `messages` and `runtime`."""
