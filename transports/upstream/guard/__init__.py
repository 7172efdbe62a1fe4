"""Guardrails: what asks a program of the operator's, over HTTP or in this process, about each call of a tool and each result.
Implements `ports.guard_port`; knows `outbound` and config."""
