"""What is measured and told of: metrics in files shared by all processes, exemplars, traces, the budget of a log line. Anybody
may import it; it imports config only."""
