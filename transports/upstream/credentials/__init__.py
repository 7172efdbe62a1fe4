"""What a server is shown who asks: tokens of the gateway's own, tokens that a client's is exchanged for, and tokens that a user
has consented to. Challenges, metadata, tokens and the flow are pure decisions; two wrappers of a wire carry them out: one below
the bridge, which shows tokens to the server, and one above it, which asks the client for consent in its own era."""
