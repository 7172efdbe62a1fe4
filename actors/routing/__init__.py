"""Which replica gets a call. Route table, hash ring, circuit breaker and replica choice are pure decisions; the router is a shell
around them. Knows other actors by message only: imports `messages` and `runtime` of `actors/`, nothing else."""
