"""The processes of a node: the root supervisor without a loop, the process that carries a cell and the one of the event log under
it, heartbeats, status, commands, and the settings and backends that run now. Admin commands attach to the supervisor. Knows cells
by messages and by the dotted path of a factory. Imports `messages`, `runtime`, `supervision`, and `events` for the process of the
log."""
