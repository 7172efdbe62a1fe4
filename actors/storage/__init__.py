"""What outlives every process: events, sessions and tasks, as SQLite files in state_dir. No actor; whoever owns a file opens it.
Imports `messages` and the protocol's pure values."""
