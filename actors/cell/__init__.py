"""The composition root of one process: a whole gateway on one event loop. The gateway supervisor restarts the chain (event bus,
transport registry, connection pool, router, health monitor) rest for one; beside it stand the edge and the viability monitor,
which survive that. Knows everybody here but `node`, which starts it by its dotted path."""
