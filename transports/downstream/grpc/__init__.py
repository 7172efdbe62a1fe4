"""MCP's own gRPC proto towards clients: each call is served as a request of the stateless revision. Needs the extra `grpc`."""
