"""Any client to any server: a conversation around a wire. `era_bridge` passes on what both sides say alike and leaves the rest to
the translation of its name (modern_to_legacy, legacy_to_modern, legacy_to_legacy); sessions on both sides, calls and tasks that
wait for their client, and subscriptions are kept here. Imports cache; wires by the upstream port only."""
