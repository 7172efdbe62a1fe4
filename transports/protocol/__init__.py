"""The Model Context Protocol and what the gateway adds to it, as values: no socket, no clock, no log, no actor. Every module is
pure and fuzzed or tested by tables."""
