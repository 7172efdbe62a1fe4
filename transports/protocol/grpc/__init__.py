"""MCP as the messages of its gRPC proto, and back: the service `model_context_protocol.Mcp`. Needs the extra `grpc`."""
