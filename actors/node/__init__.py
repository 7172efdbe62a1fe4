"""The processes of a node: the root supervisor without a loop, the process that carries a cell, heartbeats, status, commands and
the settings that run. Knows cells by messages and by the dotted path of a factory. Imports `messages`, `runtime`, `supervision`,
`events`."""
