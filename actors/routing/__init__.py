"""Which replica gets a call. The route table, the hash ring and the circuit breaker are pure decisions; the router is the shell
around them. Knows other actors by message only: imports `messages` and `runtime` of `actors/`, nothing else."""
