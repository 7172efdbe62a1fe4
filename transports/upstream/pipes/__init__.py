"""Servers behind one full-duplex connection that many exchanges share: stdio, WebSocket, HTTP+SSE. Pipes are opened, pooled,
multiplexed and guarded here. Imports http for its words."""
