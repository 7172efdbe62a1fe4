"""The topics of the event bus: the log in memory, a subscriber's cursor, events as they stand on the wire. Imports framing and
mcp."""
