"""What the gateway asks of the web on its own account, and whose address may come from strangers: metadata, keys, tokens."""
