"""An HTTP API with an OpenAPI description, as tools: what the description says, what a call asks, and what comes of it."""
