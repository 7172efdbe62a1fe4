"""How MCP crosses a wire: pure protocol rules, Tornado handlers for clients, conversations with servers."""
