"""What leaves the gateway sealed and comes back: the seal, session ids, `requestState` of parked calls. Imports framing and
mcp."""
