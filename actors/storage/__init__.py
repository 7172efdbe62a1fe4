"""What outlives every process: the events and the sessions, as SQLite files in state_dir. No actor; whoever owns a file opens it.
Imports `messages` and the protocol's pure values."""
