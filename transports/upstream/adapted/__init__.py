"""Servers that speak no MCP, each as an MCP server of the newest revision whose tools are the server's own operations."""
