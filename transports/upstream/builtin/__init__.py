"""The demo server, in process: what `serve` without a configuration serves. Imports nothing of the other servers."""
