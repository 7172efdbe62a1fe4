"""Endpoints that answer over plain HTTP: Streamable HTTP, HTTP+SSE of 2024-11-05, streams of topics. Imports server and
exchanges."""
