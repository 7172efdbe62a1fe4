"""Any client to any server: a conversation around a wire that translates between eras, holds sessions on both sides, parks calls
whose server asks, and keeps subscriptions. Imports cache; wires by the upstream port only."""
