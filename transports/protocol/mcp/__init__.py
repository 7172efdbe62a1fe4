"""The specification's own words: JSON-RPC, revisions, error codes, refusals, the handshake, the rules of the stateless revision,
change notifications. Imports framing only."""
