"""Results that a server lets others keep (`ttlMs`, `cacheScope`): the rules, and a conversation that obeys them around a wire."""
