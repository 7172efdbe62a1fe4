"""Towards clients: one exchange of a client each, from its message to its answer. State machines without actor or loop:
`conversation_choice` says which serves what, the edge feeds them what happens, they speak through a Desk, which the edge
implements. Relay passes one request on, gathering asks all servers and joins what they say, telling passes a notification or an
end to servers, listening keeps a subscription open. Imports `messages` of `actors/` and what transports share; no runtime."""
