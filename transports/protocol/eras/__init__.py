"""Legacy and modern: what the two eras call the same things, how revisions differ, the questions that servers ask, the catalogue
of a server's tools. Imports framing and mcp."""
