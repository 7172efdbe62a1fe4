"""Is it well, who may take traffic, who is told. Rules turn probes and measurements into verdicts, the health monitor asks and
tells, alerts leave by log and webhook. Knows the other actors by message only: imports `messages` and `runtime`."""
