"""Load, peers and backends to measure the gateway by. Imports no product code: it sees what a client sees."""
