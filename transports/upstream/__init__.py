"""Conversations with MCP servers, one module per transport."""
