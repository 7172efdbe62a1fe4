"""Faults of every kind against a gateway under load, and what its clients saw of them. Imports no product code: it sees what
users see. What is judged is a history of records, by pure checkers; whatever has a socket or a process only adds records."""
