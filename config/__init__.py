"""Settings of the gateway: what may be configured, how a file is read, sample files."""
