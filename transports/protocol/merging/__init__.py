"""Several servers as one: prefixed names, merged capabilities, lists and results. Imports framing and mcp."""
