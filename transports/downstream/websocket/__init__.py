"""The upgrade, the connection with its backpressure and keep-alive, and MCP over it. Imports server and exchanges."""
