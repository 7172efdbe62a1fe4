"""Results that a server lets others keep (`ttlMs`, `cacheScope`): the rules, and the conversation that obeys them around another
one."""
