"""Every message that crosses an actor boundary, a file per conversation, and the two Protocols between a cell process and the
gateway in it. Frozen values with unique names and no behaviour. Imports what transports share and config, nothing else of
`actors/`."""
