"""What outlives every process, in state_dir: events, sessions and tasks as SQLite files, the audit trail as lines. No actor;
whoever owns a file opens it. Imports `messages` and the protocol's pure values."""
