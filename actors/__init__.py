"""The actor system, one folder per role. Decisions are pure modules, actors the shells around them. Edge, events, pool, routing,
health and viability know each other by message only; `cell` builds them and is the one place that knows them all. Imports
transports and config, never scripts."""
