"""Which replica gets a call. The route table, the hash ring, the circuit breaker and the choice of a replica are pure; the router is
the shell around them. Knows other actors by message only: imports `messages` and `runtime` of `actors/`, nothing else."""
