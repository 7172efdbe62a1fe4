"""From a client's message to an exchange and back, the same for every transport: two-way channels, batches, counting, watching.
Imports server."""
